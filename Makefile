# The doors of the project. Bare `make` lists them.
#
# As root on Debian 12, 13 or Ubuntu 24.04, each target installs what it needs
# (.ci/packages); an ordinary user is told what is missing. Everything else
# goes into .venv, from /usr/bin/python3 or PYTHON=...

SHELL := /bin/sh
VENV := .venv
RUN := $(VENV)/bin/python
PYTEST := $(RUN) -m pytest
# Tests wait for half of their time.
JOBS ?= $(shell expr $$(nproc) + 1)
FUZZ_SECONDS ?= 600
FUZZ_SEED ?= 1
PREFIX ?= /opt/l4raw
BIN ?= /usr/local/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

# What a new installation depends on; a change of Python code needs none.
NATIVE := $(wildcard native/*.py native/include/*.h native/*/*.[ch])

.DEFAULT_GOAL := help
.PHONY: help demo build install uninstall test test-long test-unprivileged fuzz bench lint abi clean build-packages test-packages long-packages force

# apt refuses to run twice at once.
.NOTPARALLEL:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: test-packages $(VENV)/.installed ## a load balancer and three web servers in network namespaces (root)
	$(RUN) -m l4raw.netns.demo

build: $(VENV)/.installed ## .venv/bin/l4raw, with the native part if there is a compiler
	@$(RUN) -m l4raw.engine.native

test: test-packages $(VENV)/.installed ## every test that is not long; as root, none is skipped
	@status=0; \
	.ci/as-ordinary-user $(PYTEST) -q -n $(JOBS) -p no:cacheprovider tests/unprivileged || status=$$?; \
	$(PYTEST) -n $(JOBS) --dist worksteal --ignore=tests/long --ignore=tests/bench --ignore=tests/unprivileged -m "not long" tests || status=$$?; \
	exit $$status

test-long: long-packages $(VENV)/.installed ## the tests that take minutes (root)
	$(PYTEST) tests/long
	$(PYTEST) -m long tests/integration

test-unprivileged: $(VENV)/.installed ## the tests that need no root; run as root, they run as nobody
	.ci/as-ordinary-user $(PYTEST) -n $(JOBS) -p no:cacheprovider tests/unit tests/conformance tests/unprivileged

# What is found, and the corpus, are in build/fuzz; the next run begins with that corpus.
fuzz: $(VENV)/.installed ## coverage-guided fuzzing of the C helper: FUZZ_SECONDS=600
	$(RUN) -m tests.fuzz.run $(FUZZ_SECONDS) $(FUZZ_SEED)

bench: test-packages $(VENV)/.installed ## figures, with the machine and the versions (root)
	@status=0; for part in run af_xdp helper flows kernel; do $(RUN) -m tests.bench.$$part || status=$$?; done; exit $$status

