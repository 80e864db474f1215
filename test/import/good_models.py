"""Decoders that import, near the edge of what does."""

import numpy as np
from onnx import TensorProto, helper

from cases import case


@case("good")
def packed(d):
    pass


@case("good")
def no_rope(d):
    d.set("a", do_rotary=0)
    d["a"].input[7] = d["a"].input[8] = ""


@case("good")
def default_scale(d):
    d.set("a", scale=0.0, rotary_interleaved=1)


@case("good")
def positions(d):
    d.inputs.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["b", "t"]))
    d["a"].input[9] = "position_ids"


@case("good")
def lengths_by_shapes(d):
    """seqlens_k and the total computed by a longer way round: (sum * 2 - sum) - 4 / 2 + 1 and past + tokens."""
    d.constant("two", np.array([2], np.int64), at="seqlens64")
    d.node("Mul", ["row_sums", "two"], ["twice"], at="seqlens64")
    d.node("Sub", ["twice", "row_sums"], ["once"], at="seqlens64")
    d.node("Concat", ["two", "two", "one"], ["list"], at="seqlens64", axis=0)
    d.constant("zero", np.array(0, np.int64), at="seqlens64")
    d.node("Gather", ["list", "zero"], ["second"], at="seqlens64")
    d.node("Unsqueeze", ["second", "zero"], ["second_list"], at="seqlens64")
    d["seqlens64"].input[0] = "once"
    d["seqlens64"].input[1] = "second_list"
    d.node("Add", ["seqlens64", "one"], ["plus"], at="seqlens")
    d["seqlens"].input[0] = "plus"
    d.node("Shape", ["past.0.key"], ["past_shape"], at="total64", start=2, end=3)
    d.node("Shape", ["input_ids"], ["ids_shape"], at="total64", start=-1)
    d.node("Add", ["past_shape", "ids_shape"], ["sum"], at="total64")
    d.node("Squeeze", ["sum"], ["scalar_sum"], at="total64")
    d["total"].input[0] = "scalar_sum"


@case("good")
def scaled_logits(d):
    """The logits are not the product itself: Identity and a scale come after it."""
    d["logits"].output[0] = "unscaled"
    d["logits"].name = "/lm_head"
    d.weights["scale"] = np.array(0.5, np.float32)
    d.node("Identity", ["unscaled"], ["same"])
    d.node("Mul", ["scale", "same"], ["logits"])


@case("good")
def half_weights(d):
    """Weights in float16, cast before use; rms norm by its standard name."""
    d.weights["down"] = d.weights["down"].astype(np.float16)
    d.node("Cast", ["down"], ["down32"], at="f", to=TensorProto.FLOAT)
    d["f"].input[1] = "down32"
    d["n0"].op_type = "RMSNormalization"
    d.opsets[""] = 23
