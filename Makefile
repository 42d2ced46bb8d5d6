# make demo     install into .venv, then run the pipeline on the embedded demo; the result is results/table1.md
# make install  install the packages of requirements.lock into .venv
# make check    run the fast tests: no engine, no test over five seconds, no GPU
# make test     run all tests except those that need a GPU or an idle machine
# make lint     check the style and the types of the Python code, and the style of the Snakemake rules
# make bench    install the tools that the benchmarks compare with, then run every benchmark; half an hour on an idle machine
# make docs     build the documentation site into site/, with warnings as errors
# make sync     tell DVC and Snakemake about each other's results after one of them ran

PYTHON ?= python3
VENV := .venv
SIDE_BY_SIDE := --numprocesses 2 --dist loadfile --no-loadscope-reorder
INSTALLED := $(VENV)/installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE :=  # compile each module once, at its first import: compiling all packages takes a minute

.PHONY: demo install check test lint bench docs sync

demo: install
	dvc repro

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is absent or older than Python 3.11; name a newer one: make demo PYTHON=python3.11" >&2; exit 2; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	uv pip install --python $(VENV)/bin/python -r requirements.lock
	uv pip install --python $(VENV)/bin/python --no-deps --editable .
	touch $@

check: install
	pytest -m "not engine and not slow and not gpu and not idle" $(SIDE_BY_SIDE)

test: install
	pytest -m "not gpu and not idle" --durations 30 --durations-min 10 $(SIDE_BY_SIDE)

lint: install
	ruff check
	ruff format --check
	snakefmt --check Snakefile workflow
	snakemake --lint
	mypy

bench: install
	uv pip install --python $(VENV)/bin/python --constraint requirements.lock --editable '.[bench]'
	python benchmarks

docs: install
	uv pip install --quiet --python $(VENV)/bin/python --constraint requirements.lock --editable '.[docs]'
	mkdocs build --strict

sync: install
	python workflow/scripts/sync.py
