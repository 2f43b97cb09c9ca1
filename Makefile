# `make demo` shows the main job, `make test` proves it. Both install what they need; `make help` says what else there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?= python3
export VENV PYTHON
# Some machines set it: each of the thousand programs that the tests start would compile the library anew.
unexport PYTHONDONTWRITEBYTECODE
# What `make demo` and `make molecule` are told, as the environment of their commands: never as text for a shell.
export ENGINE DATA FRAMES SCENARIO

SCRIPTS := .ci/run tools/bootstrap tools/molecule tools/sanity
bin := $(VENV)/bin

.PHONY: help demo test lint lint-library lint-collection lint-sanity unit test-hosts hosts hosts-down molecule bench bench-control bench-sessions bench-provisioning packages venv constraints clean

help: ## Say what there is.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: venv ## Two facilities, one stream, real bytes. ENGINE=haproxy|nginx|stunnel|nftables DATA=FILE FRAMES=N
	@exec $(bin)/python -m scistream.demo

test: packages lint ## All checks and tests, but for roles and whole lives of gateways (test-hosts, molecule).
	$(bin)/python -m pytest -n auto --dist loadgroup tests/unit tests/integration --ignore=tests/integration/roles $(PYTEST)

test-hosts: packages ## Roles and whole lives of gateways: on this machine, and on real hosts (needs root; about 40 minutes).
	$(bin)/python -m pytest -n 2 --dist loadgroup tests/hosts tests/integration/roles $(PYTEST)

unit: venv ## The tests that need neither proxies nor a network.
	$(bin)/python -m pytest tests/unit $(PYTEST)

hosts: packages ## Four real hosts on this machine, for tests and by hand: `python -m tests.hosts` (needs root).
	@exec $(bin)/python -m tests.hosts up

hosts-down: venv ## Take them down, and whatever a crash has left of them.
	@exec $(bin)/python -m tests.hosts down

molecule: packages ## The scenarios of extensions/molecule, on hosts of their own (needs root). SCENARIO=NAME for one.
	@exec tools/molecule

bench: packages ## Measure the data servers into benchmarks/results.json and results.svg (needs root; about 10 minutes).
	@exec $(bin)/python benchmarks/dataplane.py

bench-control: packages ## Measure the control server and the client into benchmarks/control.json (up to 8 minutes).
	@exec $(bin)/python benchmarks/control.py

bench-sessions: packages ## Measure 1,000 sessions, apart and in one process, into benchmarks/sessions.json (needs root; 7 minutes).
	@exec $(bin)/python benchmarks/sessions.py

bench-provisioning: packages ## Measure provisioning on real hosts, and a fleet, into benchmarks/provisioning.json (needs root).
	@exec $(bin)/python benchmarks/provisioning.py

lint: venv ## Style, types, generated code, the collection's own rules.
	@# All at once; what each of them says comes in one piece.
	@$(MAKE) --no-print-directory --jobs --output-sync=target lint-library lint-collection lint-sanity

lint-library: venv
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/python -m scistream.protocol.generate --check
	$(bin)/python tools/errors_page.py --check
	shellcheck $(SCRIPTS)

lint-collection: venv
	PATH=$(abspath $(bin)):$$PATH ansible-lint --offline

lint-sanity: venv
	tools/sanity

packages: venv
	@ANSIBLE_CONFIG=$(CURDIR)/ansible.cfg $(bin)/ansible-playbook -i inventory/local tests/packages.yml

venv: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@tools/bootstrap

constraints: venv ## Write constraints.txt from the versions that .venv has.
	@{ sed -n '/^#/p' constraints.txt; $(bin)/pip freeze --exclude-editable | grep -v '^#'; } > constraints.new
	@mv constraints.new constraints.txt && touch $(VENV)/.ready

clean: ## Remove everything that was made here, but for what git knows.
	rm -rf $(VENV) .state .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .ansible build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name '*.egg-info' -type d -prune -exec rm -rf {} +
