#!/usr/bin/env bash
# Install everything that `make demo` and `make test` need into this checkout: the main environment (.venv, Python 3.11
# or 3.12), the embedded parts' (deploy/embedded/.venv, Python 3.13), Kafka's jars, DuckDB's extensions. Nothing is
# installed outside it but caches. When everything is there it says nothing and takes a tenth of a second; after an
# interruption it repairs what was left half done.
#
# Settings: UV=/path/to/uv; INSTALLER=pip (without uv; newest versions within pyproject.toml's bounds instead of the
# locked ones); MAIN_PYTHON, EMBEDDED_PYTHON = interpreters to use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
tools=$root/.tools

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $1"; shift; for line in "$@"; do say "  $line"; done; exit 1; }

digest() { # of files, whatever tool there is
  if command -v sha256sum >/dev/null; then cat "$@" | sha256sum | cut -c1-16; else cat "$@" | shasum -a 256 | cut -c1-16; fi
}

wanted_main=$(digest pyproject.toml uv.lock)
wanted_embedded=$(digest deploy/embedded/pyproject.toml deploy/embedded/uv.lock deploy/embedded/kafka/jars.sha256 deploy/embedded/parts.py)
is_ready() { [ "$(cat "$1/.complete" 2>/dev/null)" = "$2" ] && [ -x "$1/bin/python" ] && "$1/bin/python" -c '' 2>/dev/null; }
ready() { is_ready .venv "$wanted_main" && is_ready deploy/embedded/.venv "$wanted_embedded"; }
ready && exit 0

mkdir -p "$tools"
# one set-up at a time; a lock whose owner is gone is stale
until mkdir "$tools/lock" 2>/dev/null; do
  owner=$(cat "$tools/lock/pid" 2>/dev/null || true)
  if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then rm -rf "$tools/lock"; continue; fi
  say "waiting for another set-up of this checkout (process ${owner:-?}); if there is none: rm -r $tools/lock"
  sleep 3
done
echo $$ >"$tools/lock/pid"
background=
cleanup() {
  [ -z "$background" ] || kill "$background" 2>/dev/null || true
  rm -rf "$tools/lock"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
ready && exit 0

any_python() { # of at least 3.8, to bring uv with
  local name
  for name in python3 python3.13 python3.12 python3.11 python; do
    command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null && { command -v "$name"; return; }
  done
  return 1
}

works() { "$1" --version >/dev/null 2>&1; }

bring_uv() { # prints the path of a uv that works
  local candidate python
  for candidate in "${UV:-}" "$(command -v uv || true)" "$tools/uv/bin/uv" "$tools/bin/uv"; do
    [ -n "$candidate" ] && works "$candidate" && { echo "$candidate"; return; }
  done
  say "Bringing uv into .tools (it is not installed here)"
  if python=$(any_python); then
    rm -rf "$tools/uv"
    if "$python" -m venv "$tools/uv" >/dev/null 2>&1 && "$tools/uv/bin/python" -m pip install -q uv >"$tools/uv.log" 2>&1 && works "$tools/uv/bin/uv"; then
      echo "$tools/uv/bin/uv"; return
    fi
    rm -rf "$tools/uv" # Debian's python3 without python3-venv, for instance
    if "$python" -m pip install -q --target "$tools/uv" uv >>"$tools/uv.log" 2>&1 && works "$tools/uv/bin/uv"; then
      echo "$tools/uv/bin/uv"; return
    fi
    rm -rf "$tools/uv"
  fi
  if command -v curl >/dev/null && curl -LsSf https://astral.sh/uv/install.sh 2>>"$tools/uv.log" |
    env UV_INSTALL_DIR="$tools/bin" UV_NO_MODIFY_PATH=1 sh >>"$tools/uv.log" 2>&1 && works "$tools/bin/uv"; then
    echo "$tools/bin/uv"; return
  fi
  return 1
}

is_version() { "$1" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] not in sys.argv[1:])" "${@:2}" 2>/dev/null; }

find_python() { # find_python GIVEN 3.12 3.11: an interpreter of one of these versions, already installed
  local given=$1 version candidate
  shift
  if [ -n "$given" ]; then
    is_version "$given" "$@" || fail "$given is not Python $(printf '%s or ' "$@" | sed 's/ or $//')." "Set MAIN_PYTHON or EMBEDDED_PYTHON to one that is, or leave it unset."
    command -v "$given"; return
  fi
  for version in "$@"; do
    for candidate in "$(command -v "python$version" || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python /opt/homebrew/bin/python"$version" /usr/local/bin/python"$version"; do
      if [ -x "$candidate" ] && is_version "$candidate" "$version"; then
        # a shim answers for the version that is current where it stands; the interpreter itself is always the same
        "$candidate" -c 'import sys; print(sys.executable)'; return
      fi
    done
  done
  candidate=$(command -v python3 || true)
  if [ -n "$candidate" ] && is_version "$candidate" "$@"; then "$candidate" -c 'import sys; print(sys.executable)'; return; fi
  return 1
}

