"""Runs a script beside the emulator's modules, in a process of the embedded environment's own Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

from deploy.embedded.parts import parts
from deploy.embedded.services import EMULATOR


def require_the_same(script: str, data_dir: Path, *, timeout_s: float) -> None:
    """Run it with a data folder and the emulator's folder as arguments; it ends by saying "the same"."""
    done = subprocess.run(
        [str(parts().python), "-c", script, str(data_dir), str(EMULATOR.parent)],
        env={"HOME": str(parts().duckdb_home), "PATH": "/usr/bin:/bin", "TZ": "UTC"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("the same")
