"""A decoder of one layer in the form that onnxruntime-genai's model builder writes, open to be altered."""

import os

import numpy as np
import onnx
from onnx import TensorProto, helper

HIDDEN, HEADS, KV_HEADS, DIM, FFN, VOCABULARY, POSITIONS = 8, 2, 1, 4, 12, 16, 64
MICROSOFT = "com.microsoft"


def _values(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class Decoder:
    """The parts of a model; `save` puts every initializer in model.onnx.data."""

    def __init__(self, packed=True):
        self.weights = {
            "embed": _values((VOCABULARY, HIDDEN), 0),
            "norm0": _values((HIDDEN,), 1),
            "cos": _values((POSITIONS, DIM // 2), 2),
            "sin": _values((POSITIONS, DIM // 2), 3),
            "o": _values((HEADS * DIM, HIDDEN), 4),
            "norm1": _values((HIDDEN,), 5),
            "gate": _values((HIDDEN, FFN), 6),
            "up": _values((HIDDEN, FFN), 7),
            "down": _values((FFN, HIDDEN), 8),
            "norm2": _values((HIDDEN,), 9),
            "lm_head": _values((HIDDEN, VOCABULARY), 10),
        }
        self.nodes = []
        self.inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "t"]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["b", "s"]),
        ]
        self.outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "t", VOCABULARY])]
        for part in ("key", "value"):
            shape = ["b", KV_HEADS, "p", "d"]
            self.inputs.append(helper.make_tensor_value_info(f"past.0.{part}", TensorProto.FLOAT, shape))
            self.outputs.append(helper.make_tensor_value_info(f"present.0.{part}", TensorProto.FLOAT, shape))
        self.opsets = {"": 21, MICROSOFT: 1}
        self.ir_version = 10
        self.functions = []

        self.constant("one", np.array([1], np.int64))
        self.node("ReduceSum", ["attention_mask", "one"], ["row_sums"], keepdims=0)
        self.node("Sub", ["row_sums", "one"], ["seqlens64"])
        self.node("Cast", ["seqlens64"], ["seqlens"], to=TensorProto.INT32)
        self.node("Shape", ["attention_mask"], ["mask_shape"])
        self.constant("scalar_one", np.array(1, np.int64))
        self.node("Gather", ["mask_shape", "scalar_one"], ["total64"], axis=0)
        self.node("Cast", ["total64"], ["total"], to=TensorProto.INT32)
        self.node("Gather", ["embed", "input_ids"], ["x0"])
        self.node("SimplifiedLayerNormalization", ["x0", "norm0"], ["n0"], epsilon=0.5, axis=-1, stash_type=1)
        if packed:
            self.weights["qkv"] = _values((HIDDEN, (HEADS + 2 * KV_HEADS) * DIM), 11)
            self.node("MatMul", ["n0", "qkv"], ["packed"])
            qkv = ["packed", "", ""]
        else:
            qkv = ["q", "k", "v"]
            for i, name in enumerate(qkv):
                self.weights[f"{name}_proj"] = _values((HIDDEN, (HEADS if i == 0 else KV_HEADS) * DIM), 12 + i)
                self.node("MatMul", ["n0", f"{name}_proj"], [name])
        self.node(
            "GroupQueryAttention",
            qkv + ["past.0.key", "past.0.value", "seqlens", "total", "cos", "sin", "", "", ""],
            ["a", "present.0.key", "present.0.value"],
            domain=MICROSOFT,
            num_heads=HEADS,
            kv_num_heads=KV_HEADS,
            scale=0.25,
            local_window_size=-1,
            softcap=0.0,
            do_rotary=1,
            rotary_interleaved=0,
        )
        self.node("MatMul", ["a", "o"], ["ao"])
        self.node("SkipSimplifiedLayerNormalization", ["x0", "ao", "norm1"], ["n1", "", "", "x1"], domain=MICROSOFT,
                  epsilon=0.5)
        self.node("MatMul", ["n1", "gate"], ["g"])
        self.node("MatMul", ["n1", "up"], ["u"])
        self.node("Sigmoid", ["g"], ["sg"])
        self.node("Mul", ["g", "sg"], ["act"])
        self.node("Mul", ["act", "u"], ["gu"])
        self.node("MatMul", ["gu", "down"], ["f"])
        self.node("SkipSimplifiedLayerNormalization", ["x1", "f", "norm2"], ["n2"], domain=MICROSOFT, epsilon=0.5)
        self.node("MatMul", ["n2", "lm_head"], ["logits"])

    def node(self, op, inputs, outputs, domain="", at=None, **attributes):
        """Adds a node, named after its first output, at the end or before the node named `at`."""
        node = helper.make_node(op, inputs, outputs, name=f"/{outputs[0]}", domain=domain, **attributes)
        self.nodes.insert(len(self.nodes) if at is None else self.nodes.index(self[at]), node)
        return node

    def constant(self, name, value, at=None):
        return self.node("Constant", [], [name], at=at, value=onnx.numpy_helper.from_array(value, name))

    def __getitem__(self, name):
        """The node named "/name"."""
        return next(node for node in self.nodes if node.name == f"/{name}")

    def value(self, name):
        """The graph input or output of that name."""
        return next(info for info in self.inputs + self.outputs if info.name == name)

    def set(self, name, **attributes):
        """Replaces or adds attributes of the node named "/name"."""
        node = self[name]
        kept = [a for a in node.attribute if a.name not in attributes]
        del node.attribute[:]
        node.attribute.extend(kept + [helper.make_attribute(k, v) for k, v in attributes.items()])

    def model(self, external=True):
        """The model, and the bytes of its data file."""
        data = bytearray()
        initializers = []
        for name, value in self.weights.items():
            tensor = onnx.numpy_helper.from_array(value, name)
            if external:
                place = {"location": "model.onnx.data", "offset": len(data), "length": value.nbytes}
                data += value.tobytes()
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                for key, text in place.items():
                    tensor.external_data.add(key=key, value=str(text))
            initializers.append(tensor)
        graph = helper.make_graph(self.nodes, "main_graph", self.inputs, self.outputs, initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in self.opsets.items()],
                                  functions=self.functions)
        model.ir_version = self.ir_version
        return model, bytes(data)


def write(directory, model, data):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "model.onnx"), "wb") as file:
        file.write(model if isinstance(model, bytes) else model.SerializeToString())
    if data:
        with open(os.path.join(directory, "model.onnx.data"), "wb") as file:
            file.write(data)
