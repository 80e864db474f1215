"""Stateless functions: several nodes together, threads, and what is refused when one is compiled or called."""

from math import erf

import helix
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def value(name, shape, dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def save(path, nodes, inputs, outputs, weights=None, opset=24):
    graph = helper.make_graph(nodes, "function", inputs, outputs,
                              [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()])
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)]), path)
    return path


def build(directory, *args, **kwargs):
    model = save(directory / "model.onnx", *args, **kwargs)
    helix.tool("helix-compile", model, "--stateless", "-o", directory / "model.hlx")
    return directory / "model.hlx"


def call(artifact, arrays, *flags, check=True):
    inputs, outputs = artifact.with_name("in.npz"), artifact.with_name("out.npz")
    outputs.unlink(missing_ok=True)
    np.savez(inputs, **arrays)
    done = helix.tool("helix-run", artifact, "--inputs", inputs, "--outputs", outputs, *flags, check=check)
    if done.returncode != 0:
        assert not outputs.exists()
        return done
    with np.load(outputs) as loaded:
        return {name: loaded[name] for name in loaded.files}


def refused(artifact, arrays, text, *flags):
    done = call(artifact, arrays, *flags, check=False)
    assert done.returncode == 1 and text in done.stderr, done.stderr


def rotation(directory):
    node = helper.make_node("RotaryEmbedding", ["x", "cos", "sin", "positions"], ["y"], "r")
    return build(directory, [node],
                 [value("x", [1, 2, 3, 4]), value("cos", [5, 2]), value("sin", [5, 2]), value("positions", [1, 3], INT64)],
                 [value("y", [1, 2, 3, 4])])


def rotation_inputs():
    random = np.random.default_rng(0)
    angles = random.random((5, 2), np.float32)
    return {"x": random.random((1, 2, 3, 4), np.float32), "cos": np.cos(angles), "sin": np.sin(angles),
            "positions": np.array([[4, 0, 2]])}


def test_a_block_of_several_nodes(tmp_path):
    """Norm, product with a constant, attention of three dimensions, transposed, scaled, and a sum, against float64."""
    random = np.random.default_rng(1)
    scale, weight = random.random(8, np.float32), random.random((8, 8), np.float32)
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale"], ["n"], "norm"),
        helper.make_node("MatMul", ["n", "weight"], ["q"], "product"),
        helper.make_node("Attention", ["q", "n", "x", "mask"], ["a"], "attention", q_num_heads=2, kv_num_heads=2),
        helper.make_node("Add", ["a", "x"], ["sum"], "residual"),
        helper.make_node("Gelu", ["sum"], ["g"], "gelu"),
        helper.make_node("Transpose", ["g"], ["y"], "turn", perm=[2, 0, 1]),
    ]
    hlx = build(tmp_path, nodes, [value("x", [2, 3, 8]), value("mask", [2, 1, 3, 3])], [value("y", [8, 2, 3])],
                {"scale": scale, "weight": weight})
    x = random.standard_normal((2, 3, 8)).astype(np.float32)
    mask = random.standard_normal((2, 1, 3, 3)).astype(np.float32)
    mask[0, 0, 1] = -np.inf
    ours = call(hlx, {"x": x, "mask": mask})["y"]

    wide, heads = x.astype(np.float64), lambda t: t.reshape(2, 3, 2, 4).transpose(0, 2, 1, 3)
    n = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5) * scale
    scores = heads(n @ weight) @ heads(n).transpose(0, 1, 3, 2) / 2 + mask
    powers = np.exp(scores - np.where(np.isneginf(scores.max(-1, keepdims=True)), 0, scores.max(-1, keepdims=True)))
    total = powers.sum(-1, keepdims=True)
    a = (powers / np.where(total == 0, 1, total)) @ heads(wide)
    s = a.transpose(0, 2, 1, 3).reshape(2, 3, 8) + wide
    expected = (s * (1 + np.vectorize(erf)(s / np.sqrt(2))) / 2).transpose(2, 0, 1)
    np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-6)


def test_threads_do_not_change_bits(tmp_path):
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], "a", is_causal=1, softcap=3.0)
    hlx = build(tmp_path, [node], [value(name, [2, 8, 64, 16]) for name in "qkv"], [value("y", [2, 8, 64, 16])])
    random = np.random.default_rng(2)
    arrays = {name: random.standard_normal((2, 8, 64, 16)).astype(np.float32) for name in "qkv"}
    one, seven = (call(hlx, arrays, "--threads", threads)["y"] for threads in (1, 7))
    assert np.array_equal(one, seven)


