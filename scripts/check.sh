#!/usr/bin/env bash
# Every test of one build directory: unit tests, lit, the ONNX node tests, end to end. A suite that finds no case fails.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:?usage: scripts/check.sh build/PRESET}
jobs=$(nproc)

ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$jobs"
/usr/lib/llvm-22/bin/lit -s -j "$jobs" "$build/test"
scripts/conformance.sh "$build"
HELIX_BUILD=$PWD/$build build/venv/bin/python -m pytest -q -n "$jobs" test/e2e
