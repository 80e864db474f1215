"""Files that are no models, and constants whose types, shapes, data or files are not what they say."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from cases import case
from decoder import HIDDEN


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


def scale_gate(model, *nodes):
    """Multiplies every element of the weight by the integers 'huge', which the nodes make."""
    up = next(i for i, node in enumerate(model.graph.node) if "gate" in node.input)
    model.graph.node[up].input[1] = "scaled_gate"
    scaled = [*nodes, helper.make_node("Cast", ["huge"], ["factor"], "factor", to=TensorProto.FLOAT),
              helper.make_node("Mul", ["gate", "factor"], ["scaled_gate"], "scaled")]
    for i, node in enumerate(scaled):
        model.graph.node.insert(up + i, node)


@constants
def largest_integer(model, gate, entries):
    """2^63 - 1, which no float64 holds."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**63 - 1], np.int64), "huge"))
    scale_gate(model)


@constants
def largest_filled(model, gate, entries):
    """The same out of ConstantOfShape."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one_long"))
    value = helper.make_tensor("value", TensorProto.INT64, [1], [2**63 - 1])
    scale_gate(model, helper.make_node("ConstantOfShape", ["one_long"], ["huge"], "filled", value=value))


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
    gate.external_data.add(key="basepath", value="/etc")
    embed = model.graph.initializer[0]
    del embed.external_data[1:]


# External data that leaves the directory, from where a node, a branch or a function holds it.


def outside(name):
    tensor = helper.make_tensor(name, TensorProto.FLOAT, [HIDDEN], bytes(4 * HIDDEN), raw=True)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside")
    return tensor


@case("constants")
def node_outside(d):
    d.node("Constant", [], ["norm0_again"], at="n0", value=outside("norm0_again"))
    d["n0"].input[1] = "norm0_again"


@case("constants")
def branch_outside(d):
    """In the initializers of the branch that is taken."""
    branch = helper.make_graph([helper.make_node("Identity", ["own"], ["norm0_out"])], "branch", [],
                               [helper.make_tensor_value_info("norm0_out", TensorProto.FLOAT, [HIDDEN])],
                               [outside("own")])
    d.constant("yes", np.array(True), at="n0")
    d.node("If", ["yes"], ["norm0_again"], at="n0", then_branch=branch, else_branch=branch)
    d["n0"].input[1] = "norm0_again"


@case("constants")
def function_outside(d):
    d.opsets["local"] = 1
    d.functions.append(helper.make_function("local", "Own", [], ["y"], [
        helper.make_node("Constant", [], ["y"], name="held", value=outside("held"))], [helper.make_opsetid("", 21)]))
    d.node("Own", [], ["norm0_again"], at="n0", domain="local")
    d["n0"].input[1] = "norm0_again"
