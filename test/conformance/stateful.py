"""A causal attention case as a decoder whose logits are the attention's output.

The embedding of a token is its query, key and value, side by side, and zeros to which the output projection adds what
attention gives; the projections pick these apart, and so does the head. So what a sharded decode step appends, attends
over and merges is the case's own numbers, and its logits are to be the case's output.
"""

import dataclasses

import numpy as np
from onnx import TensorProto, helper, numpy_helper


@dataclasses.dataclass
class Decoder:
    model: object  # ONNX
    prompts: list[list[int]]  # token ids per sequence
    expected: list[dict[int, np.ndarray]]  # per sequence, position -> the output there, [heads * value width]
    batch: int
    context: int


def heads_first(array, heads):
    """[batch, heads, tokens, width] of that or of [batch, tokens, heads * width]; f32."""
    array = np.asarray(array, np.float32)
    if array.ndim == 3:
        batch, tokens, width = array.shape
        array = array.reshape(batch, tokens, heads, width // heads).transpose(0, 2, 1, 3)
    return array


def causal(case):
    """Whether a growing cache can tell the same story: causal, no mask of its own, outputs of attention alone."""
    node = case.model.graph.node[0]
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    has_mask = len(node.input) > 3 and node.input[3]
    return node.op_type == "Attention" and attributes.get("is_causal", 0) == 1 and not has_mask


def decoder(case):
    """The case as a decoder. Queries that stand before the first token or behind the last are left out."""
    node = case.model.graph.node[0]
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    given = {role: case.inputs[name] for role, name in
             zip(("q", "k", "v", "mask", "past_k", "past_v", "lengths"), node.input) if name}
    kv_heads = attributes.get("kv_num_heads") or given["k"].shape[1]
    q_heads = attributes.get("q_num_heads") or given["q"].shape[1]
    q, k, v = heads_first(given["q"], q_heads), heads_first(given["k"], kv_heads), heads_first(given["v"], kv_heads)
    y = heads_first(case.outputs[node.output[0]], q_heads)
    if "past_k" in given:
        k = np.concatenate([np.asarray(given["past_k"], np.float32), k], axis=2)
        v = np.concatenate([np.asarray(given["past_v"], np.float32), v], axis=2)
    batch, tokens, held = q.shape[0], q.shape[2], k.shape[2]
    lengths = given.get("lengths", np.full(batch, held))
    past = given["past_k"].shape[2] if "past_k" in given else 0
    offsets = lengths - tokens if "lengths" in given else np.full(batch, past)

    rows, prompts, expected = [], [], []
    for b in range(batch):
        last = min(int(lengths[b]), int(offsets[b]) + tokens)
        prompts.append(list(range(len(rows), len(rows) + last)))
        expected.append({})
        for position in range(last):
            i = position - int(offsets[b])
            query = q[b, :, i] if i >= 0 else np.zeros_like(q[b, :, 0])
            rows.append(np.concatenate([query.ravel(), k[b, :, position].ravel(), v[b, :, position].ravel(),
                                        np.zeros_like(y[b, :, 0]).ravel()]))
            if i >= 0:
                expected[b][position] = y[b, :, i].ravel()
    width = y.shape[1] * y.shape[3]
    vocabulary = max(len(rows), width)
    table = np.zeros((vocabulary, len(rows[0])), np.float32)
    table[:len(rows)] = rows

    weights, start, unit = {"table": table}, 0, np.eye(table.shape[1], dtype=np.float32)
    for name, size in zip(("wq", "wk", "wv"), (part[0, :, 0].size for part in (q, k, v))):
        weights[name] = unit[:, start:start + size]
        start += size
    weights["wo"] = unit[start:]
    weights["head"] = np.pad(unit[:, start:], ((0, 0), (0, vocabulary - width)))
    kept = {name: value for name, value in attributes.items() if name not in ("q_num_heads", "kv_num_heads")}
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["x"], "embed")]
    nodes += [helper.make_node("MatMul", ["x", f"w{p}"], [p], f"{p}_proj") for p in "qkv"]
    nodes += [
        helper.make_node("Attention", ["q", "k", "v", "", "past_key_values.0.key", "past_key_values.0.value"],
                         ["attended", "present.0.key", "present.0.value"], "attention",
                         q_num_heads=q_heads, kv_num_heads=kv_heads, **kept),
        helper.make_node("MatMul", ["attended", "wo"], ["projected"], "o_proj"),
        helper.make_node("Add", ["x", "projected"], ["residual"], "add"),
        # Something that reads the residual twice, as networks do.
        helper.make_node("Sub", ["residual", "residual"], ["nothing"], "less"),
        helper.make_node("Add", ["residual", "nothing"], ["last"], "and"),
        helper.make_node("MatMul", ["last", "head"], ["logits"], "head_proj"),
    ]

    def cache(name, length, width):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", kv_heads, length, width])

    widths = {"key": k.shape[3], "value": v.shape[3]}
    graph = helper.make_graph(
        nodes, case.name,
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])] +
        [cache(f"past_key_values.0.{part}", "past", size) for part, size in widths.items()],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", vocabulary])] +
        [cache(f"present.0.{part}", "total", size) for part, size in widths.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()])
    model = helper.make_model(graph, ir_version=10, opset_imports=list(case.model.opset_import))
    return Decoder(model, prompts, expected, batch, max(len(prompt) for prompt in prompts))
