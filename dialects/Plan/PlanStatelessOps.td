//===- PlanStatelessOps.td - Commands of stateless entries -----------------===//
//
// Included by PlanOps.td. What they compute is said at the helix ops of the same names.
//
//===-----------------------------------------------------------------------===//
#ifndef PLAN_STATELESS_OPS_TD
#define PLAN_STATELESS_OPS_TD

def Plan_Truths : RankedTensorOf<[F32, I1]>;

def Plan_DenseAttentionOp : Plan_Command<"dense_attention", [AttrSizedOperandSegments]> {
  let summary = "q, key, value, mask, lengths → y [batch, heads, tokens, value_dim], or scores [.., keys]";
  let description = [{
    The mask is of the four sizes `mask_shape`. Without a value `value_dim` is 0 and the result is the scores at `stage`.
  }];
  let arguments = !con((ins Plan_Floats:$q, Plan_Floats:$key, Optional<Plan_Floats>:$value,
                            Optional<Plan_Truths>:$mask, Optional<Plan_Ids>:$lengths, Plan_Size:$batch,
                            Plan_Size:$heads, Plan_Size:$kv_heads, Plan_Size:$tokens, Plan_Size:$keys,
                            Plan_Size:$key_dim, Plan_NonNegative:$value_dim,
                            OptionalAttr<DenseI64ArrayAttr>:$mask_shape, F64Attr:$scale,
                            OptionalAttr<F64Attr>:$softcap, DefaultValuedAttr<Plan_NonNegative, "0">:$offset,
                            OptionalAttr<Plan_NonNegative>:$left, OptionalAttr<Plan_NonNegative>:$right,
                            OptionalAttr<Helix_ScoreStageAttr>:$stage), common);
  let results = (outs Plan_Floats:$result);
  let assemblyFormat = [{
    $q `,` $key (`value` $value^)? (`mask` $mask^)? (`lengths` $lengths^)? attr-dict
    `:` functional-type(operands, results)
  }];
}

def Plan_RotateOp : Plan_Command<"rotate"> {
  let summary = "x [batch, heads, tokens, dim], cos, sin, positions → y";
  let description = [{
    cos and sin are [rows, half]; without positions `rows` is batch * tokens, and each token has its own.
  }];
  let arguments = !con((ins Plan_Floats:$x, Plan_Floats:$cos, Plan_Floats:$sin, Optional<Plan_Ids>:$positions,
                            Plan_Size:$batch, Plan_Size:$heads, Plan_Size:$tokens, Plan_Size:$dim, Plan_Size:$half,
                            Plan_Size:$rows, UnitAttr:$interleaved), common);
  let results = (outs Plan_Floats:$result);
  let assemblyFormat = [{
    $x `,` $cos `,` $sin (`at` $positions^)? attr-dict `:` functional-type(operands, results)
  }];
}

def Plan_ScatterOp : Plan_Command<"scatter"> {
  let summary = "update [batch, outer, tokens, inner] into cache [batch, outer, capacity, inner] → y, at indices [batch]";
  let arguments = !con((ins Plan_Floats:$update, Plan_Floats:$cache, Optional<Plan_Ids>:$indices, Plan_Size:$batch,
                            Plan_Size:$outer, Plan_Size:$tokens, Plan_Size:$capacity, Plan_Size:$inner,
                            UnitAttr:$circular), common);
  let results = (outs Plan_Floats:$result);
  let assemblyFormat = [{
    $update `into` $cache (`at` $indices^)? attr-dict `:` functional-type(operands, results)
  }];
}

def Plan_TransposeOp : Plan_Command<"transpose"> {
  let summary = "x of shape → y, whose dimension d is dimension permutation[d] of x; up to 8 dimensions";
  let arguments = !con((ins Plan_Floats:$x, DenseI64ArrayAttr:$shape, DenseI64ArrayAttr:$permutation), common);
  let results = (outs Plan_Floats:$result);
  let assemblyFormat = "$x attr-dict `:` functional-type(operands, results)";
}

#endif // PLAN_STATELESS_OPS_TD
