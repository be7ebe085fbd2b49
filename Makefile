# make demo    the main job on this machine: a real edge server, three real device agents, five policies, a report
# make test    the tests
# make test-lab   the tests on virtual Pis (Linux, root): real sshd, systemd and links; installs a few Debian packages by apt
# make check-cluster HOSTS=FILE   checks a real cluster from end to end and writes a result to share, runs/cluster-check.json
# make test-learning   the tests that need torch, Gymnasium or Ray (installs them: torch 2.13.0 is large where no CPU build is at hand)
# make check   everything that a change must pass: format, lint, types, tests
# make bench   the benchmarks
# All of them make .venv and install what they need by pip. Only test-learning installs torch.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS ?= runs
RESULT ?= $(RUNS)/cluster-check.json
STAMPS := $(VENV)/.installed

.PHONY: demo test lab-packages test-lab check-cluster test-learning check lint types format bench clean demo-check
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("edgebed needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(STAMPS)-orchestrator: pyproject.toml | $(BIN)/python
	@echo "installing edgebed[orchestrator] into $(VENV): about 120 MB of packages"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[orchestrator]'
	@touch $@

$(STAMPS)-dev: pyproject.toml | $(BIN)/python
	@echo "installing edgebed[orchestrator,dev] into $(VENV): about 250 MB of packages (no torch)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[orchestrator,dev]'
	@touch $@ $(STAMPS)-orchestrator

demo: $(STAMPS)-orchestrator
	$(BIN)/edgebed run inventory/experiments/demo.yaml --hosts inventory/hosts/local.yaml --runs $(RUNS)
	@echo "report: $(RUNS)/demo/latest/report.html"

demo-check: $(STAMPS)-orchestrator
	$(BIN)/python -m tests.acceptance.demo $(RUNS)/demo/latest

test: $(STAMPS)-dev
	$(BIN)/python -m pytest
	@echo "left out: the $$(grep -hE '^(async )?def test_' tests/lab/test_*.py | wc -l) test functions of tests/lab, on virtual Pis; run them (Linux, root) by: make test-lab"

lab-packages:
	@test "$$(uname -s)" = Linux && test "$$(id -u)" = 0 || { \
	    echo "make test-lab makes virtual hosts, which needs Linux and root: sudo make test-lab" >&2; exit 1; }
	@for package in $$(cat tests/lab/apt-packages.txt); do \
	    dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; \
	done; test -z "$$missing" || { echo "installing$$missing by apt" && apt-get update -q && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; }

test-lab: $(STAMPS)-dev lab-packages
	$(BIN)/python -m pytest tests/lab

check-cluster: $(STAMPS)-orchestrator
	@test -n "$(HOSTS)" || { echo "name the hosts file: make check-cluster HOSTS=inventory/hosts/my-cluster.yaml" >&2; exit 2; }
	@mkdir -p $(dir $(RESULT))
	$(BIN)/python -m tests.hardware.cluster $(HOSTS) -o $(RESULT) --runs $(RUNS) $(OPTIONS)

$(STAMPS)-learning: $(STAMPS)-dev
	@echo "installing torch 2.13.0, Ray, Minari and mobile-env into $(VENV): about 2 GB of packages"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[orchestrator,dev,learning,ray,minari,cellular]'
	@touch $@

test-learning: $(STAMPS)-learning
	$(BIN)/mypy $$(find benchmarks edgebed/envs edgebed/learning workloads/digits/training -name '*.py')
	$(BIN)/python -m pytest tests/learning

lint: $(STAMPS)-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMPS)-dev
	$(BIN)/mypy

format: $(STAMPS)-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint types test

bench: $(STAMPS)-dev
	$(BIN)/python -m benchmarks.run_all -o docs/results

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
