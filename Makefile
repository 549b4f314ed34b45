# Everything a person or a CI runs.  `make` alone lists the targets.
# Only python3 (3.11 or newer, with venv) and make are needed; what else is used is installed into .venv.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet

# Stamps: a virtual environment is only touched again when what it is made from changed.
BASE := $(VENV)/.stamp-venv
DEMO := $(VENV)/.stamp-demo
DEV := $(VENV)/.stamp-dev
SOURCES := $(shell find nodeagent registry -name '*.py' -o -name '*.toml' -o -name '*.html' 2>/dev/null)

.PHONY: help demo demo-cluster test test-waiting test-other check check-lint check-types check-docs check-unit check-property format bench dev clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BASE):
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip
	@touch $@

# The demo runs from an ordinary installation, as a user's does.  An editable one (dev) will do as well.
$(DEMO): $(BASE) setup.cfg pyproject.toml $(SOURCES)
	@if [ -e $(DEV) ]; then $(PIP) install -e '.[dev]'; else rm -rf build; $(PIP) install .; fi
	@touch $@

$(DEV): $(BASE) setup.cfg pyproject.toml
	$(PIP) install -e '.[dev]'
	@touch $@

demo: $(DEMO) ## run the whole system on the shipped clip, no server needed (ARGS="--seconds 60 --cameras 2")
	$(VENV)/bin/nodeagent demo $(ARGS)

demo-cluster: $(DEMO) ## two registries and two agents on this machine, one of each killed (ARGS="--cameras 6")
	$(VENV)/bin/registry demo-cluster $(ARGS)

dev: $(DEV) ## virtual environment with the tools and an editable installation
	@echo "ready: . $(VENV)/bin/activate"

check: $(DEV) ## format, lint, types, structure, unit and property tests: under a minute
	@$(MAKE) --no-print-directory -j2 -O check-property check-unit check-types check-lint check-docs

check-lint:
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

check-types:
	$(PY) -m mypy

check-docs:
	$(PY) docs/generate_configuration.py --check

check-unit:
	$(PY) -m pytest -q tests/architecture tests/unit

check-property:
	$(PY) -m pytest -q tests/property

# Most of a test's time is waiting: for servers and processes that it kills, and for video, which comes as fast as it is
# filmed.  So two halves that take about as long run side by side, each with servers of its own.
test: $(DEV) ## every tier on private real RabbitMQ, Redis, MariaDB and RTSP (ARGS="-k judge")
	$(PY) tests/install_services.py
ifeq ($(strip $(ARGS)),)
	@$(MAKE) --no-print-directory -j2 test-waiting test-other
else
	$(PY) -m pytest $(ARGS)
endif

# What kills and starts servers and whole agents; single workers and what only computes need their cores more.
WAITING := tests/fault tests/contract tests/e2e

test-waiting:
	$(PY) -m pytest $(WAITING)

test-other:
	$(PY) -m pytest $(WAITING:%=--ignore=%)

bench: $(DEV) ## every benchmark; rewrites the tables of docs/performance.md
	$(PY) -m tests.bench --all --write

format: $(DEV) ## let ruff format the tree and mend what it can
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .
	$(PY) docs/generate_configuration.py

clean: ## remove the virtual environment and the tools' caches
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage nodeagent-demo-*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