def test_inputs_that_do_not_fit(tmp_path):
    hlx, good = rotation(tmp_path), rotation_inputs()
    assert call(hlx, good)["y"].shape == (1, 2, 3, 4)
    refused(hlx, {k: v for k, v in good.items() if k != "cos"}, "HLX4070: ")
    refused(hlx, good | {"cos": good["cos"].astype(np.float64)}, "HLX4070: ")
    refused(hlx, good | {"cos": good["cos"].T.copy()}, "HLX4070: ")
    refused(hlx, good | {"more": good["cos"]}, "HLX4070: ")
    refused(hlx, good | {"cos": np.asfortranarray(good["cos"])}, "HLX5022: ")


def test_indices_out_of_range(tmp_path):
    hlx, good = rotation(tmp_path), rotation_inputs()
    for position in (-1, 5, np.iinfo(np.int64).min, np.iinfo(np.int64).max):
        refused(hlx, good | {"positions": np.array([[0, position, 1]])}, "HLX4071: positions")


def test_places_out_of_range(tmp_path):
    for mode, places in (("linear", [-1, 2, 2**63 - 1]), ("circular", [-1])):
        (tmp_path / mode).mkdir()
        node = helper.make_node("TensorScatter", ["c", "u", "i"], ["y"], "s", mode=mode)
        hlx = build(tmp_path / mode, [node], [value("c", [1, 3, 2]), value("u", [1, 2, 2]), value("i", [1], INT64)],
                    [value("y", [1, 3, 2])])
        arrays = {"c": np.zeros((1, 3, 2), np.float32), "u": np.ones((1, 2, 2), np.float32)}
        for place in places:
            refused(hlx, arrays | {"i": np.array([place])}, "HLX4071: indices")
    far = call(hlx, arrays | {"i": np.array([2**63 - 1])})["y"]  # place 1 of 3
    assert far[0, :, 0].tolist() == [0, 1, 1]


def test_lengths_out_of_range(tmp_path):
    node = helper.make_node("Attention", ["q", "q", "q", "", "", "", "n"], ["y"], "a")
    hlx = build(tmp_path, [node], [value("q", [1, 1, 2, 4]), value("n", [1], INT64)], [value("y", [1, 1, 2, 4])])
    arrays = {"q": np.ones((1, 1, 2, 4), np.float32)}
    assert np.array_equal(call(hlx, arrays | {"n": np.array([0])})["y"], np.zeros((1, 1, 2, 4)))
    for length in (-1, 3):
        refused(hlx, arrays | {"n": np.array([length])}, "HLX4071: lengths")


def test_it_is_no_decoder(tmp_path):
    hlx = rotation(tmp_path)
    done = helix.tool("helix-run", hlx, "--prompt-ids", "1,2", check=False)
    assert done.returncode == 1 and "HLX4011: the artifact is a stateless function" in done.stderr
    refused(hlx, rotation_inputs(), "HLX5020: --tokens has no effect", "--tokens", 3)
    done = helix.tool("helix-run", hlx, "--inputs", tmp_path / "in.npz", check=False)
    assert done.returncode == 1 and "HLX5020: the artifact is a stateless function; give --outputs" in done.stderr
    done = helix.tool("helix-simulate", hlx, "--hardware", "cpu", check=False)
    assert done.returncode == 1 and "HLX6004: the artifact has no Decode entry" in done.stderr


@pytest.mark.parametrize("flags, text", [
    (["--kvp", 2], "HLX2070: a stateless function is for one rank, but 2 along an axis were asked for"),
    (["--max-context", 8], "HLX5030: --max-context has no effect with --stateless"),
    (["--hopb", "2"], "HLX5030: --hopb has no effect with --stateless"),
    (["--target", "cuda"], "HLX5030: --target cuda: stateless functions run on the CPU"),
])
def test_options_of_decoders(tmp_path, flags, text):
    model = save(tmp_path / "m.onnx", [helper.make_node("Swish", ["x"], ["y"])], [value("x", [3])], [value("y", [3])])
    done = helix.tool("helix-compile", model, "--stateless", "-o", tmp_path / "m.hlx", *flags, check=False)
    assert done.returncode == 1 and text in done.stderr and not (tmp_path / "m.hlx").exists()


