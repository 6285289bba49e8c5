# What one does with this repository. `make` alone lists it.
.PHONY: help setup run demo test slow lint types lock sbom clean events redeliver permissions bench
.DEFAULT_GOAL := help

PYTHON := .venv/bin/python
PLAY := $(PYTHON) -m local
SCENARIO ?= dozen
WORKERS ?= 3
SBOM ?= sbom.json
OPTIONS = --scenario "$(SCENARIO)" $(if $(JSON),--json "$(JSON)") $(if $(FLEET),--fleet "$(FLEET)") \
	$(if $(POLICY),--policy "$(POLICY)")
COMPILE := $(PYTHON) -m piptools compile --quiet --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-find-links

help:  ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 13

setup: .venv/.ready local/azurite/node_modules/.ready  ## install what the rest needs, into this folder

run: setup  ## play the main job on a simulated Azure, then stay up
	@$(PLAY) run $(OPTIONS) || [ $$? -eq 130 ]  # Ctrl-C is how it ends

demo: setup  ## play a scenario and end; SCENARIO=name, JSON=file; FLEET=file POLICY=file: look at your own
	@$(PLAY) demo $(OPTIONS)

test: lint types  ## lint, types and tests; WORKERS=3 at a time, for they wait a lot
	$(PYTHON) -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

slow: setup  ## the tests that take long: every scenario, twenty workers as processes
	$(PYTHON) -m pytest -m slow

bench: setup  ## measure the numbers of docs/benchmarks.md; ONLY=one, SMALL=1, WRITE=page
	@$(PYTHON) -m local.bench $(if $(ONLY),--only $(ONLY)) $(if $(SMALL),--small) $(if $(WRITE),--write $(WRITE))

lint: setup  ## ruff: rules and format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: setup  ## mypy, strict
	$(PYTHON) -m mypy function_app.py shared local tests

permissions: .venv/.ready  ## which rights do updates of your clusters need? FLEET=file
	@$(PYTHON) -m local.permissions "$(or $(FLEET),$(error FLEET=file is missing: what `az rest` printed of your clusters))"

events: .venv/.ready  ## let Event Grid tell of the vaults in the ledger too; DEPLOYMENT=name where azd was not used
	$(PYTHON) infra/hooks/postdeploy.py --ledger $(if $(DEPLOYMENT),--deployment $(DEPLOYMENT))

redeliver: .venv/.ready  ## hand dead letters to the app again; LOOK=1 only lists them
	$(PYTHON) infra/hooks/redeliver.py $(if $(DEPLOYMENT),--deployment $(DEPLOYMENT)) $(if $(LOOK),--look)

lock: setup  ## pin the newest versions that requirements*.in allow
	$(COMPILE) --upgrade --output-file requirements.txt requirements.in
	$(COMPILE) --upgrade --output-file requirements-dev.txt requirements-dev.in

sbom: setup  ## write what ships, with versions and hashes, as CycloneDX: sbom.json
	.venv/bin/cyclonedx-py requirements --output-reproducible --output-format JSON --output-file "$(SBOM)" requirements.txt

clean:  ## remove what setup and tests made
	rm -rf .venv .local local/azurite/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis sbom.json

.venv/.ready: requirements.txt requirements-dev.txt local/python313
	$$(local/python313) -m venv .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt -r requirements-dev.txt
	@touch $@

local/azurite/node_modules/.ready: local/azurite/package-lock.json
	@command -v npm >/dev/null || { echo "Node is missing. Install Node 20 or newer: https://nodejs.org/" >&2; exit 1; }
	npm --prefix local/azurite ci --silent --no-audit --no-fund
	@touch $@
