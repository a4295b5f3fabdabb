# The whole developer interface. `make` alone lists it.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install check test bench chaos sweep

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

install: $(STAMP)  ## install musweep and its tools into .venv

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: musweep needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "==> making $(VENV) with $$($(PYTHON) --version)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "==> installing musweep, versions from constraints.txt (some minutes the first time)"
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
	@echo "==> installed: $$($(BIN)/musweep --version)"

check: install  ## formatting, lint, types
	@echo "==> ruff format"
	$(BIN)/ruff format --check .
	@echo "==> ruff check"
	$(BIN)/ruff check .
	@echo "==> mypy"
	$(BIN)/mypy

test: install  ## all tests, skips shown with their reasons (ARGS="-k journal" for some)
	@echo "==> pytest (15 to 20 minutes; the slowest are listed at the end)"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10 $(ARGS)

bench: install  ## measurements of speed, as JSON (ARGS="--help" for parts)
	@echo "==> benchmarks (leave the machine alone meanwhile)"
	$(BIN)/python tests/bench/run.py $(ARGS)

chaos: install  ## faults injected into real sweeps; writes FAULTS.md (ARGS="--case 1 5" for some)
	@echo "==> faults (an hour or so; as root also full disks and cut cables)"
	$(BIN)/python tests/chaos/run.py $(ARGS)

sweep: install  ## the main job: a sweep on the CURVES autoencoder
	@echo "==> sweeping: sweeps/specs/curves.yaml (results under runs/)"
	$(BIN)/musweep run sweeps/specs/curves.yaml $(ARGS)