get_python() { # get_python WHAT GIVEN VERSIONS..: find one, or let uv download the first version named
  local what=$1 given=$2 found
  shift 2
  if found=$(find_python "$given" "$@"); then echo "$found"; return; fi
  [ -z "$given" ] || return 1
  if [ -n "$uv" ]; then
    found=$("$uv" python find --no-python-downloads "$1" 2>/dev/null) && { echo "$found"; return; }
    say "Fetching Python $1 by uv (no interpreter for $what is installed)"
    if "$uv" python install "$1" >"$tools/python.log" 2>&1 && found=$("$uv" python find --no-python-downloads "$1" 2>/dev/null); then
      echo "$found"; return
    fi
  fi
  fail "no Python $(printf '%s or ' "$@" | sed 's/ or $//') for $what, and uv could not fetch one${uv:+ (see $tools/python.log)}." \
    "Install it, for example:  apt-get install python$1 python$1-venv   or   brew install python@$1   or   pyenv install $1" \
    "then run 'make setup' again. What is installed is found on PATH, under ~/.pyenv/versions and by uv."
}

dependencies_of() { "$2" -c 'import sys, tomllib; print("\n".join(tomllib.load(open(sys.argv[1], "rb"))["project"]["dependencies"]))' "$1"; }

prepare() { # prepare VENV: away with one whose installation was interrupted, whose interpreter is gone or another
  if [ -e "$1/.installing" ] || { [ -e "$1" ] && ! "$1/bin/python" -c '' 2>/dev/null; }; then
    say "Starting $1 afresh: it was left incomplete"
    rm -rf "$1"
  fi
}

install_main() {
  local python=$1
  prepare .venv
  if [ -n "$uv" ]; then
    [ -e .venv ] || "$uv" venv -q --python "$python" .venv
    touch .venv/.installing
    "$uv" sync --frozen --python .venv/bin/python
  else
    [ -e .venv ] || "$python" -m venv .venv
    touch .venv/.installing
    .venv/bin/python -m pip install -q --upgrade 'pip>=25.1'
    .venv/bin/python -m pip install --editable . --group dev
  fi
  rm .venv/.installing
  echo "$wanted_main" >.venv/.complete
}

install_embedded() {
  local python=$1 venv=deploy/embedded/.venv
  prepare "$venv"
  if [ -n "$uv" ]; then
    [ -e "$venv" ] || "$uv" venv -q --python "$python" "$venv"
    touch "$venv/.installing"
    "$uv" sync --frozen --project deploy/embedded --python "$venv/bin/python"
  else
    [ -e "$venv" ] || "$python" -m venv "$venv"
    touch "$venv/.installing"
    dependencies_of deploy/embedded/pyproject.toml "$venv/bin/python" | "$venv/bin/python" -m pip install -r /dev/stdin
  fi
  "$venv/bin/python" -m deploy.embedded.parts
  rm "$venv/.installing"
  echo "$wanted_embedded" >"$venv/.complete"
}

uv=
if [ "${INSTALLER:-uv}" = uv ]; then
  uv=$(bring_uv) || say "uv could not be brought (see $tools/uv.log): going on with pip, which takes longer and does not follow uv.lock"
fi
export UV_PYTHON_DOWNLOADS=manual UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-180}"
unset VIRTUAL_ENV UV_PROJECT_ENVIRONMENT PYTHONHOME PYTHONPATH || true
main_python=$(get_python "the main environment" "${MAIN_PYTHON:-}" 3.11 3.12)
embedded_python=$(get_python "the embedded parts" "${EMBEDDED_PYTHON:-}" 3.13)

say "Installing into this checkout (the first time: 1.6 GB, some minutes; what is cached is not fetched again)"
if ! is_ready deploy/embedded/.venv "$wanted_embedded"; then
  (set -e; install_embedded "$embedded_python") >"$tools/embedded.log" 2>&1 &
  background=$!
fi
is_ready .venv "$wanted_main" || (set -e; install_main "$main_python") || fail "installing the main environment failed (see above)." "Run 'make setup' again: it goes on from where it stopped."
if [ -n "$background" ]; then
  wait "$background" || { background=; tail -n 25 "$tools/embedded.log" >&2; fail "installing the embedded parts failed (the whole log: $tools/embedded.log)." "Run 'make setup' again: it goes on from where it stopped."; }
  background=
fi
say "Installed."
