#!/usr/bin/env bash
# Writes the model fixtures of test/models anew: scripts/fixtures.sh [NAME...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# The order of a set of strings shows in what torch.onnx writes.
export PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 PYTHONHASHSEED=0

# An environment of build/ with the packages of a file of test/models.
environment() {
  local venv=build/$1 requirements=test/models/$2
  if ! cmp -s "$requirements" "$venv/requirements.txt"; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$requirements"
    cp "$requirements" "$venv/requirements.txt"
  fi
}

# Each recipe writes those of the names that are its own, all of its own without names.
environment venv-fixtures requirements.txt
build/venv-fixtures/bin/python test/models/export.py "$@"
build/venv-fixtures/bin/python test/models/export_public.py --exporters genai,mobius,torch "$@"
build/venv-fixtures/bin/python test/models/checkpoints.py "$@"
environment venv-optimum requirements-optimum.txt
build/venv-optimum/bin/python test/models/export_public.py --exporters optimum "$@"
build/venv-fixtures/bin/python test/models/overview.py
