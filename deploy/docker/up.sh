#!/usr/bin/env bash
# `make up`: the whole line in containers. With an .env it is what .env says; without one, this machine alone
# (BigQuery emulator, Power BI's stand-in, a simulated shop). Arguments go to `docker compose up`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() { printf 'error: %s\n' "$@" >&2; exit 1; }
command -v docker >/dev/null || fail "docker is not installed." "See https://docs.docker.com/engine/install/, or run the line without containers: make demo"
docker info >/dev/null 2>&1 || fail "the Docker engine does not answer (docker info)." "Is it started, and may you use it? On Linux: sudo usermod -aG docker \$USER, then log in again."
version=$(docker compose version --short 2>/dev/null || true)
[ -n "$version" ] || fail "docker compose is missing: install the plugin docker-compose-plugin (2.20 or newer)."
[ "$(printf '%s\n' 2.20.0 "${version#v}" | sort -V | head -n 1)" = 2.20.0 ] || fail "docker compose is $version; 2.20 or newer is needed."

profiles=()
if [ -e .env ]; then
  echo "Settings: .env"
else
  profiles=(--profile local)
  echo "No .env: everything on this machine (emulator, stand-in, simulated shop). For Google BigQuery and Power BI: docs/production.md"
fi
REVISION=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
export REVISION
docker compose ${profiles[@]+"${profiles[@]}"} up -d --build --wait --wait-timeout 600 "$@"
docker compose ps --format 'table {{.Service}}\t{{.Status}}'
cat <<'TEXT'

  Dagster   http://127.0.0.1:3000
  Mage      http://127.0.0.1:6789    user owner, password: docker compose exec mage cat /secrets/mage/owner_password
  Report    http://127.0.0.1:8050/report    (Power BI's stand-in; only without .env)
  Status    make status
  Logs      docker logs -f kafka    docker logs -f postgresql    docker compose logs -f consumer
TEXT
