# `make serve` on a fresh clone needs Python 3.11+ and nothing else. Everything is installed into .venv.
#   make serve ARGS="--port 9000"   pass flags on
#   make serve PYTHON=python3.12    choose the interpreter
#   make serve TORCH=torch==2.9.1   choose the build of torch (see scripts/install_torch.py)
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help serve chat test check lint fmt features clean

# A shim may exist and still not run, so each candidate is asked for its version.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
TORCH ?=
ARGS ?=
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:  ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

serve: .venv/installed  ## serve the built-in model on http://127.0.0.1:8000
	@$(BIN)/penstock serve $(ARGS)

chat: .venv/installed  ## talk to the built-in model
	@$(BIN)/penstock chat $(ARGS)

test: .venv/installed-test  ## run all tests
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

check: lint test  ## what CI runs: lint, types, layers, tests

lint: .venv/installed-dev  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: .venv/installed-dev  ## format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

features: .venv/installed-test  ## make docs/features.md from the tests
	$(BIN)/python scripts/features.py

clean:  ## remove the environment and all caches
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "penstock needs Python 3.11 or newer and found none on PATH; install it or name one: make serve PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/torch: scripts/install_torch.py | .venv/bin/python
	$(BIN)/python scripts/install_torch.py $(TORCH)
	@touch $@

KERNELS := scripts/build_native.py $(wildcard src/penstock/engine/kernels/cpu/source/*)

.venv/installed: pyproject.toml .venv/torch $(KERNELS)
	$(BIN)/pip install --quiet --editable .
	@touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@

.venv/installed-dev: .venv/installed-test
	$(BIN)/pip install --quiet --editable '.[test,dev]'
	@touch $@
