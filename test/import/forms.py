"""A decoder of two layers in the ways in which exporters write its parts: one choice for each part.

forms.py DIRECTORY writes each of FORMS as DIRECTORY/<name>.onnx.
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper

HIDDEN, HEADS, KV_HEADS, DIM, FFN, VOCABULARY, POSITIONS, LAYERS = 32, 4, 2, 8, 24, 40, 64, 2
MICROSOFT = "com.microsoft"
INT64, FLOAT = TensorProto.INT64, TensorProto.FLOAT


class Form:
    """`attention`: decomposed, repeated (keys of a group repeated by Expand), contorted (keys transposed as torch's
    converter does it), op, windows (the op with opset 25's window of 5 tokens), mha or static. `packing`: apart, or groups
    (one product with the queries, key and value of each KV head side by side, and a bias). `rope`: gathered, computed, interleaved, partial, op or microsoft. `norm`: op,
    pow, mul or reciprocal. `mask`: compare, triangle, fill or window (compare with a window of 5 tokens)."""

    def __init__(self, attention="decomposed", rope="gathered", norm="op", mask="compare", packing="apart",
                 opset=None, seed=0):
        self.attention, self.rope, self.norm_form, self.mask_form = attention, rope, norm, mask
        self.packing = packing
        needs = 25 if attention == "windows" else 24 if attention == "static" else 23 if "op" in (attention, rope, norm) else 18
        self.opset = opset or needs
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights, self.count = [], {}, 0
        self.inputs = [self.info("input_ids", INT64, ["b", "t"]), self.info("position_ids", INT64, ["b", "t"])]
        self.outputs = [self.info("logits", FLOAT, ["b", "t", VOCABULARY])]
        self.static = attention == "static"
        if self.static:
            self.inputs += [self.info("write_indices", INT64, ["b"]), self.info("nonpad_kv_seqlen", INT64, ["b"])]
        else:
            self.inputs.append(self.info("attention_mask", INT64, ["b", "s"]))
        self.build()

    @staticmethod
    def info(name, kind, shape):
        return helper.make_tensor_value_info(name, kind, shape)

    def node(self, op, *inputs, outputs=None, domain="", **attributes):
        self.count += 1
        outputs = outputs or [f"{op}_{self.count}"]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=f"/{outputs[0]}", domain=domain,
                                           **attributes))
        return outputs[0]

    def ints(self, *values):
        name = f"ints_{'_'.join(map(str, values))}".replace("-", "m")
        self.weights.setdefault(name, np.array(values, np.int64))
        return name

    def scalar(self, value, kind=np.float32):
        name = f"scalar_{kind.__name__}_{value}"
        self.weights.setdefault(name, np.array(value, kind))
        return name

    def weight(self, name, *shape, scale=None, around=0.0):
        scale = scale if scale is not None else shape[0] ** -0.5
        self.weights[name] = (around + scale * self.random.standard_normal(shape)).astype(np.float32)
        return name

    def build(self):
        self.table = self.tables()
        self.mask = None if self.static or self.attention == "windows" else self.make_mask()
        x = self.node("Gather", self.weight("embed", VOCABULARY, HIDDEN, scale=1), "input_ids")
        for layer in range(LAYERS):
            y = self.norm(x, f"norm_{layer}a")
            x = self.node("Add", x, self.attend(y, layer))
            y = self.norm(x, f"norm_{layer}b")
            gate = self.node("MatMul", y, self.weight(f"gate_{layer}", HIDDEN, FFN))
            up = self.node("MatMul", y, self.weight(f"up_{layer}", HIDDEN, FFN))
            gate = self.node("Mul", self.node("Sigmoid", gate), gate)
            down = self.node("MatMul", self.node("Mul", gate, up), self.weight(f"down_{layer}", FFN, HIDDEN))
            x = self.node("Add", down, x)
        self.node("MatMul", self.norm(x, "norm_f"), self.weight("head", HIDDEN, VOCABULARY, scale=0.6),
                  outputs=["logits"])

    # Norms.

    def norm(self, x, name):
        weight = self.weight(name, HIDDEN, scale=0.3, around=1)
        if self.norm_form == "op":
            op = "RMSNormalization" if self.opset >= 23 else "SimplifiedLayerNormalization"
            return self.node(op, x, weight, epsilon=1e-3, axis=-1)
        square = self.node("Mul", x, x) if self.norm_form == "mul" else self.node("Pow", x, self.scalar(2.0))
        mean = self.node("ReduceMean", square, self.ints(-1))
        mean = self.node("Add", mean, self.scalar(1e-3))
        if self.norm_form == "mul":
            normed = self.node("Div", x, self.node("Sqrt", mean))
        elif self.norm_form == "reciprocal":
            normed = self.node("Mul", x, self.node("Reciprocal", self.node("Sqrt", mean)))
        else:
            normed = self.node("Mul", x, self.node("Div", self.scalar(1.0), self.node("Sqrt", mean)))
        return self.node("Mul", weight, normed)

    # Rotary embedding.

    def angles(self):
        columns = DIM // 4 if self.rope == "partial" else DIM // 2
        return 300.0 ** (-np.arange(columns) / columns)

    def tables(self):
        """cos and sin, as constants or as rows at the positions."""
        angles = np.arange(POSITIONS)[:, None] * self.angles()
        if self.rope in ("op", "microsoft"):
            self.weights.update(cos=np.cos(angles).astype(np.float32), sin=np.sin(angles).astype(np.float32))
            return "cos", "sin"
        if self.rope == "computed":
            self.weights["inv_freq"] = self.angles().astype(np.float32)[None, :, None]
            positions = self.node("Cast", self.node("Unsqueeze", "position_ids", self.ints(1)), to=FLOAT)
            turns = self.node("MatMul", "inv_freq", positions)
            turns = self.node("Transpose", turns, perm=[0, 2, 1])
            turns = self.node("Concat", turns, turns, axis=-1)
            rows = self.node("Cos", turns), self.node("Sin", turns)
            rows = tuple(self.node("Mul", row, self.scalar(1.0)) for row in rows)
        else:
            wide = np.repeat(angles, 2, 1) if self.rope == "interleaved" else np.concatenate([angles, angles], 1)
            self.weights.update(cos=np.cos(wide).astype(np.float32), sin=np.sin(wide).astype(np.float32))
            rows = tuple(self.node("Gather", name, "position_ids") for name in ("cos", "sin"))
        return tuple(self.node("Unsqueeze", row, self.ints(1)) for row in rows)

    def rotate(self, x, heads):
        """x [b, heads, t, dim], or flat where an op takes it so."""
        cos, sin = self.table
        if self.rope == "op":
            return self.node("RotaryEmbedding", x, cos, sin, "position_ids", num_heads=heads)
        if self.rope == "microsoft":
            return self.node("RotaryEmbedding", x, "position_ids", cos, sin, domain=MICROSOFT, num_heads=heads)
        rest = None
        if self.rope == "partial":
            half = DIM // 2
            rest = self.node("Slice", x, self.ints(half), self.ints(2**31), self.ints(3))
            x = self.node("Slice", x, self.ints(0), self.ints(half), self.ints(-1))
        if self.rope == "interleaved":
            even = self.node("Slice", x, self.ints(0), self.ints(2**63 - 1), self.ints(3), self.ints(2))
            odd = self.node("Slice", x, self.ints(1), self.ints(2**63 - 1), self.ints(3), self.ints(2))
            odd = self.node("Unsqueeze", self.node("Neg", odd), self.ints(-1))
            pairs = self.node("Concat", odd, self.node("Unsqueeze", even, self.ints(-1)), axis=-1)
            turned = self.node("Reshape", pairs, self.ints(0, heads, -1, DIM))
        else:
            width = DIM // 2 if self.rope == "partial" else DIM
            low, high = (self.node("Slice", x, self.ints(a), self.ints(b), self.ints(-1))
                         for a, b in ((0, width // 2), (width // 2, 2**63 - 1)))
            turned = self.node("Concat", self.node("Neg", high), low, axis=-1)
        x = self.node("Add", self.node("Mul", turned, sin), self.node("Mul", x, cos))
        return self.node("Concat", x, rest, axis=-1) if rest else x

    # Masks.

    def make_mask(self):
        """[b, 1, t, s], 0 where a query sees a key."""
        length = self.node("Gather", self.node("Shape", "attention_mask"), self.scalar(1, np.int64), axis=0)
        tokens = self.node("Gather", self.node("Shape", "input_ids"), self.scalar(1, np.int64), axis=0)
        past = self.node("Sub", length, tokens)
        keys = self.node("Range", self.scalar(0, np.int64), length, self.scalar(1, np.int64))
        queries = self.node("Range", past, length, self.scalar(1, np.int64))
        queries = self.node("Reshape", queries, self.ints(-1, 1))
        lowest = self.scalar(float(np.finfo(np.float32).min))
        given = self.node("Unsqueeze", "attention_mask", self.ints(1, 2))
        if self.mask_form == "triangle":
            # Full of the lowest number above the diagonal of the past.
            shape = self.node("Concat", self.node("Unsqueeze", tokens, self.ints(0)),
                              self.node("Unsqueeze", length, self.ints(0)), axis=0)
            full = self.node("Expand", lowest, shape)
            later = self.node("Trilu", full, self.node("Add", past, self.scalar(1, np.int64)), upper=1)
            return self.node("Unsqueeze", later, self.ints(0, 1))
        if self.mask_form == "fill":
            # A product with a truth, then padding where mask and bias are both 0.
            later = self.node("Cast", self.node("Greater", keys, queries), to=FLOAT)
            mask = self.node("Unsqueeze", self.node("Mul", later, lowest), self.ints(0, 1))
            sums = self.node("Add", mask, self.node("Cast", given, to=FLOAT))
            empty = self.node("Equal", sums, self.scalar(0.0))
            return self.node("Where", empty, lowest, mask)
        seen = self.node("LessOrEqual", keys, queries)
        if self.mask_form == "window":
            near = self.node("Greater", keys, self.node("Sub", queries, self.scalar(5, np.int64)))
            seen = self.node("And", near, seen)
        seen = self.node("And", self.node("Cast", given, to=TensorProto.BOOL), seen)
        if self.attention in ("op",):
            return seen
        return self.node("Where", seen, self.scalar(0.0), lowest)

    # Attention.

    def past(self, layer, part):
        name = f"past_key_values.{layer}.{part}" if not self.static else f"{part}_cache.{layer}"
        shape = ["b", POSITIONS, KV_HEADS * DIM] if self.static else ["b", KV_HEADS, "p", DIM]
        self.inputs.append(self.info(name, FLOAT, shape))
        out = f"present.{layer}.{part}" if not self.static else f"updated_{part}_cache.{layer}"
        shape = shape if self.static else ["b", KV_HEADS, "s", DIM]
        self.outputs.append(self.info(out, FLOAT, shape))
        return name, out

    def split(self, x, heads):
        x = self.node("Reshape", x, self.ints(0, 0, heads, DIM))
        return self.node("Transpose", x, perm=[0, 2, 1, 3])

    def split_groups(self, y, layer):
        """q, k and v [b, heads, t, dim] out of a product [b, t, KV heads, queries of a group, key and value, dim]."""
        group = HEADS // KV_HEADS
        packed = self.node("MatMul", y, self.weight(f"qkv_{layer}", HIDDEN, KV_HEADS * (group + 2) * DIM, scale=0.3))
        packed = self.node("Add", packed, self.weight(f"qkv_bias_{layer}", KV_HEADS * (group + 2) * DIM, scale=0.1))
        packed = self.node("Reshape", packed, self.ints(0, 0, KV_HEADS, group + 2, DIM))
        q = self.node("Slice", packed, self.ints(0), self.ints(-2), self.ints(3))
        k = self.node("Slice", packed, self.ints(-2), self.ints(-1), self.ints(-2))
        v = self.node("Gather", packed, self.scalar(-1, np.int64), axis=3)
        q, k = (self.node("Reshape", x, self.ints(0, 0, heads, DIM)) for x, heads in ((q, HEADS), (k, KV_HEADS)))
        return [self.node("Transpose", x, perm=[0, 2, 1, 3]) for x in (q, k, v)]

    def attend(self, y, layer):
        groups = self.split_groups(y, layer) if self.packing == "groups" else None
        flat = [] if groups else [self.node("MatMul", y, self.weight(f"{name}_{layer}", HIDDEN, heads * DIM, scale=scale))
                for name, heads, scale in (("q", HEADS, 0.4), ("k", KV_HEADS, 0.4), ("v", KV_HEADS, 0.18))]
        by_op = self.rope in ("op", "microsoft")
        if by_op:
            flat[0], flat[1] = self.rotate(flat[0], HEADS), self.rotate(flat[1], KV_HEADS)
        (past_k, out_k), (past_v, out_v) = self.past(layer, "key"), self.past(layer, "value")
        if self.static:
            keys = self.node("TensorScatter", past_k, flat[1], "write_indices", outputs=[out_k], axis=1)
            values = self.node("TensorScatter", past_v, flat[2], "write_indices", outputs=[out_v], axis=1)
            out = self.node("Attention", flat[0], keys, values, "", "", "", "nonpad_kv_seqlen", is_causal=1,
                            q_num_heads=HEADS, kv_num_heads=KV_HEADS)
        else:
            q, k, v = groups or (self.split(x, heads) for x, heads in zip(flat, (HEADS, KV_HEADS, KV_HEADS)))
            if not by_op:
                q, k = self.rotate(q, HEADS), self.rotate(k, KV_HEADS)
            if self.attention == "windows":
                out = self.node("Attention", q, k, v, "", past_k, past_v, is_causal=1, left_window_size=4,
                                outputs=[f"attention_{layer}", out_k, out_v])
            elif self.attention == "op":
                out = self.node("Attention", q, k, v, self.mask, past_k, past_v,
                                outputs=[f"attention_{layer}", out_k, out_v])
            else:
                keys = self.node("Concat", past_k, k, outputs=[out_k], axis=2)
                values = self.node("Concat", past_v, v, outputs=[out_v], axis=-2)
                out = self.products(q, self.repeat(keys), self.repeat(values))
            out = out if self.attention == "mha" else self.node("Transpose", out, perm=[0, 2, 1, 3])
            out = self.node("Reshape", out, self.ints(0, 0, HEADS * DIM))
        return self.node("MatMul", out, self.weight(f"o_{layer}", HEADS * DIM, HIDDEN))

    def repeat(self, x):
        """Each KV head once for every query head that reads it."""
        shape = [self.node("Shape", x, start=d, end=d + 1) for d in range(4)]
        group = HEADS // KV_HEADS
        x = self.node("Unsqueeze", x, self.ints(2))
        x = self.node("Expand", x, self.node("Concat", shape[0], shape[1], self.ints(group), *shape[2:], axis=0))
        return self.node("Reshape", x, self.node("Concat", shape[0], self.ints(HEADS), *shape[2:], axis=0))

    def products(self, q, keys, values):
        if self.attention == "mha":
            q, keys, values = (self.node("Reshape", self.node("Transpose", x, perm=[0, 2, 1, 3]),
                                         self.ints(0, 0, HEADS * DIM)) for x in (q, keys, values))
            bias = self.node("Expand", self.mask, self.ints(1, HEADS, 1, 1))
            return self.node("MultiHeadAttention", q, keys, values, "", "", bias, domain=MICROSOFT, num_heads=HEADS)
        root = self.scalar(DIM**-0.25)
        if self.attention == "contorted":
            shape = self.node("Shape", keys)
            flat = self.node("Concat", self.ints(-1), self.node("Slice", shape, self.ints(2), self.ints(3)),
                             self.ints(DIM), axis=0)
            turned = self.node("Transpose", self.node("Reshape", keys, flat), perm=[0, 2, 1])
            keys = self.node("Reshape", turned, self.node("Concat", self.node("Slice", shape, self.ints(0),
                             self.ints(2)), self.ints(DIM), self.node("Slice", shape, self.ints(2), self.ints(3)),
                             axis=0))
            q, keys = self.node("Mul", q, root), self.node("Mul", keys, root)
            scores = self.node("MatMul", q, keys)
        else:
            scores = self.node("MatMul", q, self.node("Transpose", keys, perm=[0, 1, 3, 2]))
            scores = self.node("Div", scores, self.scalar(DIM**0.5))
        scores = self.node("Softmax", self.node("Add", scores, self.mask), axis=-1)
        if self.attention == "contorted":
            scores = self.node("Where", self.node("IsNaN", scores), self.scalar(0.0), scores)
        return self.node("MatMul", scores, values)

    def model(self):
        initializers = [onnx.numpy_helper.from_array(value, name) for name, value in self.weights.items()]
        graph = helper.make_graph(self.nodes, "forms", self.inputs, self.outputs, initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset),
                                                        helper.make_opsetid(MICROSOFT, 1)])
        model.ir_version = 10
        return model


FORMS = {
    "decomposed": {},
    "contorted": {"attention": "contorted", "mask": "triangle"},
    "filled": {"mask": "fill", "norm": "pow"},
    "computed": {"rope": "computed", "norm": "mul"},
    "interleaved": {"rope": "interleaved", "norm": "reciprocal"},
    "partial": {"rope": "partial"},
    "op": {"attention": "op", "rope": "op", "norm": "op"},
    "op_decomposed_rope": {"attention": "op", "rope": "gathered", "norm": "pow"},
    "mha": {"attention": "mha", "rope": "microsoft"},
    "groups": {"packing": "groups", "rope": "partial"},
    "static": {"attention": "static", "rope": "op"},
}


if __name__ == "__main__":
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, choices in FORMS.items():
        (directory / f"{name}.onnx").write_bytes(Form(**choices).model().SerializeToString())
