"""Writes the small models of one group of tests: write_models.py GROUP DIRECTORY makes DIRECTORY/<case>/model.onnx."""

import os
import sys

import numpy as np
from onnx import TensorProto, helper

import structure_models  # noqa: F401, for its cases
from cases import GROUPS, case
from decoder import HEADS, HIDDEN, KV_HEADS, MICROSOFT, Decoder, write


def alter_attributes(group, node, **cases):
    for name, attributes in cases.items():

        def alter(d, attributes=attributes):
            d.set(node, **attributes)

        alter.__name__ = name
        case(group)(alter)


# What imports.


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


# Attributes.

alter_attributes(
    "attributes", "a",
    softcap={"softcap": -30.0},
    window={"local_window_size": 0},
    smooth={"smooth_softmax": 1},
    quantised={"k_quant_type": "PER_TENSOR"},
    bits={"kv_cache_bit_width": 8},
    qk_output={"qk_output": 1},
    not_causal={"causal": 0},
    unknown={"surprise": 1},
    wrong_type={"num_heads": 2.0},
    heads={"num_heads": 3, "kv_num_heads": 2},
    no_heads={"num_heads": 0},
    negative_heads={"kv_num_heads": -1},
    huge_heads={"num_heads": 2**62, "kv_num_heads": 2**62},
    nan_scale={"scale": float("nan")},
)
alter_attributes("attributes", "n0", axis={"axis": 1}, stash={"stash_type": 10}, epsilon={"epsilon": -1.0})


@case("attributes")
def missing(d):
    del d["a"].attribute[[a.name for a in d["a"].attribute].index("num_heads")]


@case("attributes")
def twice(d):
    d["a"].attribute.append(d["a"].attribute[0])


@case("attributes")
def reference(d):
    d["a"].attribute[0].ref_attr_name = "n"


# Operands and results.

for _index, _name in [(10, "attention_bias"), (11, "head_sink"), (12, "k_scale"), (13, "v_scale"),
                      (14, "q_norm_weight"), (15, "k_norm_weight"), (16, "query_seqlens")]:

    def _operand(d, index=_index):
        d["a"].input.extend([""] * (index + 1 - len(d["a"].input)))
        d["a"].input[index] = "norm0"

    _operand.__name__ = _name
    case("operands")(_operand)


@case("operands")
def skip_bias(d):
    d["n1"].input.append("x0")


@case("operands")
def qk_result(d):
    d["a"].output.append("qk")


@case("operands")
def mean_result(d):
    d["n1"].output[1] = "mean"


@case("operands")
def dynamic_product(d):
    d["g"].input[1] = "n1"


@case("operands")
def ids_in_product(d):
    d["g"].input[0] = "input_ids"


@case("operands")
def no_ids_in_gather(d):
    d["x0"].input[1] = "attention_mask"


@case("operands")
def no_past(d):
    d["a"].input[3] = ""


@case("operands")
def own_positions(d):
    d["a"].input[9] = "seqlens"


@case("operands")
def mask_in_add(d):
    d.node("Add", ["attention_mask", "n2"], ["masks"])


@case("operands")
def too_few(d):
    del d["g"].input[1]


@case("operands")
def too_many(d):
    d["sg"].input.append("g")


@case("operands")
def no_result(d):
    d.node("Identity", ["x0"], ["x"])
    del d["x"].output[:]


# Lengths.


@case("lengths")
def total_as_seqlens(d):
    d["seqlens"].input[0] = "row_sums"


@case("lengths")
def seqlens_by_shape(d):
    d.node("Shape", ["attention_mask"], ["rows"], at="seqlens64", start=1)
    d["seqlens64"].input[0] = "rows"


@case("lengths")
def constant_total(d):
    d.constant("hundred", np.array(100, np.int64), at="total")
    d["total"].input[0] = "hundred"


@case("lengths")
def squared(d):
    d.node("Mul", ["row_sums", "row_sums"], ["square"], at="seqlens64")


