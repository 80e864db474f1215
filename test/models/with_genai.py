"""Exports with the onnxruntime-genai model builder from a model in memory."""

import copy

import onnx_ir
import onnxruntime_genai.models  # isort: skip, puts the builder's modules on the path
import builders

# Left to itself the builder stamps the file with the commit of whatever repository it is installed within.
builders.base.Model.get_genai_commit = classmethod(lambda cls: None)

PACKAGES = ["onnxruntime-genai", "onnxruntime", "onnx-ir", "transformers", "torch"]
# precision: element type of inputs and outputs, of the weights
PRECISIONS = {
    "f32": (onnx_ir.DataType.FLOAT, onnx_ir.DataType.FLOAT),
    "f16": (onnx_ir.DataType.FLOAT16, onnx_ir.DataType.FLOAT16),
    "int4": (onnx_ir.DataType.FLOAT, onnx_ir.DataType.INT4),
    "uint4": (onnx_ir.DataType.FLOAT, onnx_ir.DataType.UINT4),
}
BUILDERS = {
    "gemma2": builders.Gemma2Model,
    "gemma3_text": builders.Gemma3Model,
    "granite": builders.GraniteModel,
    "llama": builders.LlamaModel,
    "mistral": builders.MistralModel,
    "phi3": builders.Phi3MiniModel,
    "qwen2": builders.QwenModel,
    "qwen3": builders.Qwen3Model,
}


def builder_config(model):
    """The configuration as the builder reads it."""
    config = copy.deepcopy(model.config)
    if config.model_type == "gemma3_text":
        # Version 0.18 reads Gemma 3's two rope tables from transformers 4's keys.
        local, everywhere = (config.rope_parameters[kind] for kind in ("sliding_attention", "full_attention"))
        config.rope_local_base_freq = local["rope_theta"]
        config.rope_parameters = dict(everywhere)
    return config


def export(model, folder, precision="f32", provider="cpu", **extra_options):
    """Writes model.onnx and model.onnx.data, as the builder's command line does for that precision and provider."""
    config = builder_config(model)
    kind = BUILDERS[config.model_type]
    if config.model_type == "phi3" and config.max_position_embeddings != config.original_max_position_embeddings:
        kind = builders.Phi3MiniLongRoPEModel
    io_type, weight_type = PRECISIONS[precision]
    loaded = type(kind.__name__, (kind,), {"load_weights": lambda self, input_path: copy.deepcopy(model)})
    builder = loaded(config, io_type, weight_type, provider, cache_dir="", extra_options=extra_options)
    builder.make_model(input_path="")
    builder.save_model(folder)
