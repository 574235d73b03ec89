# make demo: see a photo become a painting.  make test: the checks that need minutes and no root.
# make faults: every fault injected for real (root, a quarter of an hour).  make service-test: under systemd.
# Needs Python 3.11, 3.12 or 3.13, make and a package index; uv is used where it is installed.
# For another Python: make clean, then make PYTHON=python3.13 demo.

# Programs in .venv know where it lies: in a folder that was moved all is installed anew.
MOVED := $(shell test ! -s .venv/installed || test "$$(cat .venv/installed)" = "$(CURDIR)" || echo moved)

# There is no TensorFlow for later ones: where python3 is one, the newest that will do is taken.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
  $$python -c '$(FITS)' 2>/dev/null && echo $$python && break; done)
endif
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo test lint unit service-test faults lock clean moved

demo: .venv/installed
	$(BIN)/stylewatch demo

test: lint unit

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: .venv/installed
	$(BIN)/pytest -n 3 --dist worksteal

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

moved:
	rm -rf .venv

.venv/installed: pyproject.toml requirements.lock $(MOVED)
ifeq ($(UV),)
	@test -n "$(PYTHON)" && "$(PYTHON)" -c '$(FITS)' || { \
	  echo "stylewatch needs Python 3.11, 3.12 or 3.13; give it with: make PYTHON=python3.13" \
	    "(or install uv, which fetches one)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
else
	$(UV) venv --quiet --allow-existing --seed $(if $(PYTHON),--python $(PYTHON)) .venv
	$(UV) pip install --quiet --python $(BIN)/python -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
endif
	echo "$(CURDIR)" > $@
