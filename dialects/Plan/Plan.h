//===- Plan.h - The plan dialect: everything a user of it includes ---------===//
#ifndef HELIX_DIALECTS_PLAN_PLAN_H
#define HELIX_DIALECTS_PLAN_PLAN_H

#include "dialects/Helix/Helix.h"

#include "mlir/IR/SymbolTable.h"

#include "dialects/Plan/PlanEnums.h.inc"

#include "dialects/Plan/PlanDialect.h.inc"

#define GET_ATTRDEF_CLASSES
#include "dialects/Plan/PlanAttrs.h.inc"

namespace helix::plan {
/// Cost of a command: `x + xPerQuery q + xPerCached s + xPerQueryCached q s`, in bytes of memory traffic and FLOPs; q
/// is the number of used query tokens of the batch, s the cached tokens of the rank per sequence.
struct Cost {
  double bytes = 0, bytesPerQuery = 0, bytesPerCached = 0, bytesPerQueryCached = 0;
  double flops = 0, flopsPerQuery = 0, flopsPerCached = 0, flopsPerQueryCached = 0;
};

/// Bytes of a value with static shape; a truth has one.
int64_t bytesOf(mlir::Type type);
} // namespace helix::plan

#include "dialects/Plan/PlanInterfaces.h.inc"

#define GET_OP_CLASSES
#include "dialects/Plan/PlanOps.h.inc"

#endif // HELIX_DIALECTS_PLAN_PLAN_H
