"""Checkpoints that must be refused, each with its number and what is said: refuse_checkpoints.py SCRATCH."""

import copy
import json
import os
import pathlib
import struct
import subprocess
import sys

import checkpoint
from checkpoint import CONFIG, LAYER, SHAPES, entries, write, write_file, write_shards

GOOD, DATA = entries(SHAPES)
NORM = "model.norm.weight"


def header(**changes):
    """The good header with other entries by tensor; None takes one away."""
    changed = {**copy.deepcopy(GOOD), **changes}
    return {name: entry for name, entry in changed.items() if entry is not None}


def entry(name, **fields):
    return {name: {**GOOD[name], **fields}}


def config(**changes):
    return {k: v for k, v in {**CONFIG, **changes}.items() if v != "ABSENT"}


def with_config(**changes):
    return lambda folder: write(folder, config(**changes))


def with_header(*changes):
    return lambda folder: write(folder, header=header(**{k: v for change in changes for k, v in change.items()}))


def with_text(text):
    return lambda folder: write(folder, header=text)


def raw(contents):
    def make(folder):
        write(folder)
        (folder / "model.safetensors").write_bytes(contents)
    return make


def without(name):
    def make(folder):
        write(folder)
        (folder / name).unlink()
    return make


def other_shapes(shapes, **changes):
    return lambda folder: write(folder, config(**changes), *entries(shapes))


def linked_out(folder):
    write(folder)
    outside = folder.parent / "outside"
    outside.mkdir(exist_ok=True)
    os.rename(folder / "model.safetensors", outside / "secret.safetensors")
    (folder / "model.safetensors").symlink_to("../outside/secret.safetensors")


def pipe(folder):
    write(folder)
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def renamed(folder_index):
    return lambda folder: write_shards(folder, folder_index)


def mapped(name, file):
    return lambda index: {"weight_map": {**index["weight_map"], name: file}}


def twice(folder):
    names = list(SHAPES)
    write_shards(folder, shapes={"a.safetensors": names[:7], "b.safetensors": names[6:]})


def tied(folder):
    write(folder, config(tie_word_embeddings=True))


start, end = GOOD[NORM]["data_offsets"]
rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16}
longrope = {"type": "longrope", "short_factor": [1.0, 1.0], "long_factor": [1.0, 4.0]}
phi3 = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "original_max_position_embeddings": 16}

