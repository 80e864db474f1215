//===- HelixEnums.td - Axes, views, phases ---------------------------------===//
#ifndef HELIX_ENUMS_TD
#define HELIX_ENUMS_TD

include "mlir/IR/EnumAttr.td"
include "dialects/Helix/HelixDialect.td"

class Helix_Enum<string name, string summary, list<I32EnumAttrCase> cases> : I32EnumAttr<name, summary, cases> {
  let cppNamespace = "::helix";
  let genSpecializedAttr = 0;
}

def Helix_Axis : Helix_Enum<"Axis", "a named axis of the mesh; each belongs to one view",
  [I32EnumAttrCase<"N", 0, "n">, I32EnumAttrCase<"Tpa", 1, "tpa">, I32EnumAttrCase<"Kvp", 2, "kvp">,
   I32EnumAttrCase<"Ep", 3, "ep">, I32EnumAttrCase<"Tpf", 4, "tpf">]>;

def Helix_View : Helix_Enum<"View", "one factoring of the N ranks",
  [I32EnumAttrCase<"Flat", 0, "flat">, I32EnumAttrCase<"Attn", 1, "attn">, I32EnumAttrCase<"Ffn", 2, "ffn">]>;

def Helix_Reduction : Helix_Enum<"Reduction", "how partial values become whole",
  [I32EnumAttrCase<"Sum", 0, "sum">, I32EnumAttrCase<"Lse", 1, "lse">]>;

def Helix_Phase : Helix_Enum<"Phase", "the part of a layer that an op belongs to",
  [I32EnumAttrCase<"Kvp", 0, "kvp">, I32EnumAttrCase<"Tp", 1, "tp">]>;
def Helix_PhaseAttr : EnumAttr<Helix_Dialect, Helix_Phase, "phase"> {
  let assemblyFormat = "`<` $value `>`";
}

def Helix_Activation : Helix_Enum<"Activation", "the non-linearity of an FFN",
  [I32EnumAttrCase<"Silu", 0, "silu">, I32EnumAttrCase<"Gelu", 1, "gelu">, I32EnumAttrCase<"GeluTanh", 2, "gelu_tanh">,
   I32EnumAttrCase<"Relu", 3, "relu">]>;
def Helix_ActivationAttr : EnumAttr<Helix_Dialect, Helix_Activation, "activation"> {
  let assemblyFormat = "`<` $value `>`";
}

def Helix_ZeroPoint : Helix_Enum<"ZeroPoint", "the code that stands for zero in a block of a quantised weight",
  [I32EnumAttrCase<"Middle", 0, "middle">, I32EnumAttrCase<"Zero", 1, "zero">, I32EnumAttrCase<"Packed", 2, "packed">,
   I32EnumAttrCase<"Real", 3, "real">]>;

def Helix_KvGranularity : Helix_Enum<"KvGranularity", "what numbers of a KV cache of codes share a scale",
  [I32EnumAttrCase<"Tensor", 0, "tensor">, I32EnumAttrCase<"TokenHead", 1, "token_head">]>;

def Helix_EntryKind : Helix_Enum<"EntryKind", "what a function of the model is called for",
  [I32EnumAttrCase<"Decode", 0, "decode">, I32EnumAttrCase<"Prefill", 1, "prefill">,
   I32EnumAttrCase<"Stateless", 2, "stateless">]>;

def Helix_LogitRows : Helix_Enum<"LogitRows", "the tokens whose logits an entry returns",
  [I32EnumAttrCase<"Last", 0, "last">, I32EnumAttrCase<"All", 1, "all">]>;

def Helix_ScoreStage : Helix_Enum<"ScoreStage", "how far the scores of an attention have come",
  [I32EnumAttrCase<"Scaled", 0, "scaled">, I32EnumAttrCase<"Capped", 1, "capped">,
   I32EnumAttrCase<"Masked", 2, "masked">, I32EnumAttrCase<"Probabilities", 3, "probabilities">]>;
def Helix_ScoreStageAttr : EnumAttr<Helix_Dialect, Helix_ScoreStage, "stage"> {
  let assemblyFormat = "`<` $value `>`";
}

def Helix_Statistic : Helix_Enum<"Statistic", "one number about a row",
  [I32EnumAttrCase<"Mean", 0, "mean">, I32EnumAttrCase<"InverseDeviation", 1, "inverse_deviation">]>;
def Helix_StatisticAttr : EnumAttr<Helix_Dialect, Helix_Statistic, "statistic"> {
  let assemblyFormat = "`<` $value `>`";
}

#endif // HELIX_ENUMS_TD
