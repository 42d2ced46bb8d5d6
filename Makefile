# make demo   install what is needed into .venv, then run the whole job on the embedded demo: results/table1.csv
# make test   install, then run the tests
# make bench  install what the benchmarks need, then run them all: half an hour; best on a machine that is idle
# make sync   bring DVC and Snakemake in step after one of them ran
# make lint   check style, of Python and of the Snakefiles

PYTHON ?= python3
VENV := .venv
SIDE_BY_SIDE := --numprocesses 2 --dist loadfile --no-loadscope-reorder
INSTALLED := $(VENV)/installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: demo install test bench sync lint

demo: install
	dvc repro

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is absent or older than Python 3.11; name a newer one: make demo PYTHON=python3.11" >&2; exit 2; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	uv pip install --python $(VENV)/bin/python --compile-bytecode -r requirements.lock
	uv pip install --python $(VENV)/bin/python --no-deps --editable .
	touch $@

test: install
	pytest $(SIDE_BY_SIDE)

bench: install
	uv pip install --python $(VENV)/bin/python --constraint requirements.lock --editable '.[bench]'
	python benchmarks

sync: install
	python workflow/scripts/sync.py

lint: install
	ruff check
	ruff format --check
	snakefmt --check Snakefile workflow/rules
	snakemake --lint
