//===- PlanEnums.td - Arenas, uses of weights ------------------------------===//
#ifndef PLAN_ENUMS_TD
#define PLAN_ENUMS_TD

include "mlir/IR/EnumAttr.td"
include "dialects/Plan/PlanDialect.td"

class Plan_Enum<string name, string summary, list<I32EnumAttrCase> cases> : I32EnumAttr<name, summary, cases> {
  let cppNamespace = "::helix::plan";
  let genSpecializedAttr = 0;
}

def Plan_Arena : Plan_Enum<"Arena", "where a value's bytes live",
  [I32EnumAttrCase<"Device", 0, "device">, I32EnumAttrCase<"Comm", 1, "comm">]>;

def Plan_WeightUse : Plan_Enum<"WeightUse", "how a weight is read; the runtime packs it for that",
  [I32EnumAttrCase<"Table", 0, "table">, I32EnumAttrCase<"Linear", 1, "linear">,
   I32EnumAttrCase<"Vector", 2, "vector">]>;
def Plan_WeightUseAttr : EnumAttr<Plan_Dialect, Plan_WeightUse, "use"> {
  let assemblyFormat = "`<` $value `>`";
}

#endif // PLAN_ENUMS_TD
