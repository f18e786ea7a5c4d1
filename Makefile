# The commands people and CI use. `make run` and `make test` do all set-up that is missing; a second call starts in seconds.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Waiting threads sleep instead of spinning: on busy cores LightGBM and torch are several times faster for it.
export OMP_WAIT_POLICY := PASSIVE
READY := $(VENV)/ready
BANK ?= .nextbest/bank

.PHONY: run test check proof bench format clean
.DEFAULT_GOAL := help

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

# torch goes first and alone: where a CPU build is offered it is taken, and nothing later replaces it.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("nextbest needs Python 3.11 or newer; this is " + sys.version + ". Set PYTHON=…" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.lock)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

run: $(READY)  ## simulated bank → features → models in MLflow → a served decision
	$(BIN)/nextbest data simulate $(BANK) --customers 4000 --months 12 --seed 7
	$(BIN)/nextbest run $(BANK)

test: $(READY)  ## all tests that CI runs
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

check: $(READY)  ## formatter, linter, types, tests: before a commit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

proof: $(READY)  ## what is too large for every commit: claims measured at full size
	$(BIN)/python -m pytest -q -m proof --timeout=7200

bench: $(READY)  ## how fast it is, beside what others would build, in one run: BENCH="--only decisions --seconds 2"
	$(BIN)/python tests/benchmarks/run.py $(BENCH)

format: $(READY)  ## let the formatter and the linter mend what they can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove everything that was made here, runs and models included
	rm -rf $(VENV) .nextbest build *.egg-info mlruns/mlflow.db* mlruns/artifacts
