# `make run` sets up and runs the main job on what ships; `make test` sets up and runs the tests.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
DETECTOR ?= tasks/pblar/showers.h5
BASE ?= base-no-pblar
SHOTS ?= 400
OUT ?= out/pblar
OPTIONS ?=

.PHONY: run test lint docs clean

run: $(VENV)/.installed
	$(VENV)/bin/metacalo adapt --detector $(DETECTOR) --base $(BASE) --shots $(SHOTS) --generator both --out $(OUT) --force $(OPTIONS)

test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/.installed
	$(VENV)/bin/pip install -q -c constraints.txt -e ".[docs]"
	$(VENV)/bin/mkdocs build --strict

# torch first and alone: another package's wider range must not choose its build
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -c constraints.txt torch
	$(VENV)/bin/pip install -q -c constraints.txt -e ".[test]"
	touch $@

clean:
	rm -rf $(VENV) out
