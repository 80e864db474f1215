"""Decoders of forms.py with weights of a few bits, and the same decoders with what those mean in f32."""

import forms
import numpy as np
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"


def packed(codes, bits):
    """Rows of codes in whole bytes, the first code in the lowest bits."""
    per = 8 // bits
    codes = np.pad(codes, ((0, 0), (0, -codes.shape[1] % per)))
    return sum(codes[:, i::per].astype(np.uint8) << np.uint8(bits * i) for i in range(per)).astype(np.uint8)


class Codes:
    """Rows of numbers as codes of `bits` bits in blocks: `codes` [rows, blocks * block], `scales` and `zeros` [rows,
    blocks], and `values`, what they mean: (code - zero) * scale in f64, rounded to f32."""

    def __init__(self, rows, bits, block, zero, scale=np.float32):
        columns = rows.shape[1]
        blocks = -(-columns // block)
        cut = np.pad(rows.astype(np.float64), ((0, 0), (0, blocks * block - columns))).reshape(len(rows), blocks, block)
        if zero in ("packed", "real"):
            low, high = np.minimum(cut.min(2), 0), np.maximum(cut.max(2), 0)
            self.scales = ((high - low) / (2**bits - 1) + 1e-6).astype(scale)
            self.zeros = -low / self.scales.astype(np.float64)
            self.zeros = np.rint(self.zeros).clip(0, 2**bits - 1) if zero == "packed" else self.zeros.astype(scale)
        else:
            top = 2**bits - 1 if zero == "zero" else 2 ** (bits - 1)
            self.scales = (np.abs(cut).max(2) / top + 1e-6).astype(scale)
            self.zeros = np.full(self.scales.shape, 0 if zero == "zero" else 2 ** (bits - 1))
        scales, zeros = self.scales.astype(np.float64)[..., None], self.zeros.astype(np.float64)[..., None]
        codes = np.rint(cut / scales + zeros).clip(0, 2**bits - 1).astype(np.int64)
        self.values = ((codes - zeros) * scales).reshape(len(rows), -1)[:, :columns].astype(np.float32)
        self.codes = codes.reshape(len(rows), -1)
        self.columns, self.bits, self.block, self.zero = columns, bits, block, zero


class Quantised(forms.Form):
    """`bits`, `block`, `zero` ("middle", "packed", "real") and `scale` of the products, `bias` added inside them;
    `table`: None, or how rows are embedded: (type, bits, block, zero), type UINT8, UINT4 or INT4; `tied`: the final
    product's codes serve as the table, reshaped."""

    def __init__(self, bits=4, block=16, zero="middle", scale=np.float32, bias=False, table=None, tied=False, **rest):
        super().__init__(**rest)
        self.format, self.bias, self.table_format, self.tied = (bits, block, zero, scale), bias, table, tied
        nodes, self.plain = self.nodes, None
        self.meaning = [helper.make_node(n.op_type, n.input, n.output, n.name, domain=n.domain) for n in nodes]
        for node, copy in zip(nodes, self.meaning):
            copy.attribute.extend(node.attribute)
        self.originals = dict(self.weights)
        self.means = dict(self.weights)
        self.typed = {}  # initializers that NumPy has no type for
        changed, plain = [], []
        for node, copy in zip(nodes, self.meaning):
            added, meant = self.convert(node, copy)
            changed += added
            plain += meant
        self.nodes, self.meaning = changed, plain

    def convert(self, node, copy):
        weights = [name for name in node.input if name in self.originals and self.originals[name].ndim == 2]
        if node.op_type == "MatMul" and len(weights) == 1 and node.input[1] == weights[0]:
            return self.product(node, copy, weights[0])
        if node.op_type == "Gather" and weights == ["embed"] and (self.table_format or self.tied):
            return self.rows(node, copy)
        return [node], [copy]

    def product(self, node, copy, name):
        bits, block, zero, scale = self.format
        codes = Codes(self.originals[name].T, bits, block, zero, scale)
        n, k = codes.values.shape
        blob = packed(codes.codes, bits)
        self.weights[f"{name}_codes"] = blob.reshape(n, -1, block * bits // 8)
        self.weights[f"{name}_scales"] = codes.scales
        inputs = [node.input[0], f"{name}_codes", f"{name}_scales"]
        if zero == "packed":
            self.weights[f"{name}_zeros"] = packed(codes.zeros, bits)
            inputs.append(f"{name}_zeros")
        if zero == "real":
            self.weights[f"{name}_zeros"] = codes.zeros
            inputs.append(f"{name}_zeros")
        self.means[name] = np.ascontiguousarray(codes.values.T)
        meant = [copy]
        if self.bias:
            bias = self.means[f"{name}_bias"] = self.weights[f"{name}_bias"] = (
                0.1 * self.random.standard_normal(n).astype(np.float32))
            inputs += [""] * (5 - len(inputs)) + [f"{name}_bias"]
            copy.output[0] += "/product"
            meant.append(helper.make_node("Add", [copy.output[0], f"{name}_bias"], node.output))
            assert bias.dtype == np.float32
        del self.weights[name]
        return [helper.make_node("MatMulNBits", inputs, node.output, node.name, domain=MICROSOFT, K=k, N=n, bits=bits,
                                 block_size=block)], meant

    def rows(self, node, copy):
        del self.weights["embed"]
        if self.tied:
            bits, block, zero, scale = self.format
            codes = Codes(self.originals["head"].T, bits, block, zero, scale)
            shape = self.ints(len(codes.codes), -1)
            self.nodes = []
            table = self.node("Reshape", "head_codes", shape)
            self.means["embed"] = codes.values
            inputs = [table, "input_ids", "head_scales"] + (["head_zeros"] if zero == "packed" else [])
            return self.nodes + [helper.make_node("GatherBlockQuantized", inputs, node.output, node.name, bits=bits,
                                                  domain=MICROSOFT, block_size=block)], [copy]
        kind, bits, block, zero = self.table_format
        codes = Codes(self.originals["embed"], bits, block, zero)
        table, zeros = codes.codes[:, : codes.columns], codes.zeros.astype(np.int64)
        flip = 2 ** (bits - 1) if kind == "INT4" else 0
        data = packed(table ^ flip, bits)
        shape = data.shape if kind == "UINT8" else table.shape
        self.typed["embed_codes"] = (getattr(TensorProto, kind), shape, data)
        self.weights["embed_scales"] = codes.scales
        inputs = ["embed_codes", "input_ids", "embed_scales"]
        if zero == "packed":
            data = packed(zeros ^ flip, bits)
            shape = data.shape if kind == "UINT8" else zeros.shape
            self.typed["embed_zeros"] = (getattr(TensorProto, kind), shape, data)
            inputs.append("embed_zeros")
        self.means["embed"] = codes.values
        attributes = {"bits": bits} if kind == "UINT8" else {}
        return [helper.make_node("GatherBlockQuantized", inputs, node.output, node.name, domain=MICROSOFT,
                                 block_size=block, gather_axis=0, quantize_axis=1, **attributes)], [copy]

    def model(self):
        model = super().model()
        for name, (kind, shape, data) in self.typed.items():
            model.graph.initializer.append(helper.make_tensor(name, kind, shape, data.tobytes(), raw=True))
        return model

    def meant(self):
        """The same decoder with plain products and rows in f32."""
        model = super().model()
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(self.meaning)
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in self.means.items())
        return model