def attention(inputs, shapes, **attributes):
    return ([helper.make_node("Attention", inputs, ["y"], "a", **attributes)],
            [value(name, shape, INT64 if name == "n" else FLOAT) for name, shape in shapes.items()], [value("y", None)])


QKV = {name: [1, 2, 3, 4] for name in "qkv"}


@pytest.mark.parametrize("graph, text", [
    (([helper.make_node("Swish", ["x"], ["y"])], [value("x", ["n"])], [value("y", None)]),
     "HLX1070: input 'x' must have 1 to 8 dimensions of fixed sizes"),
    (([helper.make_node("Swish", ["x"], ["y"])], [value("x", [])], [value("y", None)]), "HLX1070: input 'x'"),
    (([helper.make_node("Swish", ["x"], ["y"])], [value("x", [3])], [value("y", [4])]),
     "HLX1070: output 'y' has another shape in the model than [3]"),
    (([helper.make_node("Swish", ["x"], ["y"])], [value("x", [3], TensorProto.DOUBLE)], [value("y", None)]),
     "HLX1071: input 'x' must be a tensor of FLOAT, FLOAT16, BFLOAT16, INT64 or BOOL, but is DOUBLE"),
    (([helper.make_node("Identity", ["x"], ["y"])], [value("x", [3], INT64)], [value("y", [3], INT64)]),
     "HLX1071: output 'y'"),
    (([helper.make_node("Swish", ["x"], ["y"], "s")], [value("x", [3], INT64)], [value("y", None)]),
     "HLX1011: node 's' (Swish): operand 0 'x' is an input of integers or truths"),
    (attention(["q", "k", "v", "m"], QKV | {"m": [3, 1]}), "HLX1014: node 'a' (Attention): has a mask of shape [3, 1]"),
    (attention(["q", "k", "v", "m"], QKV | {"m": [3, 4]}), "HLX1014: node 'a' (Attention): has a mask of shape [3, 4]"),
    (attention(["q", "k", "v", "", "p"], QKV | {"p": [1, 2, 5, 4]}), "HLX1011: node 'a' (Attention): operand 5"),
    (attention(["q", "k", "v", "", "p", "p"], QKV | {"p": [1, 3, 5, 4]}), "HLX1014: node 'a' (Attention): operand 4"),
    (attention(["q", "k", "v", "", "", "", "n"], QKV | {"n": [2]}), "HLX1011: node 'a' (Attention): operand 6"),
    (attention(["q", "k", "v"], QKV, softcap=-1.0), "HLX1010: node 'a' (Attention)"),
    (attention(["q", "k", "v"], {name: [1, 3, 8] for name in "qkv"}, q_num_heads=3, kv_num_heads=2),
     "HLX1014: node 'a' (Attention): takes [1, 3, 8]"),
    (([helper.make_node("RMSNormalization", ["x", "w"], ["y"], "n", axis=3)], [value("x", [2, 3]), value("w", [3])],
      [value("y", None)]), "HLX1010: node 'n' (RMSNormalization): attribute 'axis'"),
    (([helper.make_node("RMSNormalization", ["x", "w"], ["y"], "n")], [value("x", [2, 3]), value("w", [2])],
      [value("y", None)]), "HLX1014: node 'n' (RMSNormalization)"),
    (([helper.make_node("TensorScatter", ["x", "w"], ["y"], "t", axis=0)], [value("x", [2, 3]), value("w", [2, 3])],
      [value("y", None)]), "HLX1010: node 't' (TensorScatter)"),
])
def test_refused_models(tmp_path, graph, text):
    model = save(tmp_path / "m.onnx", *graph)
    done = helix.tool("helix-compile", model, "--stateless", "-o", tmp_path / "m.hlx", check=False)
    assert done.returncode == 1 and text in done.stderr, done.stderr
    assert not (tmp_path / "m.hlx").exists()


def test_damaged_artifacts_are_refused(tmp_path):
    """A byte changed anywhere is found out, checksum or not; no crash."""
    hlx = rotation(tmp_path)
    whole = hlx.read_bytes()
    np.savez(tmp_path / "in.npz", **rotation_inputs())
    for at in range(32, len(whole), max(1, len(whole) // 24)):
        bad = tmp_path / "bad.hlx"
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1:])
        done = helix.tool("helix-run", bad, "--inputs", tmp_path / "in.npz", "--outputs", tmp_path / "out.npz", check=False)
        assert done.returncode == 1 and "HLX3005" in done.stderr
