#!/usr/bin/env bash
# Builds the runtime for aarch64 and runs the tests of its kernels under QEMU. The libraries of that architecture are
# unpacked into build/aarch64/sysroot; only QEMU itself is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/build/aarch64
sysroot=$out/sysroot

packages=(
  libc6 libc6-dev libcrypt1 libcrypt-dev linux-libc-dev libgcc-s1 libgcc-12-dev libstdc++6 libstdc++-12-dev
  libhwy1 libhwy-dev libxxhash0 libxxhash-dev libflatbuffers-dev libgtest-dev libgmock-dev googletest
  libcli11-dev nlohmann-json3-dev libzip4 libzip-dev
)
if ! [ "$(cat "$sysroot/.packages" 2>/dev/null)" = "${packages[*]}" ]; then
  rm -rf "$out/apt" "$sysroot"
  mkdir -p "$out/apt/state/lists/partial" "$out/apt/cache/archives/partial" "$out/apt/debs" "$sysroot"
  touch "$out/apt/status"
  echo 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main' \
    >"$out/apt/sources.list"
  apt=(apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$out/apt/state"
    -o Dir::State::status="$out/apt/status" -o Dir::Cache="$out/apt/cache" -o Dir::Etc::sourcelist="$out/apt/sources.list"
    -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=root)
  "${apt[@]}" update
  (cd "$out/apt/debs" && "${apt[@]}" download "${packages[@]}")
  for deb in "$out"/apt/debs/*.deb; do dpkg -x "$deb" "$sysroot"; done
  echo "${packages[*]}" >"$sysroot/.packages"
fi
if ! command -v qemu-aarch64-static >/dev/null; then
  sudo=
  ((EUID == 0)) || sudo=sudo
  $sudo apt-get update -q
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y --no-install-recommends qemu-user-static
fi

cmake -S . -B "$out/build" -G Ninja --log-level=WARNING -DCMAKE_TOOLCHAIN_FILE="$PWD/cmake/aarch64.cmake" \
  -DHELIX_SYSROOT="$sysroot" -DHELIX_COMPILER=OFF -DCMAKE_BUILD_TYPE=Release
cmake --build "$out/build" --target HelixRuntime helix HelixCpuTests
ctest --test-dir "$out/build/test/unit/Cpu" --output-on-failure --no-tests=error -j "$(nproc)"
