//===- Activations.h - Recognising an activation by what it computes -------===//
#ifndef HELIX_PASSES_ACTIVATIONS_H
#define HELIX_PASSES_ACTIVATIONS_H

#include "dialects/Helix/Helix.h"

#include <optional>

namespace helix {

/// An activation of `x`.
struct ActivationOf {
  Activation activation;
  mlir::Value x;
};

/// What elementwise ops from one product on to `value` compute, if that is an activation of the product.
///
/// Exporters write each activation in a dozen ways, with factors in any order and constants folded into one another. So
/// the ops are not matched one by one but evaluated, in f64 at points over their range, and must agree everywhere with
/// the activation's formula to what f32 can tell.
std::optional<ActivationOf> matchActivation(mlir::Value value);

} // namespace helix

#endif // HELIX_PASSES_ACTIVATIONS_H
