//===- VerifyModel.cpp - helix-verify-model ----------------------------===//
#include "passes/Levels.h"
#include "passes/Passes.h"

using namespace mlir;

namespace helix {
#define GEN_PASS_DEF_VERIFYMODEL
#include "passes/Passes.h.inc"

namespace {

struct VerifyModelPass : impl::VerifyModelBase<VerifyModelPass> {
  void runOnOperation() override {
    if (failed(verifyModelLevel(getOperation())))
      signalPassFailure();
  }
};

} // namespace
} // namespace helix
