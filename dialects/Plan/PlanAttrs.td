//===- PlanAttrs.td - Places and axes --------------------------------------===//
#ifndef PLAN_ATTRS_TD
#define PLAN_ATTRS_TD

include "mlir/IR/AttrTypeBase.td"
include "dialects/Helix/HelixAttrs.td"
include "dialects/Plan/PlanEnums.td"

def Plan_PlaceAttr : AttrDef<Plan_Dialect, "Place"> {
  let mnemonic = "place";
  let summary = "Where a value lives: bytes from the start of an arena";
  let parameters = (ins "::helix::plan::Arena":$arena, "int64_t":$offset);
  let assemblyFormat = "`<` $arena `,` $offset `>`";
}

def Plan_AxisAttr : EnumAttr<Plan_Dialect, Helix_Axis, "axis"> {
  let cppNamespace = "::helix::plan";
  let assemblyFormat = "`<` $value `>`";
}

#endif // PLAN_ATTRS_TD
