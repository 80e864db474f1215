#!/bin/sh
# Proves the CUDA side on a machine with a GPU, its driver and Python with NumPy, in under eight minutes: runs what
# scripts/gpu-pack.sh packed, compares speeds with PyTorch and others that are there, and writes gpu-check.json and
# gpu-check.txt to $OUT (default build/bench).
#
#   scripts/gpu-check.sh [PACK]     PACK: the packed folder (default build/gpu)
#
# Ends with 1 if a check failed; a check that cannot run here is listed as skipped.
set -eu
cd "$(dirname "$0")/.."
exec python3 scripts/gpu/check.py --pack "${1:-build/gpu}" --out "${OUT:-build/bench}"
