# Needs make and Python 3.11-3.13, nothing else. Every target runs in .venv, built from exact pins.

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# One process per core; the tests of a file run in one process and share fixtures.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

export TINYJAX_DATA ?= $(abspath ../shared/data)

.PHONY: quickstart test test-all bench lint lock clean

quickstart: .venv/.installed
	rm -rf runs/quickstart
	$(BIN)/python -m tinyjax.train --config configs/quickstart.py --workdir runs/quickstart

test: lint
	$(PYTEST) -m "not slow"

test-all: lint
	$(PYTEST)

# Takes an hour on two cores; includes torch if it is installed.
bench: .venv/.tools
	for name in conv step inference detectors recognition population sweep input; do $(BIN)/python -m benchmarks.$$name || exit; done

lint: .venv/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Installs with uv if it is available, else with pip, at the pins of the lock file. The package
# itself is built offline, because setuptools is pinned, too.
UV := $(shell command -v uv)
INSTALL := $(if $(UV),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install) \
	--quiet --constraint requirements.lock --no-build-isolation

.venv/.installed: requirements.lock pyproject.toml setup.py
	@"$(PYTHON)" -c '$(SUPPORTED)' 2>/dev/null || \
		{ echo 'tinyjax needs Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python' >&2; exit 2; }
	rm -rf .venv
	$(if $(UV),uv venv --quiet --python "$(PYTHON)" .venv,"$(PYTHON)" -m venv .venv)
	$(INSTALL) setuptools
	$(INSTALL) --editable .
	touch $@

# Packages for tests and lint: another gigabyte, mostly the TPU compiler and launch engines.
.venv/.tools: .venv/.installed
	$(INSTALL) --editable '.[dev]'
	touch $@

# Keeps the pins that still fit; remove requirements.lock first to update all of them.
lock:
	@command -v uv >/dev/null || { echo 'make lock needs uv: pip install uv' >&2; exit 2; }
	uv pip compile --quiet --universal --python-version 3.11 --extra dev \
		--no-emit-index-url --no-header --no-annotate pyproject.toml -o requirements.lock

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
