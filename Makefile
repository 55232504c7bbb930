# The two commands of a newcomer: `make demo` and `make test`. Both set everything up first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint types core study bench clean

demo: $(INSTALLED)  ## the main job on the offline quickstart
	$(BIN)/ranksaga run --out runs

test: lint types  ## the whole suite
	$(BIN)/pytest

lint: $(INSTALLED)
	$(BIN)/ruff check src tests benchmarking bench
	$(BIN)/ruff format --check src tests benchmarking bench

types: $(INSTALLED)
	$(BIN)/mypy

core: $(INSTALLED)  ## the fast part of the suite
	$(BIN)/pytest -m "not slow and not shared and not browser"

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
