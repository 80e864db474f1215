#!/usr/bin/env python3
"""Writes a decoder of a public shape as ONNX, in the form of onnxruntime-genai's model builder.

    bench/model.py llama-3.1-405b --layers 2 -o build/bench/405b

writes build/bench/405b/model.onnx and model.onnx.data. The weights are all zero, a hole in a sparse file that takes no
room on the disk, unless --fill asks for random ones. That is enough to compile, to simulate and, with --fill, to time.
"""

import argparse
import json
import math
import pathlib
import sys

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

HERE = pathlib.Path(__file__).resolve().parent
MODELS = json.loads((HERE / "models.json").read_text())["models"]
DTYPES = {"f32": (TensorProto.FLOAT, np.float32), "f16": (TensorProto.FLOAT16, np.float16),
          "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16)}
MICROSOFT = "com.microsoft"
EPSILON = 1e-5
ROPE_THETA = 500000.0
DATA = "model.onnx.data"
ALIGNMENT = 64
SLAB = 1 << 24  # elements that are drawn at once


class Weights:
    """The initializers, in the order of their bytes in the data file. Matrices are of type `dtype`, all else of f32."""

    def __init__(self, dtype, graph):
        self.dtype, self.graph = dtype, graph
        self.tensors, self.fills, self.bytes = [], [], 0

    def add(self, name, shape, fill, dtype="f32"):
        """An initializer. `fill(rng, start, count)` makes elements [start, start + count) of it, row-major."""
        onnx_type, numpy_type = DTYPES[dtype]
        count = math.prod(shape)
        length = count * np.dtype(numpy_type).itemsize
        tensor = TensorProto(name=name, dims=shape, data_type=onnx_type, data_location=TensorProto.EXTERNAL)
        for key, value in {"location": DATA, "offset": self.bytes, "length": length}.items():
            tensor.external_data.add(key=key, value=str(value))
        self.tensors.append(tensor)
        self.fills.append((self.bytes, count, fill, numpy_type))
        self.bytes += (length + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        return name

    def matrix(self, name, rows, columns, scale=1.0):
        deviation = scale / math.sqrt(rows)
        fill = lambda rng, start, count: deviation * rng.standard_normal(count, np.float32)  # noqa: E731
        self.add(name, [rows, columns], fill, self.dtype)
        # Activations are f32 whatever the weights are kept in.
        return name if self.dtype == "f32" else self.graph.node("Cast", f"{name}/Cast", [name], to=TensorProto.FLOAT)

    def norm(self, name, size):
        return self.add(name, [size], lambda rng, start, count: 1 + 0.25 * rng.standard_normal(count, np.float32))

    def rotary(self, name, positions, pairs, function):
        def fill(rng, start, count):
            index = np.arange(start, start + count)
            return function(index // pairs * ROPE_THETA ** (-(index % pairs) / pairs))

        return self.add(name, [positions, pairs], fill)

    def write(self, path, filled):
        rng = np.random.default_rng(0)
        with open(path, "wb") as file:
            file.truncate(self.bytes)
            for offset, count, fill, numpy_type in self.fills if filled else ():
                file.seek(offset)
                for start in range(0, count, SLAB):
                    file.write(fill(rng, start, min(SLAB, count - start)).astype(numpy_type).tobytes())


class Graph:
    """Nodes named as the builder names them."""

    def __init__(self):
        self.nodes = []

    def node(self, op, name, inputs, outputs=1, domain="", **attributes):
        """Adds a node and returns its first result; `outputs`: their number, or their names."""
        if outputs == 1:
            outputs = [name + "/output_0"]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, domain=domain, **attributes))
        return outputs[0]

    def constant(self, name, value):
        tensor = onnx.numpy_helper.from_array(np.array(value, np.int64), name)
        self.nodes.append(helper.make_node("Constant", [], [name], name=name, value=tensor))
        return name


def build(shape, layers, positions, dtype):
    """The model, and its weights that go into the data file."""
    hidden, ffn, heads, kv_heads, dim, vocab = (
        shape[key] for key in ("hidden", "ffn", "heads", "kv_heads", "head_dim", "vocab"))
    graph = Graph()
    weights, node = Weights(dtype, graph), graph.node

    mask = "/model/attn_mask_reformat/attn_mask_subgraph"
    one = graph.constant("/model/constants/INT64/[1]", [1])
    sums = node("ReduceSum", mask + "/ReduceSum", ["attention_mask", one], keepdims=0)
    lengths = node("Cast", mask + "/Sub/Cast", [node("Sub", mask + "/Sub", [sums, one])], to=TensorProto.INT32)
    extent = node("Shape", mask + "/Shape", ["attention_mask"])
    total = node("Gather", mask + "/Gather", [extent, graph.constant("/model/constants/INT64/1", 1)], axis=0)
    total = node("Cast", mask + "/Gather/Cast", [total], to=TensorProto.INT32)

    cos = weights.rotary("cos_cache", positions, dim // 2, np.cos)
    sin = weights.rotary("sin_cache", positions, dim // 2, np.sin)
    # A row of the table is a token's vector, of deviation 1.
    table = weights.matrix("model.embed_tokens.weight", vocab, hidden, math.sqrt(vocab))
    x = node("Gather", "/model/embed_tokens/Gather", [table, "input_ids"])

    normed = node("SimplifiedLayerNormalization", "/model/layers.0/input_layernorm/LayerNorm",
                  [x, weights.norm("model.layers.0.input_layernorm.weight", hidden)],
                  epsilon=EPSILON, axis=-1, stash_type=1)
    for layer in range(layers):
        path, name = f"/model/layers.{layer}", f"model.layers.{layer}"

        def product(part, x, rows, columns, scale=1.0):
            weight = weights.matrix(f"{name}.{part.replace('/', '.')}.MatMul.weight", rows, columns, scale)
            return node("MatMul", f"{path}/{part}/MatMul", [x, weight])

        def add_and_norm(norm_path, norm_name, x, delta, last=False):
            """x + delta, and its norm."""
            both = [f"{norm_path}/output_0"] + ([] if last else ["", "", f"{norm_path}/output_3"])
            node("SkipSimplifiedLayerNormalization", f"{norm_path}/SkipLayerNorm",
                 [x, delta, weights.norm(f"{norm_name}.weight", hidden)], both, MICROSOFT, epsilon=EPSILON)
            return both[-1], both[0]

        qkv = product("attn/qkv_proj", normed, hidden, (heads + 2 * kv_heads) * dim)
        attention = node("GroupQueryAttention", f"{path}/attn/GroupQueryAttention",
                         [qkv, "", "", f"past_key_values.{layer}.key", f"past_key_values.{layer}.value", lengths, total,
                          cos, sin, "", "", ""],
                         [f"{path}/attn/GroupQueryAttention/output_0", f"present.{layer}.key", f"present.{layer}.value"],
                         MICROSOFT, num_heads=heads, kv_num_heads=kv_heads, scale=1 / math.sqrt(dim),
                         local_window_size=-1, softcap=0.0, do_rotary=1, rotary_interleaved=0)
        projected = product("attn/o_proj", attention, heads * dim, hidden)
        x, normed = add_and_norm(f"{path}/post_attention_layernorm", f"{name}.post_attention_layernorm", x, projected)
        gate = product("mlp/gate_proj", normed, hidden, ffn)
        up = product("mlp/up_proj", normed, hidden, ffn)
        silu = node("Mul", f"{path}/mlp/act_fn/Mul", [gate, node("Sigmoid", f"{path}/mlp/act_fn/Sigmoid", [gate])])
        down = product("mlp/down_proj", node("Mul", f"{path}/mlp/Mul", [silu, up]), ffn, hidden)
        last = layer + 1 == layers
        norm = "final_norm_layernorm" if last else "input_layernorm"
        x, normed = add_and_norm(f"/model/layers.{layer + 1}/{norm}", f"model.layers.{layer + 1}.{norm}", x, down, last)
    head = weights.matrix("lm_head.MatMul.weight", hidden, vocab, 3.0)
    node("MatMul", "/lm_head/MatMul", [normed, head], ["logits"])

    value, float_type = helper.make_tensor_value_info, TensorProto.FLOAT
    inputs = [value("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"]),
              value("attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"])]
    outputs = [value("logits", float_type, ["batch_size", "sequence_length", vocab])]
    for layer in range(layers):
        for part in ("key", "value"):
            inputs.append(value(f"past_key_values.{layer}.{part}", float_type,
                                ["batch_size", kv_heads, "past_sequence_length", dim]))
            outputs.append(value(f"present.{layer}.{part}", float_type,
                                 ["batch_size", kv_heads, "total_sequence_length", dim]))
    model = helper.make_model(
        helper.make_graph(graph.nodes, "main_graph", inputs, outputs, weights.tensors), ir_version=10,
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)])
    return model, weights


