//===- VerifySpmd.cpp - helix-verify-spmd ------------------------------===//
#include "passes/Levels.h"
#include "passes/Passes.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_VERIFYSPMD
#include "passes/Passes.h.inc"

namespace {

struct VerifySpmdPass : impl::VerifySpmdBase<VerifySpmdPass> {
  void runOnOperation() override {
    if (failed(verifySpmdLevel(getOperation())))
      signalPassFailure();
  }
};

} // namespace
} // namespace helix
