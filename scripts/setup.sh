#!/usr/bin/env bash
# Installs what Helix builds and tests with, on Debian 12. Does nothing that is done already.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  clang-22 clang-format-22 clang-tidy-22 lld-22 libclang-rt-22-dev   # the compiler of Helix, and its sanitizers
  llvm-22-dev llvm-22-tools liblld-22-dev libmlir-22-dev mlir-22-tools # what Helix is built on
  cmake ninja-build make ccache git
  protobuf-compiler libprotobuf-dev                                  # ONNX files
  flatbuffers-compiler libflatbuffers-dev libxxhash-dev              # artifacts
  libhwy-dev                                                         # CPU kernels
  libcli11-dev nlohmann-json3-dev libzip-dev                         # tools
  libgtest-dev libgmock-dev libbenchmark-dev                         # tests and benchmarks
  zlib1g-dev libzstd-dev libxml2-dev
  python3 python3-venv
)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  sudo=
  ((EUID == 0)) || sudo=sudo
  $sudo apt-get update -q
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

venv=build/venv
stamp=$venv/.requirements
if ! cmp -s scripts/requirements.txt "$stamp"; then
  [ -x $venv/bin/python ] || /usr/bin/python3 -m venv $venv
  $venv/bin/pip install -q --disable-pip-version-check -r scripts/requirements.txt
  cp scripts/requirements.txt "$stamp"
fi

node_tests=build/node-tests
if ! cmp -s scripts/requirements-node-tests.txt $node_tests/.requirements; then
  rm -rf $node_tests
  $venv/bin/pip install -q --disable-pip-version-check --no-deps --target $node_tests -r scripts/requirements-node-tests.txt
  cp scripts/requirements-node-tests.txt $node_tests/.requirements
fi