def write(shape, directory, layers=None, positions=1 << 20, dtype="f32", fill=False):
    """Writes a model of `shape`, an entry of models.json, into `directory`, which is made; the path of model.onnx."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    model, weights = build(shape, layers or shape["layers"], positions, dtype)
    weights.write(directory / DATA, fill)
    path = directory / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MODELS, metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("-o", dest="directory", required=True, help="directory to write into; it is made")
    parser.add_argument("--layers", type=int, help="decoder layers (default: the model's)")
    parser.add_argument("--positions", type=int, default=1 << 20,
                        help="rows of the rotary tables, the longest context (default 2^20)")
    parser.add_argument("--dtype", choices=DTYPES, default="f32", help="element type of the matrices in the file (default f32)")
    parser.add_argument("--fill", action="store_true", help="random weights instead of zeros")
    options = parser.parse_args()
    for key in ("layers", "positions"):
        if getattr(options, key) is not None and getattr(options, key) < 1:
            parser.error(f"--{key} must be at least 1")
    path = write(MODELS[options.name], options.directory, options.layers, options.positions, options.dtype, options.fill)
    size = (path.parent / DATA).stat().st_size
    print(f"{path}: {size / 1e9:.1f} GB of weights ({options.dtype}), {'random' if options.fill else 'all zero'}",
          file=sys.stderr)


if __name__ == "__main__":
    main()
