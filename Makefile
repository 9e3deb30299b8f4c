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

# learn2learn 0.2.0 does not build by plain pip on Python 3.11 and later: its C was made by an old Cython
.PHONY: learn2learn
learn2learn: $(VENV)/.installed
	$(VENV)/bin/pip install -q "Cython<3.1" "setuptools<81" wheel
	$(VENV)/bin/pip install -q --no-deps --no-build-isolation learn2learn==0.2.0 -C--global-option=build_ext