@case("lengths")
def halved(d):
    d.node("Div", ["row_sums", "one"], ["half"], at="seqlens64")


@case("lengths")
def batch_axis(d):
    d.constant("zeros", np.array([0], np.int64), at="row_sums")
    d["row_sums"].input[1] = "zeros"


@case("lengths")
def sum_all(d):
    del d["row_sums"].input[1]


@case("lengths")
def overflow(d):
    d.constant("large", np.array([2**62], np.int64), at="seqlens64")
    d.node("Mul", ["large", "large"], ["larger"], at="seqlens64")


@case("lengths")
def narrow(d):
    d.constant("large", np.array([2**40], np.int64), at="seqlens64")
    d.node("Cast", ["large"], ["narrowed"], at="seqlens64", to=TensorProto.INT32)


@case("lengths")
def zero_divisor(d):
    d.constant("zero", np.array([0], np.int64), at="seqlens64")
    d.node("Div", ["one", "zero"], ["infinite"], at="seqlens64")


@case("lengths")
def gather_out(d):
    d.constant("two", np.array(2, np.int64), at="total64")
    d["total64"].input[1] = "two"


@case("lengths")
def doubling(d):
    """Concat of a value with itself, 60 times."""
    last = "one"
    for i in range(60):
        d.node("Concat", [last, last], [f"c{i}"], at="seqlens64", axis=0)
        last = f"c{i}"


@case("lengths")
def outer(d):
    """A column plus a row of 300 numbers each."""
    d.constant("row", np.ones((1, 300), np.int64), at="seqlens64")
    d.constant("column", np.ones((300, 1), np.int64), at="seqlens64")
    d.node("Add", ["row", "column"], ["table"], at="seqlens64")


@case("lengths")
def deep(d):
    last = "one"
    d.constant("zero", np.array(0, np.int64), at="seqlens64")
    for i in range(9):
        d.node("Unsqueeze", [last, "zero"], [f"u{i}"], at="seqlens64")
        last = f"u{i}"


@case("lengths")
def bad_squeeze(d):
    d.constant("five", np.array([5], np.int64), at="seqlens64")
    d.node("Squeeze", ["one", "five"], ["squeezed"], at="seqlens64")


@case("lengths")
def unbroadcastable(d):
    d.constant("three", np.ones(3, np.int64), at="seqlens64")
    d.node("Add", ["three", "mask_shape"], ["five"], at="total64")


@case("lengths")
def unknown_width(d):
    d.node("Shape", ["past.0.key"], ["past_shape"])
    d.node("Add", ["past_shape", "one"], ["sizes"])


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


# Files that are no models.


@case("files")
def empty(d):
    return b"", b""


@case("files")
def text(d):
    return b"<html>not found</html>\n", b""


@case("files")
def truncated(d):
    model, data = d.model()
    return model.SerializeToString()[:-100], data


@case("files")
def no_graph(d):
    model, data = d.model()
    model.ClearField("graph")
    return model, data


@case("files")
def nested(d):
    """A graph in an attribute in a graph in an attribute ..., 500 deep."""
    graph = helper.make_graph([], "g", [], []).SerializeToString()

    def field(number, payload):
        size, length = len(payload), b""
        while size >= 128:
            length += bytes([size & 127 | 128])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + payload

    for _ in range(500):
        graph = field(1, field(5, field(6, graph)))
    return field(7, graph), b""


# Constants: their types, shapes, data and files.


def constants(function):
    """Registers a case that alters the initializer 'gate', or all of the model."""

    def alter(d):
        model, data = d.model()
        gate = next(t for t in model.graph.initializer if t.name == "gate")
        result = function(model, gate, {e.key: e for e in gate.external_data})
        return model, data if result is None else result

    alter.__name__ = function.__name__
    return case("constants")(alter)


def set_key(function_name, key, value):
    def alter(model, gate, entries):
        entries[key].value = value

    alter.__name__ = function_name
    constants(alter)


