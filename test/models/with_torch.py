"""Exports with torch.onnx of a transformers model with growing caches."""

import torch
from transformers import DynamicCache

import architectures

PACKAGES = ["torch", "onnxscript", "onnx-ir", "transformers"]


class WithCaches(torch.nn.Module):
    """The model with its caches as plain tensors: key and value of each layer, in and out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, position_ids, *past):
        caches = DynamicCache(list(zip(past[::2], past[1::2])))
        result = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=caches,
            use_cache=True,
        )
        present = [tensor for layer in result.past_key_values.layers for tensor in (layer.keys, layer.values)]
        return result.logits, *present


@torch.no_grad()
def export(model, folder, opset, attention="sdpa"):
    """Writes model.onnx and model.onnx.data; from opset 23 on torch.onnx writes sdpa as one Attention."""
    config = model.config
    _, kv_heads, head_dim = architectures.heads_and_width(config)
    layers = range(config.num_hidden_layers)
    # Sizes of the example must differ and not be 1, or they would be taken for constants or for each other.
    batch, tokens, past = 2, 3, 5
    caches = [torch.randn(batch, kv_heads, past, head_dim) for _ in layers for _ in "kv"]
    names = [f"{layer}.{part}" for layer in layers for part in ("key", "value")]
    program = torch.onnx.export(
        WithCaches(architectures.twin(model, attention)).eval(),
        (
            torch.randint(config.vocab_size, (batch, tokens)),
            torch.ones(batch, past + tokens, dtype=torch.int64),
            torch.arange(past, past + tokens).expand(batch, -1),
            *caches,
        ),
        input_names=["input_ids", "attention_mask", "position_ids", *(f"past_key_values.{name}" for name in names)],
        output_names=["logits", *(f"present.{name}" for name in names)],
        dynamic_shapes={
            "input_ids": {0: "batch", 1: "sequence"},
            "attention_mask": {0: "batch", 1: "total"},
            "position_ids": {0: "batch", 1: "sequence"},
            "past": tuple({0: "batch", 2: "past"} for _ in caches),
        },
        opset_version=opset,
        dynamo=True,
        verbose=False,
    )
    # Its notes on nodes hold stack traces, with paths of the machine.
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    program.save(folder / "model.onnx", external_data=True)
