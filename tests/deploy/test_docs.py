"""The documentation's commands exist, each says where it is proven, and the two READMEs agree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.docs_commands import ROOT, Block, Checker, blocks, commands

PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").glob("docker/*.md")})
BLOCKS = [block for page in PAGES for block in blocks(page)]


@pytest.fixture(scope="module")
def checker() -> Checker:
    return Checker()


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_command_of_a_page_exists_with_its_options(block: Block, checker: Checker) -> None:
    problems = {" ".join(words): checker.problem(words) for words in commands(block.text)}
    assert {words: problem for words, problem in problems.items() if problem} == {}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_says_which_test_runs_it_or_why_none_does(block: Block) -> None:
    assert block.is_in_ci is not None, f"{block}: put <!-- in CI: tests/... --> or <!-- not in CI: reason --> above it"
    if block.is_in_ci:
        paths = re.findall(r"[\w./-]+", block.proof)
        assert paths, block
        assert [path for path in paths if "/" in path and not (ROOT / path).exists()] == [], block
    else:
        assert len(block.proof) > 20, f"{block}: a reason, please"


def test_both_readmes_show_the_same_commands() -> None:
    english, spanish = (
        [commands(block.text) for block in blocks(ROOT / name)] for name in ("README.md", "README.es.md")
    )
    assert english == spanish
    assert english


@pytest.mark.parametrize("name", ["README.md", "README.es.md"])
def test_both_readmes_have_the_same_sections_pictures_and_links(name: str) -> None:
    text, other = ((ROOT / each).read_text(encoding="utf-8") for each in ("README.md", name))
    assert len(re.findall("^#+ ", text, re.MULTILINE)) == len(re.findall("^#+ ", other, re.MULTILINE))
    links = [sorted(set(re.findall(r"\]\(([^)]+)\)", each)) - {"README.md", "README.es.md"}) for each in (text, other)]
    assert links[0] == links[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_documentation_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("make demoo", "target"),
        ("docker compose exec nobody ls", "service"),
        ("docker compose --profile nothing up -d", "profile"),
        ("docker compose exec consumer streaming lake stattus", "no command stattus"),
        ("streaming produce --csv x --reesume", "no option --reesume"),
        ("python -m deploy.nothing", "no module"),
        (".venv/bin/python bench/nothing.py", "does not exist"),
        ("deploy/nothing.sh", "does not exist"),
        ("streamming consume", "no command of ours"),
        ("true && powerbi plann prod", "no command"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, what: str, checker: Checker) -> None:
    assert any(what in checker.problem(words) for words in commands(line))


def test_every_benchmark_has_a_target_that_runs_it() -> None:
    for bench in (ROOT / "bench").glob("[a-z]*.py"):
        done = subprocess.run(
            ["make", "-n", f"bench-{bench.stem}"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert f"bench/{bench.name}" in done.stdout, done.stdout + done.stderr
