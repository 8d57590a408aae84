"""Commands in fenced blocks of the documentation, and what can be known of them without running them.

Belongs here: reading Markdown and shell words. Not here: which pages, what is asserted (test_docs.py).
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import yaml

ROOT = Path(__file__).parents[2]
SHELLS = {"bash", "sh"}
COMMAND_LINES = {
    "streaming": "streaming.__main__",
    "dbt-like-sql": "dbt_like_sql.__main__",
    "powerbi": "powerbi.__main__",
    "trace": "orchestration.trace",
}
# What others make: that these exist is not ours to test.
OUTSIDE = frozenset(
    re.findall(
        r"\w+",
        "bq cat cd cp curl df docker echo export for gcloud git grep helm kubectl mv psql rm sed sleep source sudo uv",
    )
)
PROOF = re.compile(r"<!-- (in CI|not in CI): (.+?) -->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block of shell: where it begins, its lines, what the page says of its proof."""

    page: str
    line: int
    text: str
    is_in_ci: bool | None
    proof: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Every shell block of a page, with the nearest proof comment above it."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        if match[2] not in SHELLS:
            continue
        proofs = list(PROOF.finditer(text, 0, match.start()))
        said = proofs[-1] if proofs else None
        found.append(
            Block(
                page=str(page.relative_to(ROOT)),
                line=text.count("\n", 0, match.start()) + 1,
                text=match[3],
                is_in_ci=None if said is None else said[1] == "in CI",
                proof="" if said is None else " ".join(said[2].split()),
            )
        )
    return found


def commands(text: str) -> list[list[str]]:
    """Simple commands of a shell text, as words: `a && b | c` are three. Quoted scripts stay one word."""
    found: list[list[str]] = []
    held = ""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        held += line + "\n"
        lexer = shlex.shlex(held, posix=True, punctuation_chars="&|;<>()")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # a quotation that goes on in the next line
            continue
        found.extend(_split(words))
        held = ""
    return [each for each in found if each]


def _split(words: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    skip = False
    for word in words:
        if word and set(word) <= set("&|;"):
            parts.append([])
        elif word and set(word) <= set("<>()"):
            skip = True
        elif skip:
            skip = False
        else:
            parts[-1].append(word)
    return parts


@dataclass
class Checker:
    """Says what is wrong with a command: a target, option, service, module or file that does not exist."""

    targets: set[str] = field(default_factory=set)
    services: set[str] = field(default_factory=set)
    profiles: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        self.targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
        self.targets |= {f"bench-{path.stem}" for path in (ROOT / "bench").glob("*.py")}
        compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
        self.services = set(compose["services"])
        self.profiles = {name for each in compose["services"].values() for name in each.get("profiles", [])}

    def problem(self, words: list[str]) -> str:
        """Empty if nothing is known to be wrong."""
        while words and (words[0] in {"do", "done", "then", "fi"} or re.fullmatch(r"[A-Z_]+=.*", words[0])):
            words = words[1:]
        if not words:
            return ""
        name, rest = words[0], words[1:]
        if name == "docker" and rest[:1] == ["compose"]:
            name, rest = "docker-compose", rest[1:]
        if name in COMMAND_LINES:
            return _click_problem(name, rest)
        if re.fullmatch(r"(\.venv/bin/)?python[\d.]*", name):
            return _python(rest)
        ours = {"make": self._make, "docker-compose": self._compose}.get(name)
        return ours(rest) if ours else _outside(name)

    def _make(self, rest: list[str]) -> str:
        wrong = [word for word in rest if "=" not in word and word not in self.targets]
        return f"make has no target {', '.join(wrong)}" if wrong else ""

    def _compose(self, rest: list[str]) -> str:
        words = list(rest)
        while words and words[0].startswith("-"):
            option = words.pop(0)
            if option in {"-f", "--file", "--profile", "--env-file"} and words:
                value = words.pop(0)
                if option == "--profile" and value not in self.profiles | {"*"}:
                    return f"no profile {value}"
                if option in {"-f", "--file"} and not (ROOT / value).exists():
                    return f"{value} does not exist"
        if words[:1] not in (["exec"], ["run"]):
            return ""
        words = words[1:]
        while words and words[0].startswith("-"):
            if words.pop(0) in {"-v", "-e", "-u", "--entrypoint"}:
                words.pop(0)
        if not words or words[0] not in self.services:
            return f"no service {words[:1]}"
        inner = words[1:]
        return self.problem(inner) if inner and inner[0] in COMMAND_LINES | {"python": ""} else ""


def _outside(name: str) -> str:
    if "/" in name or name.endswith(".sh"):
        return "" if (ROOT / name).exists() or name.startswith(".venv/bin/") else f"{name} does not exist"
    return "" if name in OUTSIDE else f"{name} is no command of ours, and not one of those known from outside"


def _python(rest: list[str]) -> str:
    if rest[:1] == ["-m"]:
        module = rest[1]
        known = module in {"venv", "pip"} or importlib.util.find_spec(module) is not None
        return "" if known else f"no module {module}"
    scripts = [word for word in rest if word.endswith(".py")]
    missing = [word for word in scripts[:1] if not (ROOT / word).exists()]
    return f"{missing[0]} does not exist" if missing else ""


def _click_problem(name: str, rest: list[str]) -> str:
    """Follows the words through the command line's own groups; values are not looked at."""
    command: Any = importlib.import_module(COMMAND_LINES[name]).main
    words = list(rest)
    path = name
    while isinstance(command, click.Group):
        while words and words[0].startswith("-"):
            words.pop(0)
        if not words:
            return ""
        sub = command.commands.get(words[0])
        if sub is None:
            return f"{path} has no command {words[0]}: {', '.join(sorted(command.commands))}"
        path, command, words = f"{path} {words[0]}", sub, words[1:]
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {"--help"}
    wrong = [word for word in words if re.match(r"--?[a-z]", word) and word.split("=")[0] not in known]
    return f"{path} has no option {', '.join(wrong)}" if wrong else ""
