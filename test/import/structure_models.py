"""Decoders written in another structure: functions, branches, an order of their own, nodes that change nothing."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from cases import case
from decoder import HIDDEN, POSITIONS

OPSETS = [helper.make_opsetid("", 21)]


def use_local(d):
    d.opsets["local"] = 1


def add_function(d, name, inputs, outputs, nodes, attributes=(), defaults=(), opsets=OPSETS):
    use_local(d)
    d.functions.append(helper.make_function("local", name, inputs, outputs, nodes, opsets, list(attributes),
                                            list(defaults)))


def silu(d):
    """SiLU as a function that calls a function for its sigmoid; the two nodes of the decoder become one call."""
    add_function(d, "Sig", ["x"], ["y"], [helper.make_node("Sigmoid", ["x"], ["y"], name="sigmoid")])
    add_function(d, "Silu", ["x"], ["y"],
                 [helper.make_node("Sig", ["x"], ["s"], domain="local", name="call"),
                  helper.make_node("Mul", ["x", "s"], ["y"], name="mul")],
                 opsets=OPSETS + [helper.make_opsetid("local", 1)])
    d.nodes.remove(d["sg"])
    node = d["act"]
    del node.input[:]
    node.input.append("g")
    node.op_type, node.domain = "Silu", "local"


def reference(node, name, to, kind):
    attribute = node.attribute.add()
    attribute.name, attribute.ref_attr_name, attribute.type = name, to, kind
    return node


# The same module as without.


@case("structure")
def plain(d):
    pass


@case("structure")
def function(d):
    silu(d)


@case("structure")
def function_attribute(d):
    """A norm whose epsilon comes from the call, its axis from the function's default, and stash_type from neither."""
    node = helper.make_node("SimplifiedLayerNormalization", ["x", "w"], ["y"], name="norm")
    reference(node, "epsilon", "eps", onnx.AttributeProto.FLOAT)
    reference(node, "axis", "dim", onnx.AttributeProto.INT)
    reference(node, "stash_type", "stash", onnx.AttributeProto.INT)
    add_function(d, "Norm", ["x", "w"], ["y"], [node], ["eps", "stash"], [helper.make_attribute("dim", -1)])
    del d["n0"].attribute[:]
    d.set("n0", eps=0.5)
    d["n0"].op_type, d["n0"].domain = "Norm", "local"


@case("structure")
def function_passes(d):
    """A function one of whose results is an operand as it is, and one is not taken."""
    add_function(d, "Pass", ["x"], ["x", "unused"], [helper.make_node("Sigmoid", ["x"], ["unused"])])
    d.node("Pass", ["g"], ["g2"], at="sg", domain="local")
    d["sg"].input[0] = "g2"
    d["act"].input[0] = "g2"


@case("structure")
def shuffled(d):
    d.nodes.reverse()


def branch(output, value, kind):
    """A branch that makes `value` by a Constant, or gives it from an initializer."""
    tensor = onnx.numpy_helper.from_array(value, f"{output}_{kind}")
    info = [helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, value.shape)]
    if kind == "constant":
        return helper.make_graph([helper.make_node("Constant", [], [tensor.name], value=tensor)], kind, [], info)
    return helper.make_graph([], kind, [], info, [tensor])


def choose_tables(d, name, condition):
    """Rotary tables that the condition chooses, the right ones in the else branch."""
    right = d.weights.pop(name)
    d.node("If", [condition], [name], at="a", then_branch=branch(name, right * 3, "constant"),
           else_branch=branch(name, right, "initializer"))


@case("structure")
def branch_on_length(d):
    """Tables for contexts of up to 40 tokens and for longer ones, as LongRoPE has them."""
    d.constant("original", np.array(40, np.int64), at="a")
    d.node("Greater", ["total64", "original"], ["is_long"], at="a")
    choose_tables(d, "cos", "is_long")


@case("structure")
def branch_on_constant(d):
    d.constant("never", np.array([False]), at="a")
    choose_tables(d, "cos", "never")
    choose_tables(d, "sin", "never")


@case("structure")
def branch_captures(d):
    """A branch that reads values of the graph around it and calls a function."""
    silu(d)
    call = d["act"]
    d.nodes.remove(call)
    inner = helper.make_node("Silu", ["g"], ["inner"], domain="local", name="/act")
    info = [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)]
    same = helper.make_node("Identity", ["u"], ["inner"])
    d.constant("always", np.array(True), at="gu")
    d.node("If", ["always"], ["act"], at="gu", then_branch=helper.make_graph([inner], "then", [], info),
           else_branch=helper.make_graph([same], "else", [], info))