CASES = {
    # Files.
    "no config": (without("config.json"), "HLX1100: the directory '.*' holds no config.json"),
    "no weights": (without("model.safetensors"), "HLX1100: the directory '.*' holds neither model.safetensors nor"),
    "a pipe": (pipe, "HLX1100: the file 'model.safetensors' is not a regular file"),
    "a link out": (linked_out, "HLX1102: the file 'model.safetensors' is a link out of the checkpoint's directory"),
    # JSON.
    "cut config": (lambda f: write(f, '{"model_type": "lla'), "HLX1101: 'config.json' is not a whole JSON object"),
    "config is a list": (lambda f: write(f, "[1]"), "HLX1101: 'config.json' is not a whole JSON object"),
    "two keys": (lambda f: write(f, '{"a": 1, "a": 2}'), "HLX1101: 'config.json' has the key 'a' twice"),
    "deep": (lambda f: write(f, '{"a": ' + "[" * 100000 + "]" * 100000 + "}"), "HLX1101: 'config.json' is nested more"),
    "deep and cut": (lambda f: write(f, '{"a": ' + '{"a":' * 100000), "HLX1101: 'config.json' is nested more"),
    "no UTF-8": (lambda f: write(f, header='{"\udcff": 1}'.encode("utf-8", "surrogateescape").decode("latin-1")),
                 "HLX1103: 'model.safetensors': tensor"),
    "huge number": (lambda f: write(f, '{"model_type": "llama", "hidden_size": 1e999}'), "HLX1101"),
    # The header.
    "empty file": (raw(b""), "HLX1103: 'model.safetensors' has 0 bytes, too few"),
    "huge header": (raw(struct.pack("<Q", 2**63) + b"{}"), "HLX1103: .*the header is said to have 9223372036854775808"),
    "text": (raw(b"version https://git-lfs.github.com/spec/v1\n"), "HLX1103: .*the header is said to have"),
    "header beyond": (raw(struct.pack("<Q", 100) + b"{}"), "HLX1103: .*the header is said to have 100 bytes"),
    "cut header": (with_text('{"a": {"dtype"'), "HLX1101: the header of 'model.safetensors' is not a whole JSON object"),
    "a tensor twice": (with_text('{"a": 1, "a": 2}'), "HLX1101: the header of 'model.safetensors' has the key 'a' twice"),
    "no entry": (with_header({NORM: 7}), "HLX1103: .*tensor 'model.norm.weight' must have a dtype"),
    "another key": (with_header(entry(NORM, strides=[1])), "HLX1103: .*and nothing else"),
    "unknown dtype": (with_header(entry(NORM, dtype="F4")), "HLX1103: .*'model.norm.weight' has the unknown dtype 'F4'"),
    "dtype a number": (with_header(entry(NORM, dtype=4)), "HLX1103: .*has the unknown dtype"),
    "negative size": (with_header(entry(NORM, shape=[-8])), "HLX1103: .*has a shape of sizes that are negative"),
    "half a size": (with_header(entry(NORM, shape=[8.0])), "HLX1103: .*has a shape of sizes that are negative, not whole"),
    "overflow": (with_header(entry(NORM, shape=[2**40, 2**40])), "HLX1103: .*come to more than 2\\^63 bytes"),
    "rank 9": (with_header(entry(NORM, shape=[1] * 9)), "HLX1103: .*no list of at most 8 sizes"),
    "one offset": (with_header(entry(NORM, data_offsets=[start])), "HLX1103: .*data_offsets that are no two"),
    "backwards": (with_header(entry(NORM, data_offsets=[end, start])), "HLX1103: .*in ascending order"),
    "negative offset": (with_header(entry(NORM, data_offsets=[-32, 0])), "HLX1103: .*data_offsets that are no two"),
    "wrong length": (with_header(entry(NORM, shape=[7])), "HLX1104: .*has 32 bytes, but dtype F32 and shape \\[7\\] need 28"),
    "overlap": (with_header(entry(NORM, data_offsets=[start - 4, end - 4])), "HLX1104: .*begins at byte"),
    "gap": (with_header({NORM: None}), "HLX1104: .*tensors must lie one behind the other"),
    "beyond the file": (lambda f: write(f, data=DATA[:-4]), "HLX1104: .*the file may be truncated"),
    "bytes behind": (lambda f: write(f, data=DATA + b"1234"), "HLX1104: .*its tensors end at byte"),
    "far offset": (with_header(entry(NORM, data_offsets=[2**62, 2**62 + 32])), "HLX1104: .*"),
    # The index.
    "path": (renamed(mapped(NORM, "../outside/secret.safetensors")), "HLX1102: the file '../outside/secret.safetensors' must"),
    "absolute": (renamed(mapped(NORM, "/etc/passwd")), "HLX1102: the file '/etc/passwd' must be named without"),
    "the directory": (renamed(mapped(NORM, "..")), "HLX1102: the file '..' must be named without"),
    "missing shard": (renamed(mapped(NORM, "c.safetensors")), "HLX1100: the file 'c.safetensors' is not in"),
    "no map": (renamed({"metadata": {}}), "HLX1105: .*has no weight_map"),
    "map of numbers": (renamed(mapped(NORM, 3)), "HLX1105: .*the file of tensor 'model.norm.weight' is not a text"),
    "in the other": (renamed(mapped(NORM, "b.safetensors")), "HLX1105: .*'model.norm.weight' is in 'b.safetensors', which does not"),
    "not listed": (renamed(lambda i: {"weight_map": {n: f for n, f in i["weight_map"].items() if n != NORM}}),
                   "HLX1105: .*does not list tensor 'model.norm.weight' of 'a.safetensors'"),
    "in both": (twice, "HLX1105: tensor 'model.*' is in 'b.safetensors' and in another file"),
    # Tensors.
    "missing tensor": (other_shapes({n: s for n, s in SHAPES.items() if n != NORM}), "HLX1110: .*no tensor 'model.norm.weight'"),
    "missing bias": (with_config(attention_bias=True), "HLX1110: .*no tensor 'model.layers.0.self_attn.k_proj.bias'"),
    "more layers": (with_config(num_hidden_layers=2), "HLX1110: .*no tensor 'model.layers.1.input_layernorm.weight'"),
    "unknown tensor": (other_shapes({**SHAPES, "lora": [2]}), "HLX1111: the checkpoint has the tensor 'lora', which no llama"),
    "a layer more": (other_shapes({**SHAPES, "model.layers.1.input_layernorm.weight": [8]}), "HLX1111: "),
    "terminal": (other_shapes({**SHAPES, "\x1b[31m" + "x" * 300: [2]}), "HLX1111: the checkpoint has the tensor '\\\\1B\\[31mx*\\.\\.\\.'"),
    "wrong shape": (other_shapes({**SHAPES, NORM: [4, 2]}), "HLX1112: .*has shape \\[4, 2\\], but by config.json it must have \\[8\\]"),
    "in f64": (lambda f: write(f, CONFIG, *entries(SHAPES, "F64")), "HLX1112: .*is of F64; supported are"),
    "untied head": (tied, "HLX1112: tensor 'lm_head.weight' differs from 'model.embed_tokens.weight'"),
    # The configuration.
    "no type": (with_config(model_type="ABSENT"), "HLX1107: config.json: 'model_type' is missing"),
    "another type": (with_config(model_type="mamba"), "HLX1106: config.json: 'model_type' is 'mamba'; known are llama"),
    "another head": (with_config(architectures=["LlamaForSequenceClassification"]), "HLX1106: .*'architectures' must be"),
    "layers none": (with_config(num_hidden_layers=0), "HLX1107: .*'num_hidden_layers' is 0; it must be"),
    "layers many": (with_config(num_hidden_layers=10**12), "HLX1107: .*'num_hidden_layers' is 1000000000000"),
    "hidden text": (with_config(hidden_size="8"), "HLX1107: .*'hidden_size' is \"8\"; it must be a whole number"),
    "half hidden": (with_config(hidden_size=8.5), "HLX1107: .*'hidden_size' is 8.5"),
    "heads": (with_config(num_key_value_heads=3), "HLX1107: .*'num_attention_heads' is 2, which is no multiple of the 3"),
    "hidden and heads": (with_config(hidden_size=7), "HLX1107: .*'hidden_size' is 7, which 2 heads do not divide"),
    "epsilon": (with_config(rms_norm_eps=0), "HLX1107: .*'rms_norm_eps' is 0; it must be a positive number"),
    "activation": (with_config(hidden_act="mish"), "HLX1108: .*'hidden_act' is 'mish'"),
    "unknown field": (with_config(residual_multiplier=0.5), "HLX1108: .*'residual_multiplier' is 0.5, and this field is not known"),
    "quantised": (with_config(quantization_config={"bits": 4}), "HLX1108: .*'quantization_config' is given: quantised"),
    "both ways": (with_config(use_bidirectional_attention=True), "HLX1108: .*is true, but only false is supported"),
    "window": (with_config(sliding_window=8), "HLX1108: .*'sliding_window' is given, but a llama model has none"),
    "layer types": (with_config(layer_types=["sliding_attention"]), "HLX11..: .*'layer_types'"),
    "too few types": (with_config(layer_types=[]), "HLX1107: .*'layer_types' must name"),
    "mistral's window": (with_config(model_type="mistral", architectures=["MistralForCausalLM"]),
                         "HLX1107: .*'sliding_window' is missing; give it, or null"),
    # Rotary embeddings.
    "dynamic rope": (with_config(rope_scaling={"type": "dynamic", "factor": 2.0}), "HLX1109: .*'rope_scaling.rope_type' is 'dynamic'"),
    "rope twice": (with_config(rope_scaling=rope, rope_parameters=rope), "HLX1109: .*are both given"),
    "rope a list": (with_config(rope_scaling=[1]), "HLX1107: .*'rope_scaling' must be an object"),
    "rope field": (with_config(rope_scaling={**rope, "mrope_section": [1]}), "HLX1108: .*'rope_scaling.mrope_section' is"),
    "rope bounds": (with_config(rope_scaling={**rope, "high_freq_factor": 1.0}), "HLX1107: .*'rope_scaling.high_freq_factor' must be above"),
    "rope part": (with_config(partial_rotary_factor=0.5), "HLX1109: .*rotates a part of each head"),
    "odd head": (with_config(head_dim=5), "HLX1109: .*give 5 elements to rotate"),
    "factors": (with_config(**phi3, rope_scaling={**longrope, "long_factor": [1.0]}), "HLX1107: .*'rope_scaling.long_factor' is \\[1.0\\]; it must be a list of 2"),
}