set_key("absolute", "location", "/etc/hostname")
set_key("parent", "location", "../outside")
set_key("hidden_parent", "location", "x/../../outside")
set_key("nowhere", "location", "nowhere.data")
set_key("empty_location", "location", "")
set_key("nul", "location", "model.onnx.data\0.png")
set_key("folder", "location", "sub")
set_key("link_out", "location", "link")
set_key("pipe", "location", "pipe")
set_key("device", "location", "zero")
set_key("negative_offset", "offset", "-4")
set_key("spaced_offset", "offset", " 4")
set_key("hex_offset", "offset", "0x10")
set_key("huge_offset", "offset", str(2**63))
set_key("overflowing_offset", "offset", str(2**63 - 1))
set_key("late_offset", "offset", str(10**6))
set_key("negative_length", "length", "-384")
set_key("short_length", "length", "380")
set_key("long_length", "length", "388")
set_key("huge_length", "length", str(2**64))


@constants
def unknown_key(model, gate, entries):
    gate.external_data.add(key="url", value="http://example.com")


@constants
def repeated_key(model, gate, entries):
    gate.external_data.add(key="offset", value="0")


@constants
def no_location(model, gate, entries):
    gate.external_data.remove(entries["location"])


@constants
def also_inline(model, gate, entries):
    gate.raw_data = bytes(8 * 12 * 4)


@constants
def not_external(model, gate, entries):
    gate.data_location = TensorProto.DEFAULT


@constants
def truncated_data(model, gate, entries):
    return b"\0" * 100


@constants
def double(model, gate, entries):
    gate.data_type = TensorProto.DOUBLE


@constants
def unknown_type(model, gate, entries):
    gate.data_type = 12345


@constants
def negative_dim(model, gate, entries):
    gate.dims[0] = -8


@constants
def zero_dim(model, gate, entries):
    gate.dims[0] = 0


@constants
def huge_dim(model, gate, entries):
    gate.dims[0] = 2**40


@constants
def huge_product(model, gate, entries):
    del gate.dims[:]
    gate.dims.extend([2**30] * 4)


@constants
def huge_bytes(model, gate, entries):
    del gate.dims[:]
    gate.dims.extend([2**30, 2**30, 4])


@constants
def many_dims(model, gate, entries):
    del gate.dims[:]
    gate.dims.extend([1] * 9)


@constants
def short_inline(model, gate, entries):
    gate.ClearField("external_data")
    gate.data_location = TensorProto.DEFAULT
    gate.raw_data = bytes(8)


@constants
def short_floats(model, gate, entries):
    gate.ClearField("external_data")
    gate.data_location = TensorProto.DEFAULT
    gate.float_data.extend([1.0] * 95)


@constants
def segments(model, gate, entries):
    gate.segment.begin = 0
    gate.segment.end = 1


@constants
def inline_gate(model, gate, entries):
    """Weights inside the protobuf: one as raw bytes, two as numbers."""
    gate.ClearField("external_data")
    gate.data_location = TensorProto.DEFAULT
    gate.raw_data = np.arange(96, dtype=np.float32).tobytes()
    up, norm = (next(t for t in model.graph.initializer if t.name == name) for name in ("up", "norm0"))
    for tensor in (up, norm):
        tensor.ClearField("external_data")
        tensor.data_location = TensorProto.DEFAULT
    up.data_type = TensorProto.BFLOAT16
    up.int32_data.extend([0x3F80] * 96)
    norm.float_data.extend([float(i) for i in range(HIDDEN)])


@constants
def fine(model, gate, entries):
    """Keys that are known and change nothing, and an offset and a length that are left out."""
    gate.external_data.add(key="checksum", value="0" * 40)
    embed = model.graph.initializer[0]
    del embed.external_data[1:]


def main(group, directory):
    for function in GROUPS[group]:
        decoder = Decoder(packed=function.__name__ != "no_rope")
        written = function(decoder) or decoder.model()
        write(os.path.join(directory, function.__name__), *written)


if __name__ == "__main__":
    main(*sys.argv[1:])