@case("structure")
def no_ops(d):
    """Identity, Dropout, Cast and CastLike where they change nothing."""
    d.constant("ratio", np.array(0.5, np.float32), at="g")
    d.constant("training", np.array(False), at="g")
    d.node("Dropout", ["n1", "ratio", "training"], ["dropped"], at="g")
    d.node("Identity", ["dropped"], ["same"], at="g")
    d.node("Cast", ["same"], ["cast"], at="g", to=TensorProto.FLOAT)
    d.node("CastLike", ["cast", "gate"], ["alike"], at="g")
    d["g"].input[0] = d["u"].input[0] = "alike"
    d.node("Identity", ["cos"], ["cos_same"], at="a")
    d["a"].input[7] = "cos_same"


@case("structure")
def constant_forms(d):
    """Every form that a Constant node has for numbers."""
    d.nodes.remove(d["one"])
    d.nodes.insert(0, helper.make_node("Constant", [], ["one"], name="/one", value_ints=[1]))
    d.nodes.remove(d["scalar_one"])
    d.nodes.insert(0, helper.make_node("Constant", [], ["scalar_one"], name="/scalar_one", value_int=1))


@case("structure")
def oldest_opset(d):
    d.opsets[""] = 13


@case("structure")
def swapped_lengths(d):
    """The total by formulas that are not lists: a sum of comparisons, a range, a slice."""
    d.node("Shape", ["input_ids"], ["ids_shape"], at="total64")
    d.node("Gather", ["ids_shape", "scalar_one"], ["tokens"], at="total64", axis=0)
    d.node("Shape", ["past.0.key"], ["past_length"], at="total64", start=2, end=3)
    d.node("Squeeze", ["past_length"], ["past_scalar"], at="total64")
    d.node("Add", ["tokens", "past_scalar"], ["sum"], at="total64")
    d.node("Range", ["past_scalar", "sum", "scalar_one"], ["positions"], at="total64")
    d.constant("minus_one", np.array([-1], np.int64), at="total64")
    d.constant("far", np.array([2**63 - 1], np.int64), at="total64")
    d.node("Slice", ["positions", "minus_one", "far"], ["last"], at="total64")
    d.node("Add", ["last", "one"], ["total_list"], at="total64")
    d.constant("hundred", np.array([POSITIONS + 1], np.int64), at="total64")
    d.node("Less", ["total_list", "hundred"], ["fits"], at="total64")
    d.node("Where", ["fits", "total_list", "one"], ["chosen"], at="total64")
    d["total"].input[0] = "chosen"


@case("structure")
def computed_constants(d):
    """A norm's scale and tables that are computed from other constants."""
    norm, cos = d.weights.pop("norm0"), d.weights["cos"]
    d.weights["half_norm"] = norm / 2
    d.weights["two"] = np.array([2], np.float32)
    d.node("Mul", ["half_norm", "two"], ["norm0"], at="n0")
    d.weights["cos_wide"] = np.repeat(cos.T[None], 2, 0)
    d.weights.pop("cos")
    d.constant("start", np.array([1], np.int64), at="a")
    d.constant("end", np.array([2], np.int64), at="a")
    d.constant("axis", np.array([0], np.int64), at="a")
    d.node("Slice", ["cos_wide", "start", "end", "axis"], ["cos_slice"], at="a")
    d.node("Squeeze", ["cos_slice", "axis"], ["cos_turned"], at="a")
    d.node("Mul", ["cos_turned", "two"], ["cos_twice"], at="a")
    d.constant("shape", np.array([-1, POSITIONS], np.int64), at="a")
    d.node("Reshape", ["cos_twice", "shape"], ["cos_shaped"], at="a")
    d.node("Div", ["cos_shaped", "two"], ["cos_whole"], at="a")
    d.constant("order", np.arange(POSITIONS), at="a")
    d.node("Gather", ["cos_whole", "order"], ["cos_gathered"], at="a", axis=1)
    d.node("Unsqueeze", ["cos_gathered", "axis"], ["cos_three"], at="a")
    d.node("Transpose", ["cos_three"], ["cos_flipped"], at="a", perm=[0, 2, 1])
    d.node("Squeeze", ["cos_flipped"], ["cos"], at="a")


# What cannot be had.


@case("structure-refused")
def recursion(d):
    add_function(d, "F", ["x"], ["y"], [helper.make_node("F", ["x"], ["y"], domain="local")],
                 opsets=OPSETS + [helper.make_opsetid("local", 1)])
    d["sg"].op_type, d["sg"].domain = "F", "local"


