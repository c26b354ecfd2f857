# Everything from a fresh checkout: each target sets up what it needs, once.
# What is set up is recorded by files in $(VENV), so a second run installs nothing.

VENV ?= .venv
# The first Python that is new enough; `make PYTHON=/path/to/python …` to choose another.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo "$$python" && break; done)
# For `make test`: `make test PYTEST_ARGS="tests/examples -k readme"`
PYTEST_ARGS ?=
# For `make defences`: `make defences DEFENCES_ARGS="--only session"`
DEFENCES_ARGS ?=

BIN := $(VENV)/bin
INTEROP := tests/interop
MODULES := $(INTEROP)/node_modules/.installed-for

SCHEMA := PYTHONUTF8=1 $(BIN)/python -m mcpx.config.schema
REFERENCE := PYTHONUTF8=1 $(BIN)/python -c 'import sys; from mcpx.config.schema import reference; sys.stdout.write(reference())'

# $(call retried,COMMAND): networks fail for a moment; one more try, then the error stands.
retried = { $(1) || { echo 'That did not work; trying once more.' >&2; sleep 2; $(1); }; }
# $(call as_root,COMMAND): run it, or say plainly what to run.
as_root = if [ "$$(id -u)" = 0 ]; then $(1); \
	elif command -v sudo >/dev/null; then sudo $(1); \
	else echo "This must run as root first: $(1)" >&2; false; fi

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo install test defences check lint format-check types layers docs-check docs format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) \
	| while IFS='|' read -r target what; do printf '  make %-14s %s\n' "$$target" "$$what"; done

demo: $(VENV)/.installed ## start a mock MCP server (:3001) and the gateway (:8080); Ctrl-C stops both
	@$(BIN)/python -m examples.demo

install: $(VENV)/.installed ## create the environment and install mcpx in it

test: $(VENV)/.dev-installed $(BIN)/promtool $(MODULES) ## set up everything that the tests need, and run them
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest $(PYTEST_ARGS)

defences: $(VENV)/.dev-installed ## take each defence out, and see its tests on the wire fail (minutes)
	@$(BIN)/python tests/defences/run.py $(DEFENCES_ARGS)

check: lint format-check types layers docs-check ## linters, types, layers, generated documents

lint: $(VENV)/.dev-installed ## ruff's rules
	@$(BIN)/ruff check .

format-check: $(VENV)/.dev-installed ## whether the code is formatted
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev-installed ## mypy, strict
	@$(BIN)/mypy

layers: $(VENV)/.dev-installed ## imports point down only
	@$(BIN)/lint-imports

docs-check: $(VENV)/.dev-installed ## whether the generated documents are current
	@$(SCHEMA) | cmp -s - docs/mcpx.schema.json && $(REFERENCE) | cmp -s - docs/configuration.md || { \
		echo 'docs/mcpx.schema.json or docs/configuration.md is not what the code says: run make docs' >&2; \
		exit 1; }

docs: $(VENV)/.dev-installed ## write the generated documents
	@$(SCHEMA) --write

format: $(VENV)/.dev-installed ## format the code
	@$(BIN)/ruff format .

clean: ## remove everything that make created
	rm -rf $(VENV) build dist *.egg-info $(INTEROP)/node_modules \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what the targets stand on ------------------------------------------------------

# Debian packs the venv module apart, by version.
$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { \
		echo 'Python 3.11 or newer is needed and was not found. On Debian: apt install python3 python3-venv' >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		command -v apt-get >/dev/null || { \
			echo '$(PYTHON) has no venv or ensurepip module: install them.' >&2; exit 1; }; \
		package=$$("$(PYTHON)" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		echo "Installing $$package."; \
		$(call as_root,apt-get -qq update) && \
		$(call as_root,apt-get -qq install -y --no-install-recommends $$package) >/dev/null; }
	@echo 'Creating $(VENV) with $(PYTHON).'
	@"$(PYTHON)" -m venv $(VENV)

# Dependency groups need pip 25.1.
$(VENV)/.pip-ready: | $(BIN)/python
	@$(call retried,$(BIN)/python -m pip install -q --upgrade 'pip>=25.1')
	@touch $@

# setuptools warns of editable installations, which is what we want here.
$(VENV)/.installed: pyproject.toml setup.py mcpx/__init__.py $(VENV)/.pip-ready
	@echo 'Installing mcpx.'
	@$(call retried,PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q -e .)
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.installed
	@echo 'Installing what the tests and linters need.'
	@$(call retried,$(BIN)/python -m pip install -q --group dev)
	@touch $@

# Only the program is wanted, so the Debian package is unpacked and not installed: that
# needs no root, unless apt has no lists yet, and starts no Prometheus server here.
download_promtool = apt-get -qq -o APT::Sandbox::User=root download prometheus
fetch_promtool = ( at=$$(mktemp -d) && trap 'rm -rf "$$at"' EXIT && \
	{ ( cd "$$at" && $(download_promtool) 2>/dev/null ) || { \
		$(call as_root,apt-get -qq update) && ( cd "$$at" && $(download_promtool) ); }; } && \
	dpkg-deb --fsys-tarfile "$$at"/prometheus_*.deb | tar -xO ./usr/bin/promtool >$@.part && \
	chmod 755 $@.part && mv $@.part $@ )

$(BIN)/promtool: | $(BIN)/python
	@if found=$$(command -v promtool); then ln -sf "$$found" $@; \
	elif command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then \
		echo 'Fetching promtool.'; $(call retried,$(fetch_promtool)); \
	else \
		echo 'The tests need promtool: install Prometheus (https://prometheus.io/download/) and put promtool on the PATH.' >&2; \
		exit 1; \
	fi

# Node itself comes as a wheel, with the development dependencies.
$(MODULES): $(INTEROP)/package.json $(INTEROP)/package-lock.json $(VENV)/.dev-installed
	@echo 'Installing the JavaScript programs that the interoperability tests talk to.'
	@$(call retried,$(BIN)/python $(INTEROP)/install_node.py)
	@touch $@
