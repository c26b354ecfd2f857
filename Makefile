# Everything from a fresh checkout: each target sets up what it needs, once.
# What is set up is recorded by files in $(VENV), so a second run installs nothing.

VENV ?= .venv
# The first Python that is new enough; `make PYTHON=/path/to/python …` to choose another.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo "$$python" && break; done)
# For `make test`: `make test PYTEST_ARGS="tests/examples -k readme"`
PYTEST_ARGS ?=
# For `make test`: the whole suite runs on both; `make test BACKENDS=MCPX_NO_EXTENSIONS` on one.
BACKENDS ?= MCPX_REQUIRE_EXTENSIONS MCPX_NO_EXTENSIONS
# For `make defences`: `make defences DEFENCES_ARGS="--only session"`
DEFENCES_ARGS ?=

# For `make bench`: quick or full; peers as `name=command,…`, or none.
BENCH ?= full
PEERS ?=
# For `make guard`: a commit to compare with instead of the budgets.
AGAINST ?=

BIN := $(VENV)/bin
INTEROP := tests/interop
MODULES := $(INTEROP)/node_modules/.installed-for
# What needs no second run: these build packages, or hold the compiled twins against the
# others by name, whichever of them the process itself uses.
MCPX_NO_EXTENSIONS_LEAVES_OUT := --ignore-glob=tests/_speedups/test_*_c.py \
	--ignore=tests/examples/test_installation.py --ignore=tests/perf