@case("structure-refused")
def deep(d):
    """Forty functions, each of which calls the next."""
    opsets = OPSETS + [helper.make_opsetid("local", 1)]
    for i in range(40):
        add_function(d, f"F{i}", ["x"], ["y"], [helper.make_node(f"F{i + 1}", ["x"], ["y"], domain="local")],
                     opsets=opsets)
    add_function(d, "F40", ["x"], ["y"], [helper.make_node("Sigmoid", ["x"], ["y"])])
    d["sg"].op_type, d["sg"].domain = "F0", "local"


@case("structure-refused")
def doubling(d):
    """Thirty functions, each of which calls the next twice: 2^30 nodes."""
    opsets = OPSETS + [helper.make_opsetid("local", 1)]
    for i in range(30):
        calls = [helper.make_node(f"F{i + 1}", [x], [y], domain="local") for x, y in (("x", "z"), ("z", "y"))]
        add_function(d, f"F{i}", ["x"], ["y"], calls, opsets=opsets)
    add_function(d, "F30", ["x"], ["y"], [helper.make_node("Sigmoid", ["x"], ["y"])])
    d["sg"].op_type, d["sg"].domain = "F0", "local"


@case("structure-refused")
def heavy(d):
    """A function of a megabyte, called two thousand times."""
    value = onnx.numpy_helper.from_array(np.zeros(1 << 18, np.float32), "c")
    add_function(d, "F", ["x"], ["y"], [helper.make_node("Constant", [], ["c"], value=value),
                                        helper.make_node("Identity", ["x"], ["y"])])
    for i in range(2000):
        d.node("F", ["x0"], [f"f{i}"], domain="local")


@case("structure-refused")
def function_twice(d):
    for _ in range(2):
        add_function(d, "F", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])])


@case("structure-refused")
def function_operands(d):
    silu(d)
    d["act"].input.append("u")


@case("structure-refused")
def function_surprise(d):
    silu(d)
    d.set("act", surprise=1)


@case("structure-refused")
def function_cycle(d):
    add_function(d, "F", ["x"], ["y"], [helper.make_node("Mul", ["x", "y"], ["y"], name="mul")])
    d["sg"].op_type, d["sg"].domain = "F", "local"


@case("structure-refused")
def function_domain(d):
    add_function(d, "F", ["x"], ["y"], [helper.make_node("Silu", ["x"], ["y"], domain="elsewhere", name="silu")])


@case("structure-refused")
def branch_unknown(d):
    """Chosen by the length: with the context of 64 both branches are taken at some time."""
    branch_on_length(d)


@case("structure-refused")
def branch_on_ids(d):
    choose_tables(d, "cos", "input_ids")


@case("structure-refused")
def branch_results(d):
    branch_on_constant(d)
    d["cos"].output.append("more")


@case("structure-refused")
def branch_undefined(d):
    branch_on_constant(d)
    graph = next(a for a in d["cos"].attribute if a.name == "else_branch").g
    graph.output[0].name = "nowhere"


@case("structure-refused")
def branch_reads_nothing(d):
    branch_on_constant(d)
    graph = next(a for a in d["cos"].attribute if a.name == "else_branch").g
    graph.node.append(helper.make_node("Identity", ["nowhere"], ["somewhere"], name="/inner"))


@case("structure-refused")
def branch_hides(d):
    """A branch that defines a name of the graph around it."""
    branch_on_constant(d)
    graph = next(a for a in d["cos"].attribute if a.name == "else_branch").g
    graph.node.append(helper.make_node("Identity", ["x0"], ["n0"]))


@case("structure-refused")
def training(d):
    d.constant("ratio", np.array(0.5, np.float32), at="g")
    d.constant("yes", np.array(True), at="g")
    d.node("Dropout", ["n1", "ratio", "yes"], ["dropped"], at="g")


@case("structure-refused")
def cast_like_half(d):
    d.weights["half"] = np.ones(1, np.float16)
    d.node("CastLike", ["n2", "half"], ["alike"])


@case("structure-refused")
def two_values(d):
    d.nodes.append(helper.make_node("Constant", [], ["c"], name="/c", value_int=1, value_float=1.0))


@case("structure-refused")
def shape_of_constants(d):
    """Constants whose shapes do not fit."""
    d.weights["three"] = np.ones(3, np.float32)
    d.node("Mul", ["norm0", "three"], ["product"])


@case("structure-refused")
def empty_slice(d):
    d.constant("start", np.array([HIDDEN], np.int64))
    d.constant("end", np.array([HIDDEN + 4], np.int64))
    d.node("Slice", ["norm0", "start", "end"], ["nothing"])

