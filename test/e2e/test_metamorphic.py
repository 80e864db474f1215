"""However a model is written down, it computes the same: logits bit for bit, by one compile flow per variant."""

import random

import helix
import numpy as np
import onnx
import pytest
from onnx import helper

from test_public import REFUSED

FIXTURES = [name for name in helix.LISTING if name not in REFUSED]
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}


def renamed(model):
    """Every node and every value but the graph's own inputs and outputs gets a meaningless name."""
    kept = {info.name for info in [*model.graph.input, *model.graph.output]} | {""}
    names = {}

    def new(name):
        return name if name in kept else names.setdefault(name, f"v{len(names)}")

    def rename(graph, nested=False):
        for tensor in graph.initializer:
            tensor.name = new(tensor.name)
        for i, node in enumerate(graph.node):
            node.name = f"n{i}" if not nested else ""
            node.input[:] = [new(name) for name in node.input]
            node.output[:] = [new(name) for name in node.output]
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    rename(attribute.g, nested=True)
        if nested:
            for info in graph.output:
                info.name = new(info.name)

    rename(model.graph)
    del model.graph.value_info[:]


def shuffled(model):
    """The nodes in another order, in which every value is still produced before it is used."""
    source, nodes = random.Random(0), list(model.graph.node)
    produced = {name for node in nodes for name in node.output if name}

    def operands(graph_or_node):
        names = set(graph_or_node.input) if isinstance(graph_or_node, onnx.NodeProto) else set()
        inner = [graph_or_node] if isinstance(graph_or_node, onnx.NodeProto) else graph_or_node.node
        for node in inner:
            names |= set(node.input)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    names |= operands(attribute.g)
        return names

    order, known = [], set()
    while nodes:
        ready = [node for node in nodes if not (operands(node) & produced) - known]
        node = source.choice(ready)
        nodes.remove(node)
        order.append(node)
        known |= set(node.output)
    del model.graph.node[:]
    model.graph.node.extend(order)


def reversed_order(model):
    """The nodes last first: an order that is not sorted at all."""
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))


def float_type(model):
    return next(info.type.tensor_type.elem_type for info in model.graph.output if info.name == "logits")


def padded(model):
    """Identity behind every node's first result, a Cast to the type that it has behind every product and sum."""
    kept = {info.name for info in model.graph.output}
    nodes, kind = list(model.graph.node), float_type(model)
    weights = {tensor.name for tensor in model.graph.initializer if tensor.data_type in FLOATS}
    products = {node.output[0] for node in nodes if node.op_type == "MatMul" and node.input[1] in weights}
    place = {}
    result = []
    for node in nodes:
        node.input[:] = [place.get(name, name) for name in node.input]
        result.append(node)
        name = node.output[0]
        if not name or name in kept:
            continue
        result.append(helper.make_node("Identity", [name], [name + "/same"], name=name + "/same"))
        place[name] = name + "/same"
        if name in products:
            result.append(helper.make_node("Cast", [name + "/same"], [name + "/cast"], name=name + "/cast", to=kind))
            place[name] = name + "/cast"
    del model.graph.node[:]
    model.graph.node.extend(result)


def swapped(model):
    """Operands of sums and products the other way round."""
    for node in model.graph.node:
        if node.op_type in ("Add", "Mul"):
            node.input[:] = list(node.input)[::-1]


def constants(model):
    """Every initializer as a Constant node."""
    nodes = list(model.graph.node)
    made = [helper.make_node("Constant", [], [tensor.name], name=f"/{tensor.name}", value=tensor)
            for tensor in model.graph.initializer]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(made + nodes)


VARIANTS = [renamed, shuffled, reversed_order, padded, swapped, constants]


def logits(path, fixture, prompts, out):
    artifact = out / "model.hlx"
    # Of a LongRoPE model the short tables.
    flags = ["--kvp", 2, "--batch", 1, "--max-context", 64, "--prefill-chunk", 16, "--all-logits", "--block", 4]
    helix.tool("helix-compile", path, "-o", artifact, *flags, "--weights-root", helix.MODELS / fixture)
    helix.tool("helix-run", artifact, "--prompts", prompts, "--score", "--outputs", out / "logits.npz")
    with np.load(out / "logits.npz") as arrays:
        return arrays["logits_0"].tobytes()


@pytest.mark.parametrize("fixture", FIXTURES)
def test_same_bits(fixture, tmp_path):
    vocabulary = helix.LISTING[fixture]["vocab"]
    prompts = helix.write_prompts(tmp_path / "prompts.jsonl", [np.random.default_rng(5).integers(0, vocabulary, 40)])
    base = tmp_path / "base"
    base.mkdir()
    expected = logits(helix.model(fixture), fixture, prompts, base)
    for variant in VARIANTS:
        model = onnx.load(helix.model(fixture), load_external_data=False)
        before = model.SerializeToString()
        variant(model)
        if variant is not swapped or fixture.startswith("llama-"):
            assert model.SerializeToString() != before, f"{variant.__name__} changes nothing"
        out = tmp_path / variant.__name__
        out.mkdir()
        (out / "model.onnx").write_bytes(model.SerializeToString())
        assert logits(out / "model.onnx", fixture, prompts, out) == expected, variant.__name__
