# `make demo` and `make test` work on a fresh machine that has Python 3.11+, make and a package registry.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FAISS := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
CONSTRAINTS := $(if $(filter cpu,$(FAISS)),-c constraints/cpu.txt)
INSTALLED := $(VENV)/.installed-$(FAISS)

.PHONY: demo test lint format bench clean

demo: $(INSTALLED)
	$(BIN)/rd demo

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python -m bench.main_job

$(INSTALLED): pyproject.toml constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$(FAISS),dev]' $(CONSTRAINTS)
	touch $@

clean:
	rm -rf $(VENV)
