# The commands of the repository; `make help` lists them. PRESET is release, debug or asan-ubsan.
PRESET ?= release
BUILD := build/$(PRESET)

.DEFAULT_GOAL := help
.PHONY: help setup build demo check check-aarch64 conformance reproduce bench-cpu bench-dtypes bench-gpu bench-hopb docs format

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## install what Helix builds and tests with (Debian 12)
	@scripts/setup.sh

build: setup ## set up and build (PRESET=release|debug|asan-ubsan)
	@cmake --preset $(PRESET) --log-level=WARNING
	@cmake --build --preset $(PRESET)

demo: build ## compile a small Llama for four ranks, decode, compare with ONNX Runtime
	@build/venv/bin/python examples/demo.py --bin $(BUILD)/bin

check: build ## set up, build, pass every test (PRESET=release|debug|asan-ubsan)
	@scripts/check.sh $(BUILD)

conformance: build ## the node tests of the onnx package: import, compile, run
	@scripts/conformance.sh $(BUILD)

reproduce: build ## the numbers of the Helix paper, from compiled plans on the simulator
	@build/venv/bin/python bench/reproduce.py --bin $(BUILD)/bin

bench-dtypes: build ## bytes and error of the element types of weights and KV caches
	@build/venv/bin/python bench/dtypes.py --bin $(BUILD)/bin

bench-hopb: build ## HOP-B measured on this machine beside what the simulator predicts
	@build/venv/bin/python bench/hopb.py --bin $(BUILD)/bin

bench-cpu: build ## kernels and whole steps beside this machine's memory and ONNX Runtime
	@build/venv/bin/python bench/cpu.py --bin $(BUILD)/bin

bench-gpu: build ## the CUDA kernels alone beside the copy bandwidth of this machine's GPU
	@build/venv/bin/python bench/gpu.py --bin $(BUILD)/bin

check-aarch64: ## the runtime cross-compiled for aarch64, its kernels' tests under QEMU
	@scripts/aarch64.sh

docs: build ## regenerate the reference pages of dialects and passes in docs/reference
	@cmake --build --preset $(PRESET) --target helix-docs

format: ## format the sources
	@git ls-files '*.cpp' '*.h' | xargs clang-format-22 -i

.PHONY: fuzz
SECONDS ?= 600
fuzz: setup ## fuzz the importer under sanitizers for SECONDS (default 600); findings stay in build/fuzz
	@scripts/fuzz.sh $(SECONDS)
