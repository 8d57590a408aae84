"""What every test may use. Services live in fix_<service>.py; a test file of one room keeps its own helpers beside it.

Real services start when the first test asks for one and serve the whole run, its child processes included. To try one
test file many times, start them once with `make services` and export what it prints.
"""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import settings

from deploy.embedded.parts import parts

pytest_plugins = [
    "tests.fix_kafka",
    "tests.fix_postgres",
    "tests.fix_bigquery",
    "tests.fix_registry",
    "tests.fix_secure_kafka",
]

# What an example takes is the machine's business: 200 ms were exceeded by a busy one, with nothing wrong.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

ROOT = Path(__file__).resolve().parents[1]


def pytest_report_header() -> list[str]:
    """Say on what the results rest."""
    names = ("dagster", "mage-ai", "confluent-kafka", "psycopg2-binary", "google-cloud-bigquery", "pyarrow", "sqlglot")
    found = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    missing = parts().missing()
    embedded = "embedded parts: all installed" if not missing else f"embedded parts MISSING: {'; '.join(missing)}"
    return [f"{platform.platform()}, Python {platform.python_version()}", found, embedded]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return ROOT


@pytest.fixture(scope="session")
def retail_dir() -> Path:
    """A folder of real invoices beside the checkout; they are not part of it."""
    folder = ROOT.parent / "shared" / "retail"
    if not folder.is_dir():
        pytest.skip(f"no real invoices at {folder}")
    return folder
