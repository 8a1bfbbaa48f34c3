#!/usr/bin/env bash
# Builds the wheel, installs it in a fresh virtual environment and runs the fundamentals against it.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${VENV:-.venv}/bin/python" -m build --wheel --outdir "$scratch/dist" . >"$scratch/build.log" || { cat "$scratch/build.log"; exit 1; }
"${PYTHON:-python3}" -m venv "$scratch/venv"
wheel=("$scratch"/dist/*.whl)
# All that is tracked of the parts is in it: SQL, prompts, prices, templates.
git ls-files proto core registry broker gateway agents | cut -d/ -f2- | grep '^weft/' | sort >"$scratch/tracked"
"${VENV:-.venv}/bin/python" -m zipfile --list "${wheel[0]}" | awk 'NR > 1 {print $1}' | sort >"$scratch/packed"
missing=$(comm -23 "$scratch/tracked" "$scratch/packed")
[ -z "$missing" ] || { echo "not in the wheel: $missing"; exit 1; }
"$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check --prefer-binary \
  "${wheel[0]}[llm,memory]" httpx pytest pytest-asyncio pytest-rerunfailures pytest-timeout pytest-xdist
cp -r tests/fundamentals tests/conftest.py "$scratch/"
cat >"$scratch/pytest.ini" <<'INI'
[pytest]
addopts = --import-mode=importlib -p no:valkey
asyncio_mode = auto
asyncio_default_fixture_loop_scope = session
asyncio_default_test_loop_scope = session
timeout = 60
markers = xdist_group: kept in one process of pytest-xdist
INI
cd "$scratch"
venv/bin/python - <<'PY'
import pathlib, weft.rpc
assert "site-packages" in str(pathlib.Path(weft.rpc.__file__)), weft.rpc.__file__
import anthropic, onnxruntime, tokenizers
from weft.agents.llm import Prices
Prices.shipped()
PY
venv/bin/python -m pytest -q fundamentals
