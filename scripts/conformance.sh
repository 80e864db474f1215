#!/usr/bin/env bash
# The node tests of the onnx package, by the tools of one build directory.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:?usage: scripts/conformance.sh build/PRESET [options of test/conformance/conformance.py]}
shift

PYTHONPATH=build/node-tests exec build/venv/bin/python test/conformance/conformance.py --bin "$build/bin" "$@"
