# make demo         serve 1,000 real HTTP requests on each backend and check every log record
# make demo-travel  follow requests through two services, a queue and a cluster, and count what arrives
# make test         run the tests on both backends and both hosts (three minutes on two cores)
# make test-all     and those of integrations, builds, CPython's own, the tools', and random programs (some minutes more)
# make integrations start a broker, a cluster, servers and a browser, and run the tests of the integrations with them, on
#                   both backends; it is a part of test-all
# make conformance  run other people's suites on the standard library's variables and on ours, and compare each test;
#                   OPTIONS="--only trio" chooses one, OPTIONS=--help tells the rest
# make fuzz         run random programs beside the standard library's variables; SECONDS=3600 for an hour on each host
# make threads      use shared Contexts and maps in eight threads, a minute on each backend and host
# make test-freethreaded PYTHON=python3.14t VENV=.venv-3.14t
#                   run the tests and the threads on a Python without the GIL
# make sanitize     run the compiled backend's tests under AddressSanitizer and UndefinedBehaviorSanitizer
# make valgrind     run every operation of the compiled backend under valgrind
# make flat-memory  set, reset, copy and run ten million times on all four, and see that memory stays flat (some minutes)
# make coverage PYTHON=python3.11 VENV=.venv-3.11
#                   measure which lines of both twins the tests run
# make wheels       build the source distribution and a wheel for every CPython that is found, check them, and test each
#                   wheel where there is no compiler (some minutes); they are in dist/
# make lint         check style, types, workflows and the changelog; `pre-commit install` has each commit checked
# make docs         make the site of docs/ in build/docs; a warning, or a name or link that leads nowhere, is an error
# make pictures     make the pictures of docs/finding.md again, with a browser
# make warnings     compile the C of the compiled backend with gcc and clang, every warning on
# make help         print this
# make clean        remove what the others made
#
# PYTHON=python3.12 chooses the interpreter, VENV=.venv-3.12 the folder for its packages.

