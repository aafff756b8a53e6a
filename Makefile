# make run: the simulated microscope, live.   make test: everything that is checked.
# make soak: the faults of `make test`, each a hundred times.
# All only call ordinary commands; the README gives them for Windows too.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?=

.PHONY: run test test-page test-rest soak check system-programs clean

run: $(VENV)/installed
	$(BIN)/eclips up $(if $(CONFIG),--config $(CONFIG))

test:
	$(MAKE) -j2 $(VENV)/installed-for-tests system-programs
	$(MAKE) -j2 check test-page
	$(MAKE) test-rest

# One thread for each of those side by side, and none that spins while it waits. The page comes before the rest: a browser
# and a microscope want a core for themselves, and the browser's driver a process.
test-page test-rest: export OMP_NUM_THREADS = 1
test-page test-rest: export OMP_WAIT_POLICY = PASSIVE

test-page:
	$(BIN)/pytest tests/browser

test-rest:
	$(BIN)/pytest -n 2 --dist worksteal --ignore tests/browser

soak: $(VENV)/installed-for-tests
	ECLIPS_SOAK_ROUNDS=100 $(BIN)/pytest -m soak --timeout 3600

check: $(VENV)/installed-for-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Chromium for the page, ImageJ under Xvfb for the recordings, Gwyddion for the exports. Where they may not be installed,
# pytest names the tests that it leaves out (or fails, where CI is set).
system-programs:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! { command -v chromium && command -v xvfb-run && \
	  command -v gwyddion && test -e /usr/share/java/ij.jar; } >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    chromium gwyddion imagej xvfb xauth procps >/dev/null; fi

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/installed-for-tests: $(VENV)/installed
	$(BIN)/pip install -q --no-compile -c constraints.txt -e ".[test]"
	touch $@

clean:
	rm -rf $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
