//===- PlanDialect.td - The plan dialect -----------------------------------===//
#ifndef PLAN_DIALECT_TD
#define PLAN_DIALECT_TD

include "mlir/IR/OpBase.td"

def Plan_Dialect : Dialect {
  let name = "plan";
  let cppNamespace = "::helix::plan";
  let summary = "What one rank does: a straight line of commands over values in two arenas";
  let description = [{
    A module of this dialect is the artifact, one to one. Weights, images and kernels are symbols of the module;
    each `plan.entry` is a straight line of commands, the same on every rank. Values are bytes: a tensor type says
    how many and of what element, the shape that a command sees is in the command's attributes, so a reshape is no
    command. Passes fill in the rest: `helix-schedule` the `stream` of every command, `helix-place` the `places` of
    its results and the sizes of the entry's arenas.

    The name of the ONNX node that a command came from is its location.
  }];
  let useDefaultAttributePrinterParser = 1;
  let dependentDialects = ["::helix::HelixDialect"];
  let extraClassDeclaration = [{ void registerAttributes(); }];
}

#endif // PLAN_DIALECT_TD