# -Werror for BPF too: build_bpf.py has it. As root, .ci/packages has installed libxdp, libbpf and clang.
# mypy knows a package by its folders: there, netns/ is where an installation has it.
lint: $(VENV)/.installed ## ruff, mypy --strict, the C compiler's warnings
	$(RUN) -m ruff check .
	@rm -rf $(VENV)/typing && mkdir -p $(VENV)/typing/l4raw
	@ln -s $(CURDIR)/l4raw/* $(CURDIR)/netns $(VENV)/typing/l4raw/ && ln -s $(CURDIR)/tests $(CURDIR)/native $(VENV)/typing/
	cd $(VENV)/typing && MYPYPATH=native ../bin/python -m mypy --strict --config-file $(CURDIR)/pyproject.toml l4raw tests native/*.py
	$(CC) -std=c11 -Wall -Wextra -Wpedantic -Wconversion -Werror -Inative/include -Inative/src -Inative/xdp \
		$$(pkg-config --cflags libxdp libbpf) -fsyntax-only \
		-x c native/include/*.h native/src/*.c native/xdp/*.h native/xdp/*.c tests/bench/*.h tests/bench/*.c tests/fuzz/*.h tests/fuzz/*.c
	$(RUN) native/build_bpf.py $(VENV)/bpf

abi: $(VENV)/.installed ## write l4raw/wire/abi.py from native/include/l4raw_abi.h
	$(RUN) native/gen_abi.py

install: ## l4raw on root's PATH: PREFIX=/opt/l4raw, a link in BIN=/usr/local/bin (root)
	@.ci/packages build
	@test ! -e $(PREFIX) || test -e $(PREFIX)/.made-by-l4raw || \
		{ echo "$(PREFIX) exists and is not l4raw's: choose another PREFIX=..." >&2; exit 1; }
	@test ! -e $(BIN)/l4raw || test "$$(readlink $(BIN)/l4raw)" = $(PREFIX)/bin/l4raw || \
		{ echo "$(BIN)/l4raw exists and is not l4raw's: choose another BIN=..." >&2; exit 1; }
	@mkdir -p $(PREFIX) && touch $(PREFIX)/.made-by-l4raw
	"$$(.ci/python)" -m venv $(PREFIX)
	@rm -rf build
	$(PREFIX)/bin/python -m pip install --quiet .
	@rm -rf build
	@mkdir -p $(BIN) && ln -sfn $(PREFIX)/bin/l4raw $(BIN)/l4raw
	@cd / && $(PREFIX)/bin/python -m l4raw.engine.native
	@echo "installed: $(BIN)/l4raw; \`make uninstall PREFIX=$(PREFIX) BIN=$(BIN)\` removes it"

uninstall: ## remove what `make install` made, and nothing else (root)
	@test "$$(readlink $(BIN)/l4raw)" = $(PREFIX)/bin/l4raw || test -e $(PREFIX)/.made-by-l4raw || \
		echo "nothing to remove: neither $(PREFIX) nor $(BIN)/l4raw was made by \`make install\`"
	@test "$$(readlink $(BIN)/l4raw)" != $(PREFIX)/bin/l4raw || rm -v $(BIN)/l4raw
	@test ! -e $(PREFIX)/.made-by-l4raw || { rm -rf $(PREFIX) && echo "removed $(PREFIX)"; }

clean: ## remove what make built: .venv, build, caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f l4raw/_native*.so l4raw/_xdp*.so l4raw/_burst*.so l4raw/*_not_built.txt l4raw/xdp/*.bpf.o
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

test-packages:
	@.ci/packages test

long-packages:
	@.ci/packages long

build-packages:
	@.ci/packages build

# Installed anew: a checkout that was copied together with its .venv, because an installation names its
# place; one without a compiled part, although what compiles it is there.
ifneq ($(shell cat $(VENV)/.installed 2>/dev/null),$(CURDIR))
$(VENV)/.installed: force
else ifeq ($(wildcard l4raw/_native*.so)$(if $(shell command -v $(CC)),,no compiler),)
$(VENV)/.installed: force
else ifneq ($(if $(wildcard l4raw/_xdp*.so),,$(wildcard /usr/include/xdp/xsk.h)),)
$(VENV)/.installed: force
else ifneq ($(if $(wildcard l4raw/xdp/*.bpf.o),,$(shell command -v clang)),)
$(VENV)/.installed: force
endif

$(VENV)/.installed: setup.py pyproject.toml $(NATIVE) | build-packages
	@test -x $(RUN) || { python=$$(.ci/python) && echo "$$python -m venv $(VENV)" && "$$python" -m venv $(VENV); } || \
		{ rm -rf $(VENV); exit 1; }
	@echo "installing l4raw and its tools into $(VENV)"
	@$(RUN) -m pip install --quiet 'setuptools>=70' cffi
	@$(RUN) -m pip install --quiet --no-build-isolation --editable '.[dev]'
	@printf %s '$(CURDIR)' >$@
