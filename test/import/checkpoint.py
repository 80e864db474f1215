"""A tiny Llama checkpoint, and how to write one that is not as it should be."""

import json
import pathlib
import struct

import numpy as np

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 16, "hidden_size": 8,
    "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0,
    "tie_word_embeddings": False, "attention_dropout": 0.1, "torch_dtype": "float32", "rope_scaling": None,
}
LAYER = "model.layers.0."
SHAPES = {
    "lm_head.weight": [16, 8], "model.embed_tokens.weight": [16, 8], "model.norm.weight": [8],
    LAYER + "input_layernorm.weight": [8], LAYER + "post_attention_layernorm.weight": [8],
    LAYER + "self_attn.q_proj.weight": [8, 8], LAYER + "self_attn.k_proj.weight": [4, 8],
    LAYER + "self_attn.v_proj.weight": [4, 8], LAYER + "self_attn.o_proj.weight": [8, 8],
    LAYER + "mlp.gate_proj.weight": [6, 8], LAYER + "mlp.up_proj.weight": [6, 8], LAYER + "mlp.down_proj.weight": [8, 6],
}
ELEMENTS = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8}


def entries(shapes, dtype="F32"):
    """The header of a file that holds these tensors, and its data."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + int(np.prod(shape)) * ELEMENTS[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    return header, np.random.default_rng(0).integers(0, 60, end, np.uint8).tobytes()


def write_file(path, header, data):
    """`header` may be a text, for one that JSON's writer would not write."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write(folder, config=CONFIG, header=None, data=None):
    """A checkpoint in one file."""
    good, bytes_ = entries(SHAPES)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    write_file(folder / "model.safetensors", good if header is None else header, bytes_ if data is None else data)
    return folder


def write_shards(folder, index=None, shapes=None):
    """A checkpoint in two files, unless `shapes` says otherwise, and its index."""
    names = list(SHAPES)
    shapes = shapes or {"a.safetensors": names[:6], "b.safetensors": names[6:]}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for file, held in shapes.items():
        write_file(folder / file, *entries({name: SHAPES[name] for name in held}))
    right = {"weight_map": {name: file for file, held in shapes.items() for name in held}}
    text = json.dumps(index(right) if callable(index) else index or right)
    (folder / "model.safetensors.index.json").write_text(text)
    return folder


if __name__ == "__main__":
    import sys

    write(pathlib.Path(sys.argv[1]) / "single")
    write_shards(pathlib.Path(sys.argv[1]) / "shards")
