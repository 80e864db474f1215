"""Exports with mobius, which builds opset-24 graphs from a checkpoint's configuration and takes its weights."""

import tempfile

import mobius

PACKAGES = ["mobius-onnx", "onnxscript", "onnx-ir", "transformers", "torch"]


def export(model, folder, static=0, provider="default"):
    """Writes model.onnx and model.onnx.data; `static` is the capacity of static caches, 0 for growing ones."""
    task = mobius.CausalLMTask(static_cache=True, max_seq_len=static) if static else None
    with tempfile.TemporaryDirectory() as checkpoint:
        model.save_pretrained(checkpoint)
        package = mobius.build(checkpoint, task=task, dtype="f32", execution_provider=provider)
    graph = package["model"].graph
    graph.name = "model"  # it was the path of the checkpoint
    package.save(str(folder))
