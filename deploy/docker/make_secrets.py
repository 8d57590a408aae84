"""Make the passwords of a deployment that has none: random, one file each, readable by whoever needs it alone.

Runs once before everything else (service `secrets`) and leaves what exists as it is, so a password of your own is a
file put in its place. A password is changed by removing its folder's content and `docker compose up -d` again; that of
PostgreSQL's superuser otherwise (docs/runbooks/change-a-password.md). Standard library only.

Not here: what the roles may do (streaming/migrations/grants.sql), who is given which folder (docker-compose.yml).
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

ROLES = ("owner", "lander", "reader", "dagster")
"""Folders of PostgreSQL's roles; `owner` is the role lake_owner."""
LIBPQ_MODE = 0o400  # libpq ignores a password file that others may read
SHARED_MODE = 0o440  # PostgreSQL's and Grafana's own users read theirs by group (group_add in docker-compose.yml)


def role_name(folder: str) -> str:
    """The PostgreSQL role whose password is in a folder."""
    return "lake_owner" if folder == "owner" else folder


def wanted(root: Path) -> dict[Path, tuple[str, int]]:
    """Every file with the content it gets if it does not exist, and its mode."""
    superuser = _existing(root / "admin" / "postgres_password") or _password()
    files = {
        root / "admin" / "postgres_password": (superuser, SHARED_MODE),
        root / "admin" / "pgpass": (_pgpass("postgres", superuser), LIBPQ_MODE),
        root / "mage" / "owner_password": (_password(), LIBPQ_MODE),
        root / "mage" / "jwt_secret": (_password(), LIBPQ_MODE),
        root / "grafana" / "admin_password": (_password(), SHARED_MODE),
    }
    for folder in ROLES:
        files[root / folder / "pgpass"] = (_pgpass(role_name(folder), _password()), LIBPQ_MODE)
    return files


def make(root: Path) -> list[Path]:
    """Write what is missing; returns what was written. A file is whole or not there."""
    made = []
    for path, (content, mode) in wanted(root).items():
        if path.exists():
            continue
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(content + "\n")
        beside.chmod(mode)  # whatever the umask
        beside.rename(path)
        made.append(path)
    return made


def _existing(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def _password() -> str:
    return secrets.token_urlsafe(24)  # no character that a URL, a shell or a pgpass file would mind


def _pgpass(role: str, password: str) -> str:
    return f"*:*:*:{role}:{password}"


def main() -> int:
    """Make what is missing under the folder named, /secrets by default."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "/secrets")
    made = make(root)
    for path in made:
        print(f"made {path}")
    if not made:
        print("every secret is there already")
    return 0


if __name__ == "__main__":
    sys.exit(main())
