"""Start the three services for a while and print what a test run needs to use them.

make services          # in one terminal; then, in another, export the lines it prints and run pytest
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import threading
from pathlib import Path

from deploy.embedded.services import start_bigquery, start_kafka, start_postgres


def main() -> None:
    """Run until Ctrl-C."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with tempfile.TemporaryDirectory(prefix="services-") as folder:
        Path(folder).chmod(0o755)
        base = Path(folder)
        with (
            start_kafka(base / "kafka") as kafka,
            start_bigquery(base / "bigquery") as bigquery,
            start_postgres(base / "postgres", durable=False) as postgres,
        ):
            print(f"export TEST_KAFKA_BOOTSTRAP={kafka.bootstrap}")
            print(f"export TEST_POSTGRES_DSN={postgres.dsn()}")
            print(f"export TEST_BIGQUERY_HOST={bigquery.url}")
            print("# Ctrl-C stops them", flush=True)
            done.wait()


if __name__ == "__main__":
    main()
