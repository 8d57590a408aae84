"""Values of a model's M parameters, written into its files. Not here: reading M (m.py), sending them (publish.py)."""

from __future__ import annotations

import re

from powerbi.errors import ProjectError

EXPRESSIONS = "definition/expressions.tmdl"


def with_parameters(files: dict[str, str], values: dict[str, str]) -> dict[str, str]:
    """The files with these values of text parameters.

    Raises:
        ProjectError: a parameter does not exist or does not hold a text.
    """
    text = files.get(EXPRESSIONS, "")
    for name, value in values.items():
        pattern = re.compile(
            rf"^(?P<head>expression (?:{re.escape(name)}|'{re.escape(name)}') = )\"(?:[^\"]|\"\")*\"(?= meta \[)",
            re.MULTILINE,
        )
        quoted = '"' + value.replace('"', '""') + '"'
        text, count = pattern.subn(lambda match, quoted=quoted: match["head"] + quoted, text)  # type: ignore[misc]
        if count != 1:
            raise ProjectError(EXPRESSIONS, 1, f"no text parameter {name!r} in the model; its value cannot be set")
    return {**files, EXPRESSIONS: text} if values else files
