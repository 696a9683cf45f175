# Needs make and Python 3.11-3.13, nothing else. Every target runs in .venv, built from exact pins.

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# One process a core; the tests of a file stay together and share what they set up.
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

# An hour on two cores; torch takes part if it is there.
bench: .venv/.tools
	for each in conv step inference population sweep input; do $(BIN)/python -m benchmarks.$$each || exit; done

lint: .venv/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# uv if there is one, else pip, at the pins of the lock file. The package itself is installed
# offline: its build backend is pinned.
UV := $(shell command -v uv)
INSTALL := $(if $(UV),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install) \
	--quiet --constraint requirements.lock --no-build-isolation

.venv/.installed: requirements.lock pyproject.toml
	@"$(PYTHON)" -c '$(SUPPORTED)' 2>/dev/null || \
		{ echo 'tinyjax needs Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python' >&2; exit 2; }
	rm -rf .venv
	$(if $(UV),uv venv --quiet --python "$(PYTHON)" .venv,"$(PYTHON)" -m venv .venv)
	$(INSTALL) setuptools
	$(INSTALL) --editable .
	touch $@

# What tests need: a gigabyte more, most of it the compiler for TPUs and an engine to launch on.
.venv/.tools: .venv/.installed
	$(INSTALL) --editable '.[dev]'
	touch $@

# Keeps the pins that still fit; remove requirements.lock first to renew them all.
lock:
	@command -v uv >/dev/null || { echo 'make lock needs uv: pip install uv' >&2; exit 2; }
	uv pip compile --quiet --universal --python-version 3.11 --extra dev \
		--no-emit-index-url --no-header --no-annotate pyproject.toml -o requirements.lock

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