# What needs other tensors, or options.
PHI3 = {n: s for n, s in SHAPES.items() if "mlp.gate" not in n and "mlp.up" not in n and ".q_" not in n
        and ".k_" not in n and ".v_" not in n}
PHI3 |= {LAYER + "self_attn.qkv_proj.weight": [16, 8], LAYER + "mlp.gate_up_proj.weight": [12, 8]}
LONG = other_shapes(PHI3, **phi3, rope_scaling=longrope)
OPTIONS = {
    "longrope": (LONG, [], "HLX1109: the model turns to other rotary tables where a sequence grows beyond 16 tokens .* give --max-context 16"),
    "longrope at 17": (LONG, ["--max-context", "17"], "HLX1109: the model turns"),
    "longrope at 16": (LONG, ["--max-context", "16"], None),
    "too long": (write, ["--max-context", "33"], "HLX1019: the model is for 32 positions"),
    "no place for tables": (write, ["--inline-weights", ""], "HLX1036: rotary tables are computed"),
    "over its weights": (write, ["--inline-weights", "HERE/model.safetensors"], "HLX1037: .*would overwrite a file"),
    "batch": (write, ["--batch", "0"], "HLX1020: --batch is 0"),
    "no root": (write, ["--weights-root", "HERE/none"], "HLX1020: the weights root '.*none' is not a directory"),
    "a link with a root": (linked_out, ["--weights-root", "HERE/../outside"], None),
    "good": (write, [], None),
    "in two files": (write_shards, [], None),
    "an old buffer": (other_shapes({**SHAPES, LAYER + "self_attn.rotary_emb.inv_freq": [2]}), [], None),
    "metadata": (lambda f: write(f, header={"__metadata__": {"format": "pt"}, **GOOD}), [], None),
}


