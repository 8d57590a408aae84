"""Whose helper modules a Mage block imports: its own project's, whatever else has the name of that project's folder.

Belongs here: the package that blocks import by their project's folder (`from shop.helpers import ...`), and what they
find once they put that folder on the path (`from utils.helpers import ...`). Not here: Mage, running blocks (mage.py),
what a project looks like on disk (mage_spec.py).
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence


@contextlib.contextmanager
def own_helpers(root: Path) -> Iterator[None]:
    """Inside, the name of the project's folder means the package of that folder; outside, what it meant before.

    Python keeps one package a name: of two projects in folders of one name, whose blocks run in one process, the second
    would run the first's helpers without a word. Nothing is done where no other project has the name.
    """
    with _own_folder(root), _own_package(root):
        yield


@contextlib.contextmanager
def _own_folder(root: Path) -> Iterator[None]:
    """Inside, nothing that blocks of other projects have imported from their folders, by whatever name, is found.

    Nothing is done in a process that runs the blocks of one project, as nearly all do.
    """
    own = _LEFT.setdefault(root, _Found())
    others = [each for each in _LEFT if each != root]
    if not others:
        yield
        return
    away = _take(others, but=root)
    before, path = set(sys.modules), list(sys.path)
    own.put_back()
    try:
        yield
    finally:
        _LEFT[root] = _take([root], known=before, path=path)
        away.put_back()


@dataclass
class _Found:
    """Modules that were imported from a folder, and where it and what is below it stand on the path."""

    modules: dict[str, ModuleType] = field(default_factory=dict)
    path: list[tuple[int, str]] = field(default_factory=list)

    def put_back(self) -> None:
        """Into what is imported, and onto the path."""
        sys.modules.update(self.modules)
        for place, entry in self.path:
            if entry not in sys.path:
                sys.path.insert(place, entry)


_LEFT: dict[Path, _Found] = {}  # of each project that has run in this process: what is not to be found by others


def _take(
    roots: Sequence[Path], *, but: Path | None = None, known: Container[str] = (), path: Container[str] = ()
) -> _Found:
    """Take what was found below projects' folders out of what is imported and off the path; not their packages by name.

    Args:
        roots: the projects' folders.
        but: a folder that may be below one, and is left.
        known: modules that are left.
        path: entries of the path that are left.
    """
    below = {f"{root}{os.sep}": root.name for root in roots}
    kept = (f"{sys.prefix}{os.sep}", *([f"{but}{os.sep}"] if but else ()))

    def is_below(where: str, name: str = "") -> bool:
        where = f"{where}{os.sep}"
        if not where.startswith(tuple(below)) or where.startswith(kept) or "site-packages" in where:
            return False
        return any(where.startswith(folder) and name != package for folder, package in below.items())

    modules = {
        name: module
        for name, module in sys.modules.items()
        if name not in known and is_below(_place(module), name.partition(".")[0])
    }
    entries = [(place, entry) for place, entry in enumerate(sys.path) if entry not in path and is_below(entry)]
    for name in modules:
        del sys.modules[name]
    for place, _ in reversed(entries):
        del sys.path[place]
    return _Found(modules, entries)


def _place(module: ModuleType) -> str:
    """Where a module was found; nowhere for one that is built in. Looked up so that a lazy one stays lazy."""
    try:
        fields = object.__getattribute__(module, "__dict__")
    except AttributeError:  # what a library has put there instead of a module
        return ""
    return str(fields.get("__file__") or next(iter(fields.get("__path__") or ()), ""))


@contextlib.contextmanager
def _own_package(root: Path) -> Iterator[None]:
    """Inside, the name of the project's folder means that folder."""
    if not _is_taken_by_another(root):
        yield
        return
    before = _forget(root.name)
    try:
        _import(root)
        yield
    finally:
        _forget(root.name)
        sys.modules.update(before)


def _is_taken_by_another(root: Path) -> bool:
    """Whether importing that name gives, or may give, a module of another Mage project.

    Only of another project: a folder that is called as a library is takes nothing away from who imports the library.
    """
    loaded = sys.modules.get(root.name)
    spec = loaded.__spec__ if loaded is not None else PathFinder.find_spec(root.name)
    folders = [] if spec is None else spec.submodule_search_locations or []
    return any((Path(each) / "metadata.yaml").is_file() and not root.samefile(each) for each in folders)


def _forget(name: str) -> dict[str, ModuleType]:
    """Take the package and what is below it out of what is imported."""
    names = [each for each in sys.modules if each == name or each.startswith(f"{name}.")]
    return {each: sys.modules.pop(each) for each in names}


def _import(root: Path) -> None:
    """The folder as a package, found by its path: where `sys.path` leads by that name may be another project."""
    init = root / "__init__.py"
    loader = SourceFileLoader(root.name, str(init)) if init.is_file() else None
    spec = ModuleSpec(root.name, loader, origin=str(init), is_package=True)
    spec.submodule_search_locations = [str(root)]
    spec.has_location = loader is not None
    package = sys.modules[root.name] = module_from_spec(spec)
    if loader is not None:
        loader.exec_module(package)
