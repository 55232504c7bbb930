# The two commands of a newcomer: `make demo` and `make test`. Both set everything up first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# One process a core, and each of them on one thread: more would wait for each other.
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile

.PHONY: demo test lint types core shuffled study bench clean

demo: $(INSTALLED)  ## the main job on the offline quickstart
	$(BIN)/ranksaga run --out runs

test: lint types  ## the whole suite, on all cores
	$(PARALLEL)

lint: $(INSTALLED)
	$(BIN)/ruff check src tests benchmarking bench
	$(BIN)/ruff format --check src tests benchmarking bench

types: $(INSTALLED)
	$(BIN)/mypy

FAST := -m "not slow and not shared and not browser"
SEED ?= $(shell date +%s)

core: $(INSTALLED)  ## the fast part of the suite, on all cores
	$(PARALLEL) $(FAST)

shuffled: $(INSTALLED)  ## the same in a random order; SEED=... repeats one
	$(PARALLEL) $(FAST) --no-loadscope-reorder --shuffle $(SEED)

study: $(INSTALLED)  ## the offline study; RANKSAGA_DATASETS names the folder of the collections
	$(BIN)/ranksaga run studies/offline-study.yaml --out runs

bench: $(INSTALLED)  ## us and the peers side by side, about an hour; RANKSAGA_DATASETS as for the study
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/python bench/run.py

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache

$(INSTALLED): pyproject.toml constraints.txt $(wildcard src/ranksaga/kernels/*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[quickstart,dev]"
	touch $@
