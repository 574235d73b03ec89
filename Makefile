# make demo: see a photo become a painting.  make test: every check.
# make faults: every fault injected for real (root, a quarter of an hour).  make service-test: under systemd.
# Needs python3 (3.11 or newer), make and a package index; uv is used where it is installed.

PYTHON ?= python3
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo test lint unit service-test faults lock clean

demo: .venv/installed
	$(BIN)/stylewatch demo

test: lint unit

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: .venv/installed
	$(BIN)/pytest

service-test: .venv/installed
	$(BIN)/pytest -m slow tests/service

SEED ?= 1

faults: .venv/installed
	$(BIN)/python -m tests.faults --seed $(SEED) --write
	$(BIN)/python -m tests.faults --seed $(SEED) --quick --peers
	$(BIN)/python -m tests.faults.figures

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --group dev --extra dask -o requirements.lock pyproject.toml

clean:
	rm -rf .venv demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/installed: pyproject.toml requirements.lock
ifeq ($(UV),)
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "stylewatch needs Python 3.11 or newer; give it with: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
else
	$(UV) venv --quiet --allow-existing .venv
	$(UV) pip install --quiet --python $(BIN)/python -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
endif
	touch $@