# What the extensions are made of.
SOURCES := setup.py $(wildcard mcpx/_speedups/*.pyx mcpx/_speedups/*.pxd)

SCHEMA := PYTHONUTF8=1 $(BIN)/python -m mcpx.config.schema
REFERENCE := PYTHONUTF8=1 $(BIN)/python -c 'import sys; from mcpx.config.schema import reference; sys.stdout.write(reference())'

# $(call retried,COMMAND): networks fail for a moment; one more try, then the error stands.
retried = { $(1) || { echo 'That did not work; trying once more.' >&2; sleep 2; $(1); }; }
# $(call as_root,COMMAND): run it, or say plainly what to run.
as_root = if [ "$$(id -u)" = 0 ]; then $(1); \
	elif command -v sudo >/dev/null; then sudo $(1); \
	else echo "This must run as root first: $(1)" >&2; false; fi

# $(call debian,PROGRAM,PACKAGE): install a program that is missing, where Debian's tools are.
debian = PATH="$$PATH:/usr/sbin" command -v $(1) >/dev/null || { \
	command -v apt-get >/dev/null || { echo 'Install $(1) first.' >&2; exit 1; }; \
	echo 'Installing $(2).'; \
	$(call as_root,apt-get -qq update) && \
	$(call as_root,env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $(2)) >/dev/null; }

# What is set up here must not depend on what the caller has asked mcpx for.
neutral := env -u MCPX_REQUIRE_EXTENSIONS -u MCPX_NO_EXTENSIONS

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two installations into one environment at a time would break it.
.NOTPARALLEL:
.PHONY: bench bench-peers guard guard-renew
.PHONY: help demo install test sanitize defences compiler check lint format-check types layers docs-check docs format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) \
	| while IFS='|' read -r target what; do printf '  make %-14s %s\n' "$$target" "$$what"; done

demo: $(VENV)/.extensions ## start a mock MCP server (:3001) and the gateway (:8080); Ctrl-C stops both
	@$(BIN)/python -m examples.demo

install: $(VENV)/.extensions ## create the environment and install mcpx in it

test: compiler $(VENV)/.dev-installed $(VENV)/.extensions $(BIN)/promtool $(MODULES) ## set up everything that the tests need, and run them, compiled and in pure Python
	@failed=; for backend in $(BACKENDS); do \
		echo "== $$backend=1"; \
		left_out=; [ $$backend = MCPX_REQUIRE_EXTENSIONS ] || \
			left_out="$(MCPX_NO_EXTENSIONS_LEAVES_OUT)"; \
		$(neutral) $$backend=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest $(PYTEST_ARGS) \
			$$left_out \
			|| failed="$$failed $$backend=1"; \
	done; \
	[ -z "$$failed" ] || { echo "Failed with:$$failed" >&2; exit 1; }

sanitize: compiler $(VENV)/.dev-installed ## run the extensions' tests with every bound and address checked
	@$(BIN)/python tests/_speedups/sanitize.py

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
	rm -rf $(VENV) build dist *.egg-info mcpx/_speedups/*.so mcpx/_speedups/*.c $(INTEROP)/node_modules \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

bench: $(VENV)/.dev-installed $(VENV)/.extensions ## measure the gateway beside nginx and peers (BENCH=quick: three minutes)
	@$(call debian,nginx,nginx-light)
	@$(call debian,wrk,wrk)
	@PATH="$$PATH:/usr/sbin" $(BIN)/python -m perf.bench --mode $(BENCH) $(if $(PEERS),--peers '$(PEERS)')

bench-peers: $(BIN)/python ## install the peers of PyPI that make bench measures beside
	@$(BIN)/python perf/bench/install_peers.py

guard: $(VENV)/.dev-installed $(VENV)/.extensions ## hold instructions, system calls and memory against their budgets
	@$(call debian,valgrind,valgrind)
	@$(call debian,strace,strace)
	@$(BIN)/python -m perf.guard $(if $(AGAINST),--against '$(AGAINST)')

guard-renew: $(VENV)/.dev-installed $(VENV)/.extensions ## write what is measured now as the budgets
	@$(call debian,valgrind,valgrind)
	@$(call debian,strace,strace)
	@$(BIN)/python -m perf.guard --renew

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

# setuptools warns of editable installations, which is what we want here. The extensions
# are built apart, below: they change more often than what is installed.
$(VENV)/.installed: pyproject.toml mcpx/__init__.py $(VENV)/.pip-ready
	@echo 'Installing mcpx.'
	@$(call retried,$(neutral) MCPX_NO_EXTENSIONS=1 PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q -e . --group build)
	@touch $@

# Built beside their sources, and anew when one of them is newer. Without a compiler mcpx
# works all the same, so that is no error here; but it is not recorded as done either.
$(VENV)/.extensions: $(SOURCES) $(VENV)/.installed
	@echo 'Building the extensions.'
	@$(neutral) $(BIN)/python setup.py build_ext --inplace >$@.log 2>&1 || { cat $@.log >&2; exit 1; }
	@if $(neutral) MCPX_REQUIRE_EXTENSIONS=1 $(BIN)/python -c 'import mcpx._speedups' 2>/dev/null; then touch $@; \
	else $(neutral) $(BIN)/python -c 'from mcpx._speedups import described; print(described())'; \
		echo 'mcpx works so, only slower. $@.log says what the compiler said.'; fi

# Whether a program that includes Python's header compiles; if not, what Debian needs for it.
# Other systems bring the header along with Python.
compiler: | $(BIN)/python
	@cc=$$($(BIN)/python -c 'import os, sysconfig; print((os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0])'); \
	at=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))'); \
	compiles() { printf '%s\n' '#include <Python.h>' | "$$cc" -fsyntax-only -I"$$at" -x c - 2>/dev/null; }; \
	compiles || { \
		command -v apt-get >/dev/null || { \
			echo 'The tests need a C compiler: install one (on macOS: xcode-select --install).' >&2; exit 1; }; \
		packages='gcc libc6-dev'; \
		[ -e "$$at/Python.h" ] || packages="$$packages $$($(BIN)/python -c 'import sys; print("python%d.%d-dev" % sys.version_info[:2])')"; \
		echo "Installing $$packages."; \
		$(call as_root,apt-get -qq update) && \
		$(call as_root,apt-get -qq install -y --no-install-recommends $$packages) >/dev/null && \
		{ compiles || { echo "$$cc still compiles nothing that includes Python.h." >&2; exit 1; }; }; }

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
