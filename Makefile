# `make` lists the targets. Every target sets up what it needs by itself (deploy/setup.sh).
.DEFAULT_GOAL := help
BENCHES := $(basename $(notdir $(wildcard bench/[a-z]*.py)))
.PHONY: help setup demo demo-clean status test test-all test-faults test-bigquery docs check format golden mage audit services up down clean \
	$(addprefix bench-,$(BENCHES))

# Without written bytecode every process compiles its libraries again: 17 s instead of 5 s to import Mage (measured).
export PYTHONDONTWRITEBYTECODE =

BIN := .venv/bin
DATA ?=
PROJECT ?=
# Test files go to so many workers side by side, each with services of its own; the slow ones stand first.
WORKERS ?= 2
ARGS ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@for b in bench/[a-z]*.py; do [ -e "$$b" ] || continue; n=$$(basename $$b .py); printf "  \033[1m%-18s\033[0m %s\n" "bench-$$n" "$$(sed -n '1s/^"""//p' $$b | sed 's/"""$$//')"; done

setup: ## install everything into this checkout (the other targets do it by themselves)
	@deploy/setup.sh

demo: setup ## the whole line on this machine; DATA=folder of CSV files, ARGS=--exit stops after the summary
	@$(BIN)/python -m deploy.demo run $(if $(DATA),--data '$(DATA)') $(ARGS)

demo-clean: setup ## remove the demo's state (.demo/)
	@$(BIN)/python -m deploy.demo clean

status: setup ## is the running demo well, where does it lag, what to do
	@$(BIN)/python -m deploy.status $(ARGS)

test: setup ## every test, on real Kafka, real PostgreSQL and the BigQuery emulator (ARGS=-k ... for some, WORKERS=0 in one process)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-all: setup ## every test in its long form, also those that make test has no time for; above an hour
	@TESTS=all $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-faults: setup ## the landing's whole schedule of faults: kills, cuts, outages, a full disk; FAULTS_SEED=n for other moments
	@TESTS=all $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
		tests/acceptance tests/property tests/integration/streaming/test_security.py \
		tests/integration/test_warehouse_upgrade.py tests/integration/test_warehouse_killed.py tests/integration/orchestration/test_restored.py \
		-k 'faults or property or kills or killed or log_in or token_server or upgrade or restored' $(ARGS)

test-bigquery: setup ## the warehouse's tests on a real Google project: PROJECT=name (Application Default Credentials)
	@test -n "$(PROJECT)" || { echo "make test-bigquery PROJECT=<Google Cloud project>: no project was named, nothing was tested"; exit 2; }
	@TEST_BIGQUERY_PROJECT=$(PROJECT) $(BIN)/python -m pytest -rs tests/boundary tests/integration/test_warehouse_load.py tests/integration/test_warehouse_publish.py tests/integration/test_warehouse_plan.py tests/integration/test_warehouse_property.py $(ARGS)

docs: setup ## the warehouse's page: tables, graph, columns' ways from the landing to the measures (warehouse.html)
	@$(BIN)/python -m orchestration.trace measures > .measures.json && $(BIN)/dbt-like-sql docs warehouse.html --measures .measures.json; rm -f .measures.json

check: setup ## format, lint, types, import directions, unit and golden tests; about a minute
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/unit tests/golden

format: setup ## format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

golden: setup ## rewrite the golden files; read the diff before committing it
	@UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/golden
	@git --no-pager diff --stat -- tests/golden

mage: setup ## Mage's own UI on the demo's state
	@$(BIN)/python -m deploy.demo mage $(ARGS)

audit: setup ## known vulnerabilities in what is locked; exit 3 where no advisory database can be reached: not audited
	@$(BIN)/python -m deploy.audit $(ARGS)

services: setup ## Kafka, PostgreSQL and the BigQuery emulator alone, to try a test file many times
	@$(BIN)/python -m deploy.embedded.run

$(addprefix bench-,$(BENCHES)): bench-%: setup
	@$(BIN)/python bench/$*.py $(ARGS)

up: ## the whole line in containers (docker compose; without .env: on this machine alone)
	@deploy/docker/up.sh $(ARGS)

down: ## stop the containers; their volumes stay
	@docker compose --profile "*" down

clean: ## remove environments and caches of this checkout (the demo's state: make demo-clean)
	rm -rf .venv .tools deploy/embedded/.venv deploy/embedded/.parts .mypy_cache .ruff_cache .pytest_cache