PYTHON ?= python3
VENV ?= .venv
# Of the dependency groups in pyproject.toml.
GROUPS = test fuzz
INSTALL = $(VENV)/bin/python -m pip install --quiet --prefer-binary --disable-pip-version-check --root-user-action=ignore
NEEDS_NETWORK = pip says why above. It needs the package index: without a network, run make again when there is one.
# On all cores.
PYTEST = $(VENV)/bin/pytest -q -n auto --dist worksteal
PACKAGE = CONTEXTVARS_CY_BACKEND=cython CONTEXTVARS_CY_HOST=native
ON_CPYTHON = $(VENV)/bin/python -c "import sys; sys.exit(sys.implementation.name != 'cpython')"
BUILT_FROM = setup.py pyproject.toml $(wildcard $(addprefix contextvars_cy/*/*.,pyx pxd pxi h) contextvars_cy/*.pxd contextvars_cy/*.h)

.PHONY: help demo demo-travel test tests test-all integrations conformance fuzz threads test-freethreaded sanitize valgrind flat-memory coverage
.PHONY: wheels lint style types workflows changelog warnings docs pictures clean
.DELETE_ON_ERROR:

# The first target, so `make` alone prints it too.
help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/built
	@$(VENV)/bin/python -m contextvars_cy info
	@$(VENV)/bin/python tools/demo.py

demo-travel: $(VENV)/integration-tools
	@tools/redis.sh
	@$(VENV)/bin/python tools/demo_travel.py

test: $(VENV)/test-tools
	@backends="pure cython"; $(ON_CPYTHON) || { echo "Only CPython has the compiled backend: the pure one is tested."; backends=pure; }; \
	for backend in $$backends; do for host in native thread; do \
		echo "== $$backend backend, $$host host"; \
		[ $$host = native ] && map=tests/hamt || map=; \
		[ $$backend = cython ] && twins=tests/twins || twins=; \
		CONTEXTVARS_CY_BACKEND=$$backend CONTEXTVARS_CY_HOST=$$host \
			$(PYTEST) $$map tests/engine tests/features tests/$$host $$twins || exit 1; \
	done; done
	@$(ON_CPYTHON) || { echo "The package as installed is tested on CPython."; exit 0; }; \
	echo "== the package: selector, command, other libraries, the interpreter's end"; $(PACKAGE) $(PYTEST) tests/package

# The folder of that name would count as made.
tests: test

test-all: test integrations
	@$(ON_CPYTHON) || exit 0; \
	echo "== builds, CPython's own tests, the tools"; $(PACKAGE) $(PYTEST) tests/builds tests/suites tests/tools
	@echo "== random programs beside the standard library's variables (half a minute)"
	@$(VENV)/bin/python tools/fuzz.py --host native --seconds 20
	@$(VENV)/bin/python tools/fuzz.py --host thread --seconds 10

# Their processes use the cores by themselves.
integrations: $(VENV)/integration-tools
	@$(ON_CPYTHON) || { echo "The integrations are tested on CPython."; exit 0; }; \
	tools/redis.sh && tools/chromium.sh || exit 1; \
	for backend in pure cython; do \
		echo "== integrations: $$backend backend"; \
		CONTEXTVARS_CY_BACKEND=$$backend CONTEXTVARS_CY_HOST=native $(VENV)/bin/pytest -q tests/integrations || exit 1; \
	done

conformance: $(VENV)/bin/python
	@$(VENV)/bin/python tools/conformance.py $(OPTIONS)

fuzz: SECONDS ?= 60
fuzz: $(VENV)/test-tools
	@$(VENV)/bin/python tools/fuzz.py --host native --seconds $(SECONDS)
	@$(VENV)/bin/python tools/fuzz.py --host thread --seconds $(SECONDS)

threads: SECONDS ?= 6
threads: $(VENV)/test-tools
	@for backend in pure cython; do for host in native thread; do \
		echo "== threads: $$backend backend, $$host host"; \
		THREADS_SECONDS=$(SECONDS) CONTEXTVARS_CY_BACKEND=$$backend CONTEXTVARS_CY_HOST=$$host \
			$(VENV)/bin/pytest -q tests/engine/test_threads.py || exit 1; \
	done; done

# Without the event loops, which few have built for it.
test-freethreaded: GROUPS = test
test-freethreaded: $(VENV)/test-tools
	@for backend in pure cython; do for host in native thread; do \
		echo "== without the GIL: $$backend backend, $$host host"; \
		export CONTEXTVARS_CY_BACKEND=$$backend CONTEXTVARS_CY_HOST=$$host; \
		$(VENV)/bin/python -W error -c "import contextvars_cy, sys; sys.exit(getattr(sys, '_is_gil_enabled', lambda: True)())" || { \
			echo "$$($(VENV)/bin/python -VV) has the GIL on; name a free-threaded Python with PYTHON= and VENV="; \
			exit 1; }; \
		$(VENV)/bin/pytest -q tests/hamt tests/engine tests/features tests/$$host || exit 1; \
	done; done
	@$(MAKE) --no-print-directory threads

sanitize: $(VENV)/test-tools
	@tools/sanitize.sh $(VENV)/bin/python build/sanitized

valgrind: $(VENV)/test-tools
	@tools/valgrind.sh $(VENV)/bin/python build/valgrind

flat-memory: $(VENV)/built
	@for backend in pure cython; do for host in native thread; do \
		CONTEXTVARS_CY_BACKEND=$$backend CONTEXTVARS_CY_HOST=$$host $(VENV)/bin/python tools/flat_memory.py || exit 1; \
	done; done

coverage: $(VENV)/test-tools
	@$(INSTALL) coverage || { echo "$(NEEDS_NETWORK)"; exit 1; }
	@tools/coverage.sh $(VENV)/bin/python

wheels: $(VENV)/wheel-tools
	@tools/wheels.sh $(VENV)/bin

warnings: $(VENV)/test-tools
	@tools/warnings.sh $(VENV)/bin/python

lint: style types workflows changelog

style: $(VENV)/lint-tools
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@# It looks for pycodestyle on PATH.
	@PATH="$(abspath $(VENV))/bin:$$PATH" cython-lint contextvars_cy tests/package/cimport_project
	@find contextvars_cy -name '*.h' -exec $(VENV)/bin/clang-format --dry-run --Werror {} +

# With the libraries that the integrations import.
types: $(VENV)/lint-tools $(VENV)/integration-tools
	@$(VENV)/bin/mypy
	@$(VENV)/bin/mypy examples pytest_contextvars_cy.py tests tools
	@$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python contextvars_cy examples pytest_contextvars_cy.py \
		tests/features/test_types.py tests/hamt/test_map_types.py

workflows: $(VENV)/lint-tools
	@$(VENV)/bin/zizmor --offline --quiet .github
	@actionlint=$$(PATH="$(abspath $(VENV))/bin:$$PATH" command -v actionlint) || { \
		echo "actionlint is not found, so zizmor alone has checked the workflows:" \
			"$(VENV)/bin/python -m pip install --group actionlint needs a network that reaches GitHub."; \
		[ -z "$$CI" ]; exit; }; \
	"$$actionlint"

changelog: $(VENV)/lint-tools
	@draft=$$($(VENV)/bin/towncrier build --draft --version next 2>&1) || { echo "$$draft"; exit 1; }

# Built, so that the site has the version.
docs: $(VENV)/built $(VENV)/docs-tools
	@$(VENV)/bin/sphinx-build --fail-on-warning --keep-going --nitpicky --fresh-env --quiet docs build/docs
	@echo "The site begins at build/docs/index.html"

pictures: $(VENV)/integration-tools
	@tools/chromium.sh
	@$(VENV)/bin/python tools/pictures.py

$(VENV)/docs-tools: $(VENV)/bin/python pyproject.toml
	@$(INSTALL) --group docs || { echo "$(NEEDS_NETWORK)"; exit 1; }
	@touch $@

# It empties its folder first: one with anything else in it is not taken, nor a name that the shell would read as two.
$(VENV)/bin/python:
	@[ $(words $(VENV)) = 1 ] || { echo "VENV=$(VENV): choose a folder without spaces in its name."; exit 1; }
	@[ -z "$$(ls -A $(VENV) 2>/dev/null)" ] || [ -e $(VENV)/pyvenv.cfg ] || { \
		echo "$(VENV) has other things in it than an environment: choose another folder with make VENV=..."; exit 1; }
	@command -v $(PYTHON) >/dev/null && $(PYTHON) -c "" || { \
		echo "'$(PYTHON)' is not found or does not run: install Python 3.9 or newer, or name one with make PYTHON=..."; \
		exit 1; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 9))" || \
		{ echo "$$($(PYTHON) --version 2>&1) is too old: Python 3.9 or newer is needed, named with make PYTHON=..."; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV) || \
		{ rm -rf $(VENV); echo "$(VENV) cannot be made; if $(PYTHON) lacks its venv module: install python3-venv (Debian)."; exit 1; }
	@# The first that knows --group.
	@$(INSTALL) "pip>=25.1" || { rm -rf $(VENV); echo "pip could not be upgraded: $(NEEDS_NETWORK)"; exit 1; }

$(VENV)/built: $(VENV)/bin/python $(BUILT_FROM)
	@echo "Building contextvars_cy in $(VENV), where a C compiler works with the compiled extension (half a minute)"
	@$(INSTALL) --editable . || { echo "contextvars_cy could not be built: $(NEEDS_NETWORK)"; exit 1; }
	@touch $@

$(VENV)/lint-tools: GROUPS := $(GROUPS) lint
$(VENV)/test-tools $(VENV)/lint-tools: $(VENV)/bin/python $(BUILT_FROM)
	@echo "Building contextvars_cy in $(VENV), and installing what its tests need (half a minute)"
	@$(INSTALL) --editable . $(addprefix --group ,$(GROUPS)) || \
		{ echo "contextvars_cy and its test tools could not be installed: $(NEEDS_NETWORK)"; exit 1; }
	@touch $(VENV)/built $(VENV)/test-tools $@

$(VENV)/integration-tools: $(VENV)/test-tools
	@$(INSTALL) --group integrations --editable ".[asgi,celery,dask,grpc,httpx,joblib,opentelemetry,requests,wsgi]" || \
		{ echo "What the integrations are tested with could not be installed: $(NEEDS_NETWORK)"; exit 1; }
	@touch $@

$(VENV)/wheel-tools: $(VENV)/bin/python pyproject.toml
	@$(INSTALL) --group wheels || { echo "The tools for wheels could not be installed: $(NEEDS_NETWORK)"; exit 1; }
	@touch $@

clean:
	rm -rf .venv* build dist *.egg-info contextvars_cy/*/*.c contextvars_cy/*/*.so contextvars_cy/_pure_build.txt contextvars_cy/_version.py .pytest_cache .hypothesis
	rm -rf .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
