# `make demo` and `make test` need Python 3.11 or newer, make and PyPI, and nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
FUZZ := $(VENV)/.fuzz
BENCH := $(VENV)/.bench
# The protos of the last release, as a built image: clones in CI have no tags to compare with.
PROTOS_BASELINE := protos/baseline.binpb
# For two cores: while one worker waits for a process, a disk or a timer, the others compute.
WORKERS ?= 3
# The worker that is done first takes half of what another still has.
# With compiled files, even where the environment forbids them: services in processes of their own start faster.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test test-extended test-all test-loaded serve lint format protos protos-baseline lock bench soak fuzz test-ollama clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: Python 3.11 or newer is needed; name it with PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "make: this Python has no venv; on Debian: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements/build.lock requirements/runtime.lock pyproject.toml clients/python/pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes --no-deps -r requirements/build.lock -r requirements/runtime.lock
	$(PIP) install --no-deps --no-build-isolation -e clients/python -e .
	@touch $@

$(DEV): requirements/dev.lock $(RUNTIME)
	$(PIP) install --require-hashes --no-deps -r requirements/dev.lock
	@touch $@

demo: $(RUNTIME) ## bring one model in, end to end (MODEL=path, OLLAMA_URL=..., KEEP=1)
	$(BIN)/python scripts/demo.py

test: $(DEV) ## the default tier: every promise once, within 4 minutes on two cores (TESTS="paths")
	@sh scripts/test_needs.sh
	$(PYTEST) $(ORDER) $(TESTS)

test-extended: $(DEV) ## the extended tier alone: variants, wide tables, the second database, longer fault runs
	@sh scripts/test_needs.sh
	$(PYTEST) $(ORDER) -m 'extended and not soak and not real_ollama' $(TESTS)

# No test may need what another left behind. The seed is printed; ORDER="-p randomly --randomly-seed=n" repeats it.
test-extended test-all: ORDER := -p randomly
test-all: test test-extended ## both tiers

test-loaded: $(DEV) ## `make test` beside a load that burns two cores (TIMES=5, TESTS="ids": these alone instead)
	$(BIN)/python scripts/test_beside_load.py --times $(or $(TIMES),5) $(TESTS)

serve: $(RUNTIME) ## run the service in the foreground
	$(BIN)/python -m ingest_service serve

lint: $(DEV) ## every static check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf breaking --against $(PROTOS_BASELINE)
	$(BIN)/python scripts/generate_stubs.py --check
	$(BIN)/python scripts/readme_settings.py --check
	$(BIN)/python scripts/check_tree.py

format: $(DEV) ## put the code into shape
	$(BIN)/ruff check --fix-only --exit-zero .
	$(BIN)/ruff format .
	$(BIN)/buf format -w
	$(BIN)/python scripts/readme_settings.py

protos-baseline: $(DEV) ## move the protos' baseline forward, at a release (refused if anything was removed or changed)
	$(BIN)/buf breaking --against $(PROTOS_BASELINE)
	$(BIN)/buf build --exclude-source-info -o $(PROTOS_BASELINE)

protos: $(DEV) ## generate the Python stubs from protos/
	$(BIN)/python scripts/generate_stubs.py

lock: $(DEV) ## resolve the dependencies anew and pin them with hashes
	$(BIN)/python scripts/lock.py

$(BENCH): requirements/bench.lock $(DEV)
	$(PIP) install --require-hashes --no-deps --only-binary :all: -r requirements/bench.lock \
	  || echo "make: matplotlib cannot be had; the benchmarks go without a plot" >&2
	@touch $@

bench: $(BENCH) ## every figure as ratios, in build/bench/ (BENCH_BYTES=268435456, BENCH_ROUNDS=3, BENCH_ONLY="one unary")
	$(BIN)/python -m benchmarks.suite

soak: $(DEV) ## the tests that take minutes each
	@sh scripts/test_needs.sh
	$(BIN)/python -m pytest -m soak --override-ini timeout=3600

$(FUZZ): requirements/fuzz.lock $(DEV)
	$(PIP) install --require-hashes --no-deps --only-binary :all: -r requirements/fuzz.lock \
	  || echo "make: atheris has no wheel for this Python; fuzzing goes without it" >&2
	@touch $@

fuzz: $(FUZZ) ## fuzzers of the file readers (FUZZ_SECONDS=180 in all, FUZZ_EXECUTIONS=n each, FUZZ_READERS="gguf json")
	$(BIN)/python -m tests.formats.fuzz

test-ollama: $(DEV) ## the contract tests against a real Ollama at OLLAMA_URL
	@test -n "$${OLLAMA_URL:-}" || { echo "make test-ollama: set OLLAMA_URL" >&2; exit 2; }
	$(BIN)/python -m pytest -m real_ollama

clean: ## remove what make made
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
