"""`python -m deploy.demo`, called by the Makefile. Only the first tenth of a second stands here (the rest: cli.py)."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Until the demo takes signals into its own hands, Ctrl-C ends it like any program, without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from deploy.demo import cli  # noqa: PLC0415 - imports take long enough for a Ctrl-C to fall into them

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
