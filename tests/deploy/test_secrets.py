"""Passwords are made once, readable by whoever needs them alone, and no program starts with a known one."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from deploy.docker.make_secrets import make, wanted
from deploy.docker.start_mage import environment

if TYPE_CHECKING:
    from pathlib import Path


def contents(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_every_secret_is_made_with_its_mode(tmp_path: Path) -> None:
    made = make(tmp_path)
    assert set(made) == wanted(tmp_path).keys()
    for path, (_, mode) in wanted(tmp_path).items():
        assert stat.S_IMODE(path.stat().st_mode) == mode, path


def test_what_exists_is_left_as_it_is(tmp_path: Path) -> None:
    make(tmp_path)
    before = contents(tmp_path)
    assert make(tmp_path) == []
    assert contents(tmp_path) == before


def test_a_removed_password_is_made_anew_and_no_other(tmp_path: Path) -> None:
    make(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "lander" / "pgpass").unlink()
    make(tmp_path)
    after = contents(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"lander/pgpass"}


def test_no_two_deployments_and_no_two_roles_share_a_password(tmp_path: Path) -> None:
    make(tmp_path / "one")
    make(tmp_path / "two")
    found = [
        text.strip().rpartition(":")[2] for folder in ("one", "two") for text in contents(tmp_path / folder).values()
    ]
    superuser_twice = 2  # its password stands in the server's file and in libpq's
    assert len(set(found)) == len(found) - superuser_twice
    assert min(map(len, found)) >= 32


def test_the_superuser_s_two_files_agree_even_when_one_was_given(tmp_path: Path) -> None:
    (tmp_path / "admin").mkdir()
    (tmp_path / "admin" / "postgres_password").write_text("given\n")
    make(tmp_path)
    assert (tmp_path / "admin" / "pgpass").read_text() == "*:*:*:postgres:given\n"


def test_an_interrupted_write_leaves_no_secret_behind(tmp_path: Path) -> None:
    (tmp_path / "mage").mkdir()
    (tmp_path / "mage" / ".jwt_secret.new").write_text("half")
    make(tmp_path)
    assert len((tmp_path / "mage" / "jwt_secret").read_text().strip()) >= 32
    assert not (tmp_path / "mage" / ".jwt_secret.new").exists()


@pytest.mark.parametrize("name", ["owner_password", "jwt_secret"])
@pytest.mark.parametrize("is_empty", [True, False])
def test_mage_does_not_start_with_its_own_default_log_in(tmp_path: Path, name: str, *, is_empty: bool) -> None:
    make(tmp_path)
    path = tmp_path / "mage" / name
    path.unlink()
    if is_empty:
        path.write_text("\n")
    with pytest.raises(SystemExit, match="Not started"):
        environment({}, tmp_path / "mage")


def test_mage_is_given_this_deployment_s_log_in(tmp_path: Path) -> None:
    make(tmp_path)
    env = environment({"PATH": "/bin"}, tmp_path / "mage")
    assert env["DEFAULT_OWNER_PASSWORD"] == (tmp_path / "mage" / "owner_password").read_text().strip()
    assert env["JWT_SECRET"] == (tmp_path / "mage" / "jwt_secret").read_text().strip()
    assert env["PATH"] == "/bin"
