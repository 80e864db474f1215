#!/bin/sh
# Proves the CUDA side on a machine with a GPU, its driver and Python 3.10 with NumPy, in under eight minutes: runs what
# scripts/gpu-pack.sh packed, compares speeds with PyTorch and others that are there, and writes gpu-check.json and
# gpu-check.txt to $OUT (default build/bench).
#
#   scripts/gpu-check.sh [PACK [OPTIONS]]     PACK: the packed folder (default build/gpu); --only PART runs some alone
#
# $PYTHON is the Python that is asked (default python3). Ends with 0, with 1 if a part failed, with 77 if no GPU can be
# used, so that nothing was checked. A part that cannot run here is listed as skipped.
set -eu
cd "$(dirname "$0")/.."
pack=${1:-build/gpu}
[ $# -eq 0 ] || shift
exec "${PYTHON:-python3}" scripts/gpu/check.py --pack "$pack" --out "${OUT:-build/bench}" "$@"
