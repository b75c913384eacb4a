# The only commands anyone learns; each sets up what it needs. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first Python on this machine that is new enough; PYTHON=... names another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $$python && break; done)
HOST ?= 127.0.0.1
PORT ?= 8000

BIN := .venv/bin
# Stamps: newer than the lock file that they stand for when its packages are installed.
UV := .venv/.uv-installed
LOCAL := .venv/.local-installed
DEV := .venv/.dev-installed
TORCH := .venv/.torch-installed
HAS_NETWORKS := $(wildcard tests/gpu_worker/networks)

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- Run ----------------------------------------------------------------------------------------------------

.PHONY: run
run: $(LOCAL) ## Start everything on this machine; HOST=... PORT=... choose the address
	@if [ -f .env ]; then set -a; source ./.env; set +a; fi; \
	exec $(BIN)/python manage.py serve --host $(HOST) --port $(PORT) --stop-with-parent

# --- Test ---------------------------------------------------------------------------------------------------

.PHONY: test
test: $(DEV) $(if $(HAS_NETWORKS),$(TORCH)) chromium ## Run all tests: every lane, the browser included
	@$(BIN)/python -m tests.lanes

.PHONY: test-fast
test-fast: $(DEV) ## Run the tests that need no browser, PostgreSQL or PyTorch, in under a minute
	@$(BIN)/python -m tests.lanes fast

.PHONY: test-lane
test-lane: $(DEV) ## Run some lanes: make test-lane LANES="services postgres"
	@$(BIN)/python -m tests.lanes $(LANES)

FUZZ_FILES ?= 2000
FUZZ_SEED ?= 1

.PHONY: fuzz
fuzz: $(DEV) ## Have mutated files inspected: FUZZ_FILES=2000 FUZZ_SEED=1
	@FUZZ_FILES=$(FUZZ_FILES) FUZZ_SEED=$(FUZZ_SEED) FUZZ_REPORT=var/fuzz.txt $(BIN)/python -m pytest -q -n 0 --timeout 0 \
		tests/restorations/test_hostile_files.py -k test_mutations && cat var/fuzz.txt

.PHONY: faults
faults: $(DEV) ## Kill a process at every statement of a job's way, on both databases (takes half an hour)
	FAULTS=1 $(BIN)/python -m pytest tests/faults
	FAULTS=1 $(BIN)/python -m pytest tests/faults -m both_databases --postgres

.PHONY: bench
bench: $(DEV) ## Measure what users wait for
	@$(BIN)/python -m tests.benchmarks

.PHONY: bench-gpu
bench-gpu: $(DEV) $(TORCH) ## Measure the worker on a GPU; MODEL=, WEIGHTS=, SAVE=; TINY=1 shows it on any machine
	@$(BIN)/python -m gpu_worker.benchmarks.gpu $(if $(TINY),--tiny) $(if $(MODEL),--model $(MODEL)) \
		$(if $(WEIGHTS),--weights $(WEIGHTS)) $(if $(SAVE),--save $(SAVE))

# --- Check --------------------------------------------------------------------------------------------------

.PHONY: check
check: lint types test ## Everything that has to pass before a change goes in

.PHONY: lint
lint: $(DEV) css-check ## Format, lint, import arrows, migrations, templates, shell, workflow, images
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/djlint --lint --quiet templates
	$(BIN)/shellcheck .ci/run
	$(BIN)/yamllint --strict -d '{extends: default, rules: {line-length: {max: 120}, document-start: disable}}' .github compose
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose/*.yml
	$(BIN)/hadolint compose/web.Dockerfile gpu_worker/Dockerfile

.PHONY: types
types: $(DEV) $(if $(HAS_NETWORKS),$(TORCH)) ## Check types
	$(BIN)/mypy

.PHONY: format
format: $(DEV) ## Format the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# --- Made files that are committed --------------------------------------------------------------------------

TAILWIND = $(BIN)/tailwindcss -i static/css/site.css --minify

.PHONY: css
css: $(DEV) ## Build the style sheet
	$(TAILWIND) -o static/css/site.build.css

.PHONY: css-check
css-check: $(DEV)
	@built=$$(mktemp); trap 'rm -f "$$built"' EXIT; $(TAILWIND) -o "$$built" 2>/dev/null; \
	cmp -s "$$built" static/css/site.build.css || { echo "static/css/site.build.css is out of date: run \`make css\`" >&2; exit 1; }

.PHONY: messages
messages: $(DEV) ## Bring the catalogues of translations up to date
	$(BIN)/python -m seedvr_site.catalogues

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

.PHONY: lock
lock: $(UV) ## Pin every dependency group of pyproject.toml into requirements/
	for group in web worker local dev; do $(LOCK) --group $$group -o requirements/$$group.txt; done
	@# The image runs what the tests ran, and kernels are built against its PyTorch.
	$(LOCK) --group gpu --constraints requirements/worker.txt -o requirements/gpu.txt
	$(LOCK) --group kernels --no-deps -o requirements/kernels.txt
	$(LOCK) requirements/uv.in -o requirements/uv.txt

# --- The environment ----------------------------------------------------------------------------------------

.PHONY: python
python:
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 to 3.14 is needed, and none was found; name one with PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		package="$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing $$package"; apt-get update -qq && apt-get install -qq --no-install-recommends "$$package" >/dev/null; \
		else \
			echo "Python's venv module is missing. Install it (Debian, Ubuntu: apt-get install $$package), then try again." >&2; exit 1; \
		fi; }

$(UV): requirements/uv.txt
	@# A run that was interrupted here may have left half of it.
	@[ -x $(BIN)/pip ] || { $(MAKE) python && echo "Making .venv" && $(PYTHON) -m venv --clear .venv; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

# What `make test` installed includes what `make run` needs, so that one never takes away the other's packages.
$(LOCAL): requirements/local.txt | $(UV)
	@if [ -e $(DEV) ]; then $(MAKE) $(DEV); else \
		echo "Installing the packages of requirements/local.txt"; \
		$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/local.txt; fi
	@touch $@

$(DEV): requirements/dev.txt | $(UV)
	@echo "Installing the packages of requirements/dev.txt"
	@rm -f $(TORCH)
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	@touch $(LOCAL) $@

# By pip, in a file of its own: where a machine keeps a small build of PyTorch for CPUs, only pip finds it.
$(TORCH): requirements/torch.txt $(DEV)
	@echo "Installing PyTorch"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/torch.txt
	@touch $@

.PHONY: chromium
chromium:
	@[ -n "$${CHROMIUM:-}" ] || command -v chromium chromium-browser google-chrome >/dev/null || { \
		sudo=""; [ "$$(id -u)" = 0 ] || sudo="sudo -n"; \
		echo "Installing Chromium"; \
		{ $$sudo apt-get update -qq && $$sudo apt-get install -qq --no-install-recommends chromium >/dev/null; } || { \
			echo "The browser tests need Chromium: install it (Debian: apt-get install chromium), or name it in CHROMIUM." >&2; exit 1; }; }
