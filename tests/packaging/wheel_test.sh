#!/bin/sh
# Builds the wheel, installs it without extras into an empty environment away from the source tree, and uses it there.
# An editable install would hide a package that the wheel lacks; so would running beside the source.
set -eu
here=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$PYTHON" -m build --wheel --outdir "$work/dist" "$here" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$PYTHON" -m venv "$work/venv"
"$work/venv/bin/python" -m pip --disable-pip-version-check -q install "$work"/dist/*.whl pytest pytest-asyncio hypothesis

# Tests of what the base install has: no SDK, no server, no development tree.
mkdir "$work/away"
cp -r "$here/tests" "$work/away/tests"
cp "$here/pyproject.toml" "$work/away/"
cd "$work/away"
"$work/venv/bin/python" - <<'PYTHON'
import importlib.metadata, pathlib, sys, semcache, semcache_indexes
for package in (semcache, semcache_indexes):
    home = pathlib.Path(package.__file__).parent
    assert "site-packages" in home.parts, home
    assert (home / "py.typed").exists(), home
heavy = {"onnxruntime", "torch", "redis", "openai", "anthropic", "rich"} & set(sys.modules)
assert not heavy, heavy
assert importlib.metadata.version("semcache-llm") == semcache.__version__
PYTHON
"$work/venv/bin/semcache" --version
"$work/venv/bin/semcache" demo --json --requests 60 --store "sqlite:///$work/demo.sqlite" >"$work/demo.json"
"$work/venv/bin/python" -c "
import json, sys
report = json.load(open(sys.argv[1]))
assert report['requests'] == 60 and report['hits'] > 0, report
" "$work/demo.json"
"$work/venv/bin/python" -m pytest -q -p no:cacheprovider tests/unit tests/flow tests/policy tests/guards tests/indexes tests/functions