def main():
    scratch = pathlib.Path(sys.argv[1])
    cases = {**{name: (make, [], want) for name, (make, want) in CASES.items()}, **OPTIONS}
    wrong = 0
    for number, (name, (make, options, want)) in enumerate(cases.items()):
        folder = scratch / f"case{number}" / "model"
        make(folder)
        out = scratch / f"case{number}" / "out.mlir"
        flags = ["--inline-weights", str(scratch / f"case{number}" / "tables.safetensors")]
        flags = [str(folder) + flag[4:] if flag.startswith("HERE") else flag for flag in options] + (
            [] if "--inline-weights" in options else flags)
        before = {path: path.read_bytes() for path in folder.glob("*") if path.is_file()}
        done = subprocess.run(["helix-translate", "--import-huggingface", str(folder), "-o", str(out), *flags],
                              capture_output=True, text=True, timeout=60)
        import re
        good = done.returncode == 0 and out.exists() if want is None else (
            done.returncode == 1 and re.search(f"^helix-translate: error: {want}", done.stderr) and not out.exists())
        kept = all(path.read_bytes() == data for path, data in before.items())
        if not good or not kept:
            wrong += 1
            print(f"{name}: exit {done.returncode}: {done.stderr[:300]!r}\n  wanted {want}")
    print(f"{len(cases) - wrong} of {len(cases)} as they should be")
    return wrong != 0


if __name__ == "__main__":
    sys.exit(main())
