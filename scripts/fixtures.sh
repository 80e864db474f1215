#!/usr/bin/env bash
# Writes the model fixtures of test/models anew: scripts/fixtures.sh [NAME...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=build/venv-fixtures
requirements=test/models/requirements.txt
if ! cmp -s "$requirements" "$venv/requirements.txt"; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --requirement "$requirements"
  cp "$requirements" "$venv/requirements.txt"
fi
exec env PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 "$venv/bin/python" test/models/export.py "$@"
