# Everything runs in .venv, which the first target that needs it builds from the pins and hashes in constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install pins demo test soak lint docs notebooks package clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

install: $(STAMP)  ## build .venv with everything pinned, each file checked against its hash

# pip checks no hash of an editable install: the pins come first, and the package itself brings nothing along.
# pip prefers the files of an index, whose hashes it knows beforehand, to a CPU build of torch in a local folder, so that
# one is tried first; elsewhere it is missing and the build of the index is taken, which on Linux needs CUDA's libraries.
PINNED := $(BIN)/python -m pip install --quiet --no-deps --require-hashes -r
$(STAMP): setup.cfg pyproject.toml constraints.txt constraints-cpu.txt constraints-cuda.txt
	$(PYTHON) -m venv .venv
	$(PINNED) constraints-cpu.txt 2>/dev/null || true
	$(PINNED) constraints.txt
	$(BIN)/python -m pip check >/dev/null || $(PINNED) constraints-cuda.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	touch $@

pins:  ## write the pins anew from setup.cfg; PINS='--upgrade-package torch' moves one, PINS=--upgrade all
	$(PYTHON) -m venv .venv/pins
	.venv/pins/bin/python -m pip install --quiet uv
	PATH="$(CURDIR)/.venv/pins/bin:$$PATH" $(PYTHON) .ci/write_pins.py $(PINS)

demo: install  ## watch the gap close; the report lands in runs/demo
	$(BIN)/unigap demo --out runs/demo --overwrite

test: install  ## run every test, in two processes of one thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

soak: install  ## kill runs, flip bytes and feed nonsense at random, a few minutes; SOAK='--seed 1' repeats
	PYTHONPATH=. $(BIN)/python tests/soak.py $(SOAK)

lint: install  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy unigap theory evidence

docs: install  ## build the documentation into docs/_build
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build

notebooks: install  ## run every notebook anew and keep what it shows
	$(BIN)/jupyter-execute --inplace notebooks/*.ipynb

package: install  ## build sdist and wheel, and try the wheel in a fresh environment
	PYTHONPATH=.:tests $(BIN)/python tests/smoke_package.py

clean:  ## remove the environment, builds and caches; runs/ stays
	rm -rf .venv build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
