"""Graphs that are none, or not a decoder's: shapes, caches, inputs, outputs, names, order."""

import numpy as np
from onnx import TensorProto, helper

from cases import case
from decoder import HEADS, HIDDEN, KV_HEADS, MICROSOFT


# Shapes and caches.


@case("shapes")
def product(d):
    d.weights["gate"] = d.weights["gate"][:-1]


@case("shapes")
def product_rank(d):
    d.weights["gate"] = d.weights["gate"][None]


@case("shapes")
def scale(d):
    d.weights["norm0"] = np.ones(HIDDEN + 1, np.float32)


@case("shapes")
def table(d):
    d.weights["embed"] = np.ones(16, np.float32)


@case("shapes")
def addition(d):
    d["gu"].input[1] = "n1"


@case("shapes")
def bias(d):
    d.weights["bias"] = np.ones(HIDDEN + 1, np.float32)
    d.node("Add", ["n2", "bias"], ["biased"])


@case("shapes")
def skip(d):
    d["n1"].input[1] = "packed"


@case("shapes")
def packed_width(d):
    d.weights["qkv"] = d.weights["qkv"][:, :-1]


@case("shapes")
def rotary(d):
    d.weights["sin"] = d.weights["sin"][:-1]


@case("shapes")
def rotary_width(d):
    d.weights["cos"] = d.weights["sin"] = np.ones((64, 3), np.float32)


@case("shapes")
def cache_heads(d):
    d.value("past.0.value").type.tensor_type.shape.dim[1].dim_value = KV_HEADS + 1


@case("shapes")
def cache_width(d):
    d.value("past.0.key").type.tensor_type.shape.dim[3].dim_value = 5


@case("shapes")
def cache_shared(d):
    d.node("GroupQueryAttention", list(d["a"].input), ["again", "k2", "v2"], domain=MICROSOFT, num_heads=2,
                  kv_num_heads=1)


@case("shapes")
def cache_swapped(d):
    d["a"].input[3], d["a"].input[4] = "x0", "past.0.key"


# Inputs and outputs.


@case("signature")
def static_tokens(d):
    d.value("input_ids").type.tensor_type.shape.dim[1].dim_value = 7


@case("signature")
def static_batch(d):
    d.value("attention_mask").type.tensor_type.shape.dim[0].dim_value = 7


@case("signature")
def static_past(d):
    d.value("past.0.key").type.tensor_type.shape.dim[2].dim_value = 7


@case("signature")
def narrow_ids(d):
    d.value("input_ids").type.tensor_type.elem_type = TensorProto.INT32


@case("signature")
def half_cache(d):
    d.value("past.0.key").type.tensor_type.elem_type = TensorProto.FLOAT16


@case("signature")
def extra_input(d):
    d.inputs.append(helper.make_tensor_value_info("beam", TensorProto.INT64, ["b"]))


@case("signature")
def sequence_input(d):
    d.inputs[0] = helper.make_tensor_sequence_value_info("input_ids", TensorProto.INT64, ["b", "t"])


@case("signature")
def extra_output(d):
    d.outputs.append(helper.make_tensor_value_info("n2", TensorProto.FLOAT, ["b", "t", HIDDEN]))


@case("signature")
def no_logits(d):
    del d.outputs[0]


@case("signature")
def no_present(d):
    del d.outputs[2]


@case("signature")
def swapped_layers(d):
    """A second layer whose cache comes last among the inputs and first among the outputs."""
    for part in ("key", "value"):
        shape = ["b", KV_HEADS, "p", "d"]
        d.inputs.append(helper.make_tensor_value_info(f"past.1.{part}", TensorProto.FLOAT, shape))
        d.outputs.insert(1, helper.make_tensor_value_info(f"present.1.{part}", TensorProto.FLOAT, shape))
    operands = list(d["a"].input)
    operands[3:5] = ["past.1.key", "past.1.value"]
    d.node("GroupQueryAttention", operands, ["a1", "present.1.key", "present.1.value"], domain=MICROSOFT,
           num_heads=HEADS, kv_num_heads=KV_HEADS, do_rotary=1)


@case("signature")
def ids_as_logits(d):
    d["logits"].output[0] = "other"
    d.node("Identity", ["input_ids"], ["logits"])


# The graph.


@case("graph")
def cycle(d):
    d["g"].input[0] = "act"


@case("graph")
def self_cycle(d):
    d["g"].input[0] = "g"


@case("graph")
def undefined(d):
    d["g"].input[0] = "nowhere"


@case("graph")
def undefined_output(d):
    d.outputs.append(helper.make_tensor_value_info("nowhere", TensorProto.FLOAT, ["b"]))


@case("graph")
def value_twice(d):
    d["u"].output[0] = "g"


@case("graph")
def input_twice(d):
    d.inputs.append(d.inputs[0])


@case("graph")
def value_is_weight(d):
    d["g"].output[0] = "gate"


@case("graph")
def weight_twice(d):
    model, data = d.model()
    model.graph.initializer.append(model.graph.initializer[0])
    return model, data


@case("graph")
def weight_unnamed(d):
    model, data = d.model()
    model.graph.initializer[0].name = ""
    return model, data


@case("graph")
def unknown_op(d):
    d["sg"].op_type = "Hardmax"


@case("graph")
def known_on_constants(d):
    d["sg"].op_type = "Cos"


@case("graph")
def unknown_domain_op(d):
    d["sg"].op_type, d["sg"].domain = "MoE", MICROSOFT


@case("graph")
def no_domain(d):
    del d.opsets[MICROSOFT]


@case("graph")
def old_opset(d):
    d.opsets[""] = 11


@case("graph")
def new_opset(d):
    d.opsets[""] = 99


@case("graph")
def new_contrib(d):
    d.opsets[MICROSOFT] = 2


@case("graph")
def opset_twice(d):
    d.opsets["ai.onnx"] = 21


@case("graph")
def new_ir(d):
    d.ir_version = 99


@case("graph")
def loop(d):
    d.node("Loop", ["", "", "x0"], ["y"], body=helper.make_graph([], "body", [], []))


@case("graph")
def scan(d):
    d.node("Scan", ["x0"], ["y"], body=helper.make_graph([], "body", [], []), num_scan_inputs=1)


@case("graph")
def sparse(d):
    model, data = d.model()
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    return model, data


@case("graph")
def to_half(d):
    d.node("Cast", ["n2"], ["half"], to=TensorProto.FLOAT16)


@case("graph")
def weight_to_half(d):
    d.node("Cast", ["gate"], ["half"], to=TensorProto.FLOAT16)


@case("graph")
def constant_without_value(d):
    d.node("Constant", [], ["nothing"])


@case("graph")
def long_name(d):
    d["sg"].op_type = "Hardmax\n"
    d["sg"].name = "a\n\x1b[31m" + "x" * 1000
