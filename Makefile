# `make run` sets up and runs the main job on what ships; `make test` sets up and runs the tests; `make learn2learn` adds an
# optional engine of pretraining; `make par04` builds the C++ program that runs exported files as Geant4's Par04 does.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
DETECTOR ?= tasks/pblar/showers.h5
BASE ?= base-no-pblar
SHOTS ?= 400
OUT ?= out/pblar
OPTIONS ?=

.PHONY: run test lint docs learn2learn par04 clean

run: $(VENV)/.installed
	$(VENV)/bin/metacalo adapt --detector $(DETECTOR) --base $(BASE) --shots $(SHOTS) --generator both --out $(OUT) --force $(OPTIONS)

# a process for each core, and no more threads than that
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist loadfile

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/.installed
	$(VENV)/bin/pip install -q -c constraints.txt -e ".[docs]"
	$(VENV)/bin/mkdocs build --strict

# optional, for `metacalo pretrain --engine learn2learn`; why it takes these options: docs/how-it-works/meta-learning.md
learn2learn: $(VENV)/.installed
	$(VENV)/bin/pip install -q -c constraints.txt "Cython<3.1" "setuptools<81" wheel
	$(VENV)/bin/pip install -q --no-deps --no-build-isolation --use-pep517 -C--global-option=build_ext learn2learn==0.2.0

# docs/how-to/geant4.md; wants g++, cmake and npm
par04: $(VENV)/.installed
	PYTHON=$(VENV)/bin/python docs/examples/par04/fetch-onnxruntime.sh build/onnxruntime
	cmake -S docs/examples/par04 -B build/par04 -DCMAKE_BUILD_TYPE=Release \
	    "-DCMAKE_PREFIX_PATH=$(CURDIR)/build/onnxruntime;$$($(VENV)/bin/python -c 'import torch; print(torch.utils.cmake_prefix_path)')"
	cmake --build build/par04

# torch first and alone: another package's wider range must not choose its build
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -c constraints.txt torch
	$(VENV)/bin/pip install -q -c constraints.txt -e ".[test]"
	# its metrics are what ours are tested against; what else it needs is for jets
	$(VENV)/bin/pip install -q -c constraints.txt --no-deps jetnet
	touch $@

clean:
	rm -rf $(VENV) out
