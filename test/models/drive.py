"""Runs any fixture in ONNX Runtime, whatever inputs its exporter gave it.

All conventions of caches are fed: growing ones (past_key_values.N.key and present.N.key, [batch, heads, past, width]),
bounded ones (the same, but as long before as after the step), and static ones (key_cache.N and updated_key_cache.N,
[batch, capacity, heads * width], with write_indices and nonpad_kv_seqlen). It needs numpy, onnx and onnxruntime only, because the end-to-end tests use it too.
"""

import re

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

ELEMENTS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

# Rows of a bounded cache, which the genai builder gives layers with a sliding window: no fewer than any window here.
SLIDING_ROWS = 32


def open_session(model):
    """A session on one thread, for a path or for a ModelProto that holds all its weights."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = options.enable_mem_reuse = False  # 1.32 reuses buffers of the wrong shape in f16 graphs
    source = str(model) if not isinstance(model, onnx.ModelProto) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def present_of(name):
    """The output that holds a cache input after the step."""
    return name.replace("past_key_values", "present") if name.startswith("past_key_values") else "updated_" + name


def empty_caches(session, head_dim):
    """Each cache input before the first token, by name."""
    caches = {}
    for given in session.get_inputs():
        if re.fullmatch(r"past_key_values\.\d+\.(key|value)", given.name):
            _, heads, length, width = given.shape
            rows = SLIDING_ROWS if length == "past_sliding_length" else 0
            width = width if isinstance(width, int) else head_dim
            caches[given.name] = np.zeros((1, heads, rows, width), ELEMENTS[given.type])
        elif re.fullmatch(r"(key|value)_cache\.\d+", given.name):
            caches[given.name] = np.zeros((1, *given.shape[1:]), ELEMENTS[given.type])
    return caches


def logits(session, ids, head_dim, prefill=None):
    """Logits [tokens, vocabulary] f32 of one sequence: `prefill` tokens (all if None) at once, then one at a time."""
    names = [given.name for given in session.get_inputs()]
    caches = empty_caches(session, head_dim)
    ids, start, parts = np.asarray(ids, np.int64), 0, []
    for end in range(prefill or len(ids), len(ids) + 1):
        feeds = {
            "input_ids": ids[None, start:end],
            "attention_mask": np.ones((1, end), np.int64),
            "position_ids": np.arange(start, end)[None],
            "write_indices": np.array([start]),
            "nonpad_kv_seqlen": np.array([end]),
            **caches,
        }
        step, *after = session.run(["logits", *map(present_of, caches)], {name: feeds[name] for name in names})
        parts.append(step[0].astype(np.float32))
        caches = dict(zip(caches, after))
        start = end
    return np.concatenate(parts)


def unpack(packed, bits):
    """The unsigned values of a uint8 array, the lowest bits of a byte first, along the last axis."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return values.reshape(*packed.shape[:-1], -1)


def dequantise(model):
    """Replaces each MatMulNBits by a MatMul with the weights in f32, as the op's documentation defines them.

    ONNX Runtime may compute MatMulNBits with activations of 8 bits (accuracy_level 4); after this it cannot. Returns
    the weights [N, K] by node name; `model` is changed and must hold its weights.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = {}
    for node in model.graph.node:
        if node.op_type != "MatMulNBits":
            continue
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        n, k, bits, block = (given[key] for key in ("N", "K", "bits", "block_size"))
        blocks = -(-k // block)
        packed, scales, *rest = (numpy_helper.to_array(constants[name]) for name in node.input[1:] if name)
        zeros = np.full((n, blocks), 2 ** (bits - 1), np.uint8)
        if rest:
            zeros = unpack(rest[0].reshape(n, -1), bits)[:, :blocks]
        values = unpack(packed.reshape(n, blocks, -1), bits).astype(np.float32) - zeros[:, :, None]
        weight = (values * scales.reshape(n, blocks, 1)).reshape(n, -1)[:, :k].astype(np.float32)
        weights[node.name] = weight
        name = node.output[0] + "/dequantised"
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(weight.T), name))
        plain = helper.make_node("MatMul", [node.input[0], name], node.output, node.name)
        node.CopyFrom(plain)
    return weights


def attributes_of(graph):
    """Each node's attributes, those of subgraphs too."""
    for node in graph.node:
        for attribute in node.attribute:
            yield node, attribute
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from attributes_of(attribute.g)


def widen(model):
    """Turns every float16 of the graph into float32, in place: weights, constants, casts, inputs and outputs."""
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT

    def wide(tensor):
        if tensor.data_type == half:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))

    for tensor in model.graph.initializer:
        wide(tensor)
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = single
    for node, attribute in attributes_of(model.graph):
        if attribute.type == onnx.AttributeProto.TENSOR:
            wide(attribute.t)
        elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == half:
            attribute.i = single


def exact(path):
    """The model with its stored weights, f16 or packed, but all its arithmetic in f32; and the unpacked weights."""
    model = onnx.load(path)
    weights = dequantise(model)
    widen(model)
    return model, weights
