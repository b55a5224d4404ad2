# The targets a stranger guesses. Everything built goes to a cache outside the checkout.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export MODELYARD_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/modelyard
PYTHON ?= python3
LOCK := $(shell sha256sum requirements-dev.txt | cut -c1-12)
VENV := $(MODELYARD_CACHE)/venv-$(LOCK)
PY := $(VENV)/bin/python
export PYTHONPATH := $(CURDIR)/operator:$(CURDIR)
export PATH := $(VENV)/bin:$(MODELYARD_CACHE)/cluster/bin:$(PATH)

.PHONY: help demo test unit e2e lint crds lock images cluster down clean bench

help: ## what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.done: requirements-dev.txt
	@echo "== Python environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null && $(PYTHON) -m venv $(VENV); }
	@$(VENV)/bin/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@

unit: $(VENV)/.done ## unit tests: no cluster, under a minute
	$(PY) -m pytest tests/unit

lint: $(VENV)/.done ## format, lint, types, import contracts, generated files
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --config pyproject.toml --no-cache
	$(PY) -m modelyard.api.crd --check --out crds --docs docs/reference

crds: $(VENV)/.done ## generate crds/, docs/reference/ and the chart's copy
	$(PY) -m modelyard.api.crd --out crds --docs docs/reference
	rm -f helm/modelyard/crds/*.yaml && cp crds/*.yaml helm/modelyard/crds/

lock: $(VENV)/.done ## compile requirements-dev.in with hashes
	uv pip compile --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 requirements-dev.in -o requirements-dev.txt

cluster: $(VENV)/.done ## a local Kubernetes
	$(PYTHON) -m tests.cluster up

images: cluster ## build the images and load them into the local cluster
	$(PY) -m tests.e2e.install images

e2e: images ## end-to-end tests on the local cluster
	$(PY) -m pytest tests/e2e -m e2e -x -v --durations=15

test: lint unit e2e ## every test, with all set-up

demo: images ## the flights example on the local cluster
	$(PY) -m tests.e2e.demo

down: ## stop the local cluster
	$(PYTHON) -m tests.cluster down

clean: ## stop the cluster and remove what was built
	-$(PYTHON) -m tests.cluster down --purge
	rm -rf $(MODELYARD_CACHE)
