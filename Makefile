# One verb each. Everything is installed into .venv, from the pinned set in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
DEMO_FLAGS ?=
SWEEP_FLAGS ?=
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-sweep test test-fast test-cluster check format ui bench clean

help:  ## list the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(READY)  ## make .venv and install the pinned set

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed; set PYTHON=") if sys.version_info < (3, 10) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)  ## the main job: make a small world, adapt a tiny CLIP to it, show before and after
	$(BIN)/lssl-ray demo $(DEMO_FLAGS)

demo-sweep: $(READY)  ## six short trainings on the demo's world, compared (needs 2 cores)
	$(BIN)/lssl-ray demo-sweep $(SWEEP_FLAGS)

test: $(READY)  ## the test suite (but for what test-cluster adds)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not long'

test-cluster: $(READY)  ## every test that starts a real Ray, and those of many minutes
	$(BIN)/python -m pytest -m 'cluster or long'

test-fast: $(READY)  ## tests that start no Ray
	$(BIN)/python -m pytest -m 'not cluster and not long'

check: $(READY)  ## format, lint, spelling, strict types, import boundary
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell lssl_ray jobs tune_spaces tests bench docs deploy cluster.yaml README.md CHANGELOG.md
	# NumPy's types are complete from 2.3 on, which is not for Python 3.10.
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo $(BIN)/mypy; $(BIN)/mypy; else echo "mypy: skipped, it needs Python 3.11 or newer"; fi
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_boundaries.py

format: $(READY)  ## rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: $(READY)  ## an MLflow server over the demo's runs, on loopback
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --host 127.0.0.1 --port 5000 --workers 1 \
	    --backend-store-uri sqlite:///demo/mlflow.db --artifacts-destination demo/mlartifacts

bench: $(READY)  ## gain and ablations on the demo world over three seeds (an hour and more)
	$(BIN)/python bench/demo_gain.py

clean:  ## remove what the verbs above made, the environment too
	rm -rf $(VENV) demo runs mlruns mlflow.db .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
