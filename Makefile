# `make run` does the main job on the embedded example, `make test` checks everything, `make docs` builds the pages as a
# site. Each sets up .venv first, once.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# The version that results are reproduced with. For the smaller build without CUDA, where pip does not find it itself:
#   make run TORCH="torch==2.13.0+cpu --extra-index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
# Tests run in as many processes as there are processors, 4 at most: each needs about 1 GB. One after the other, with
# the debugger of pytest: make test PARALLEL=
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist worksteal
VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin

.PHONY: run test docs rtl setup clean

run: $(STAMP)
	$(BIN)/enos run

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest $(PARALLEL)

# The pages and the reference of the Python interface as a site in build/site; a link that leads nowhere is an error.
docs: $(STAMP)
	$(BIN)/pip install --quiet -e '.[docs]'
	$(BIN)/mkdocs build --strict

# Energy of the MAC core's operations with a cell library: make rtl LIBERTY=cells.lib
rtl: $(STAMP)
	$(BIN)/enos rtl $(LIBERTY)

setup: $(STAMP)

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; name one: make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
