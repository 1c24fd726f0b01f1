# Two commands need nothing but Python 3.11+ and make:
#   make quickstart   install, fetch, fine-tune a small real VLLM, report
#   make test         install with the test extras, then lint, types and tests
# Both share one virtual environment, .venv, and redo only what is out of date.

PYTHON ?= python3
VENV := .venv
# Every tool is a module of this Python: scripts in bin/ name it in their first line, which holds no space.
VENV_PYTHON := $(VENV)/bin/python
PIP := $(VENV_PYTHON) -m pip install --disable-pip-version-check -c constraints.txt
CONFIG := experiments/quickstart.yaml
# YAML files laid over it, separated by spaces: make quickstart OVERLAY=.ci/quickstart_short.yaml
OVERLAY :=
REPORT := runs/quickstart/report.html

# Tests run several torch processes at once, where OpenMP threads that spin while they wait make each many times slower.
# The quickstart is alone on the machine.
test: export OMP_WAIT_POLICY := PASSIVE

.PHONY: help quickstart test lint types clean
.DELETE_ON_ERROR:

help:
	@sed -n '2,3s/^# *//p' Makefile

quickstart: $(VENV)/.quickstart
	$(VENV_PYTHON) -m vlsafe fetch small
	$(VENV_PYTHON) -m vlsafe fit --config $(CONFIG) $(addprefix --config ,$(OVERLAY))
	@echo "report: $(CURDIR)/$(REPORT)"

test: lint types
	$(VENV_PYTHON) -m pytest -n 2 --dist loadfile -m "not real and not slow and not long"

lint: $(VENV)/.test
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .

types: $(VENV)/.test
	$(VENV_PYTHON) -m mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Each stamp is touched last, so an interrupted installation starts again.
$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vlsafe needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch first and alone, at the pinned version, so that nothing else decides which build of it comes.
$(VENV)/.torch: constraints.txt | $(VENV)/.python
	$(PIP) torch
	@touch $@

$(VENV)/.quickstart: $(VENV)/.torch pyproject.toml
	$(PIP) -e '.[small]'
	@touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml
	$(PIP) -e '.[small,sweep,judge,sentencepiece,test]'
	@touch $@
