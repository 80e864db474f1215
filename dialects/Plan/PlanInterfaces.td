//===- PlanInterfaces.td - What passes ask of commands ---------------------===//
#ifndef PLAN_INTERFACES_TD
#define PLAN_INTERFACES_TD

include "mlir/IR/OpBase.td"

def Plan_CommandOpInterface : OpInterface<"CommandOpInterface"> {
  let cppNamespace = "::helix::plan";
  let description = [{ An op that becomes one command of the artifact. }];
  let methods = [
    InterfaceMethod<"The stream that it runs on; null before `helix-schedule`.", "::mlir::IntegerAttr",
                    "getStreamAttr">,
    InterfaceMethod<"Sets the stream.", "void", "setStreamAttr", (ins "::mlir::IntegerAttr":$stream)>,
    InterfaceMethod<"A `#plan.place` per result; null before `helix-place`.", "::mlir::ArrayAttr", "getPlacesAttr">,
    InterfaceMethod<"Sets the places of the results.", "void", "setPlacesAttr", (ins "::mlir::ArrayAttr":$places)>,
    InterfaceMethod<"The part of a layer that it belongs to; null if none.", "::helix::PhaseAttr", "getPhaseAttr">,
    InterfaceMethod<[{
        The axis along which it exchanges its operand with other ranks; nothing if it works on its own. Operands and
        results of such a command live in the comm arena.
      }], "std::optional<::helix::Axis>", "getExchangeAxis", (ins), [{}], [{ return std::nullopt; }]>
  ];
}

def Plan_CostOpInterface : OpInterface<"CostOpInterface"> {
  let cppNamespace = "::helix::plan";
  let description = [{ An op whose cost is linear in the query tokens, the cached tokens, and their product. }];
  let methods = [InterfaceMethod<"What it costs, as coefficients.", "::helix::plan::Cost", "getCost">];
}

#endif // PLAN_INTERFACES_TD
