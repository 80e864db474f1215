#!/bin/sh
# Packs what scripts/gpu-check.sh runs on a machine with a GPU and without a compiler into build/gpu: programs, their
# libraries, artifacts, prompts and expected logits. At most 60 MB.
#
#   scripts/gpu-pack.sh [BUILD]     BUILD: a build with the compiler and CUDA kernels (default build/release)
set -eu
cd "$(dirname "$0")/.."
exec build/venv/bin/python scripts/gpu/pack.py --build "${1:-build/release}" --out build/gpu
