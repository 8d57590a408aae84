"""Whose helper modules a Mage block imports: its own project's, whatever else has the name of that project's folder.

Belongs here: the package that blocks import by their project's folder (`from shop.helpers import ...`). Not here: Mage,
running blocks (mage.py), what a project looks like on disk (mage_spec.py).
"""

from __future__ import annotations

import contextlib
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


@contextlib.contextmanager
def own_helpers(root: Path) -> Iterator[None]:
    """Inside, the name of the project's folder means the package of that folder; outside, what it meant before.

    Python keeps one package a name: of two projects in folders of one name, whose blocks run in one process, the second
    would run the first's helpers without a word. Nothing is done where no other project has the name.
    """
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
