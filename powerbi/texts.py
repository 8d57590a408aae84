"""The text files of a project's folder. Here: which files belong to it, and reading them. Not here: what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from powerbi.errors import ProjectError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What Power BI Desktop and the service keep in a project; `.platform` is a whole name. Pictures are not read.
SUFFIXES = frozenset({".tmdl", ".json", ".pbir", ".pbism", ".pbip", ".platform"})


def read_texts(folder: Path, suffixes: frozenset[str] = SUFFIXES) -> dict[str, str]:
    """Texts of a folder by their paths below it, in order.

    Raises:
        ProjectError: one is not UTF-8.
    """
    return {path.relative_to(folder).as_posix(): read_text(path) for path in text_paths(folder, suffixes)}


def text_paths(folder: Path, suffixes: frozenset[str] = SUFFIXES) -> Iterator[Path]:
    """The files of a project, without what is hidden: Desktop's `.pbi` is a user's own (settings, a copy of the data).

    So are the `.DS_Store` and `._Sales.tmdl` of macOS, which are no text. `.platform` alone belongs to the project.
    """
    for path in sorted(folder.rglob("*")):
        is_hidden = any(each.startswith(".") for each in path.relative_to(folder).parts)
        if ((path.suffix in suffixes and not is_hidden) or path.name in suffixes) and path.is_file():
            yield path


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        ProjectError: it is not UTF-8.
    """
    content = path.read_bytes()
    try:
        return content.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"it is no UTF-8 text, by its byte {error.start + 1}; save it as UTF-8"
        raise ProjectError(str(path), line, problem) from error
