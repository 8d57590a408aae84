"""Start Mage's server with a log-in of this deployment's own: as it comes it is admin/admin, signed with a known word.

Mage reads both from the environment only, so they go from their files into this process's environment and no further.
Who logs in: the user `owner`; the password is in the volume secrets-mage (docker compose exec mage cat
/secrets/mage/owner_password). Not here: what the server shows (mage_project/).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def environment(env: dict[str, str], secrets: Path) -> dict[str, str]:
    """The server's environment. Raises SystemExit where a secret is missing: it must not start with Mage's own."""
    try:
        password, signing = ((secrets / name).read_text().strip() for name in ("owner_password", "jwt_secret"))
    except OSError as error:
        raise SystemExit(
            f"starting Mage: {error.filename} cannot be read. Not started: without it anybody may log in."
        ) from error
    if not password or not signing:
        raise SystemExit(
            f"starting Mage: a secret under {secrets} is empty. Not started: without it anybody may log in."
        )
    return env | {
        "DEFAULT_OWNER_USERNAME": "owner",
        "DEFAULT_OWNER_EMAIL": env.get("MAGE_OWNER_EMAIL", "owner@example.com"),
        "DEFAULT_OWNER_PASSWORD": password,
        "JWT_SECRET": signing,
    }


def main() -> None:
    """Become the server."""
    env = environment(dict(os.environ), Path(os.environ.get("MAGE_SECRETS_DIR") or "/secrets/mage"))
    command = ["mage", "start", "mage_project", "--host", "0.0.0.0", "--port", env.get("MAGE_PORT", "6789")]  # noqa: S104 - the container's
    sys.stdout.flush()
    os.execvpe(command[0], command, env)  # noqa: S606


if __name__ == "__main__":
    main()
