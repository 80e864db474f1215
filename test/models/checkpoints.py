"""Writes the checkpoints of test/models/checkpoints as transformers saves them, and the logits that they must give.

Run `scripts/fixtures.sh [NAME...]`, or this file with torch and transformers of requirements.txt. Nothing is fetched:
models come from configurations, with the weights and the sharpened attention of architectures.py. Each folder holds
config.json and the safetensors files of `save_pretrained`, unedited, and expected.npz: `ids_<i>`, a sequence, and
`logits_<i>` [tokens, vocabulary] of transformers on the saved files, with arithmetic in f32.
"""

import argparse
import pathlib
import shutil
import warnings

import numpy as np
import torch
import transformers

import architectures

HERE = pathlib.Path(__file__).resolve().parent / "checkpoints"
LENGTHS = [96, 65]
SHARD = "100KB"

YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}

# What no fixture of public.py needs: choices that configurations alone have.
architectures.ARCHITECTURES |= {
    "llama-bias": (
        "Llama",
        {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4, "hidden_act": "gelu",
         "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
        "MHA, biases, linear rope scaling, gelu",
    ),
    "qwen2-yarn": (
        "Qwen2",
        {"rope_parameters": YARN, "use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1,
         "head_dim": None},
        "YaRN, a window from the second layer on",
    ),
    "phi3-partial": (
        "Phi3",
        {"original_max_position_embeddings": 256, "sliding_window": 24,
         "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}},
        "rope on three quarters of the head, sliding window of 24",
    ),
}

# name: (type of the weights, whether they are in several files)
CHECKPOINTS = {
    "llama3": (torch.float32, False),
    "llama-bias": (torch.bfloat16, False),
    "qwen2": (torch.bfloat16, True),
    "qwen2-yarn": (torch.bfloat16, False),
    "qwen3": (torch.bfloat16, False),
    "mistral": (torch.float16, False),
    "phi3": (torch.bfloat16, False),
    "phi3-long": (torch.bfloat16, False),
    "phi3-partial": (torch.bfloat16, False),
    "gemma2": (torch.bfloat16, False),
    "gemma3": (torch.bfloat16, True),
}


@torch.no_grad()
def write(name):
    dtype, sharded = CHECKPOINTS[name]
    model, sequences = architectures.make(name)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, max_shard_size=SHARD if sharded else "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    saved = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    expected = {}
    # Longrope turns to other tables where a sequence grows beyond 64.
    lengths = [min(length, 64) for length in LENGTHS] if name == "phi3-long" else LENGTHS
    for i, length in enumerate(lengths):
        ids = sequences[i, :length]
        expected[f"ids_{i}"] = ids.numpy()
        expected[f"logits_{i}"] = saved(ids[None]).logits[0].numpy()
    np.savez_compressed(folder / "expected.npz", **expected)
    for path in folder.iterdir():
        path.chmod(0o644)
    size = sum(path.stat().st_size for path in folder.iterdir())
    largest = max(np.abs(value).max() for key, value in expected.items() if key.startswith("logits"))
    print(f"{name}: {size / 1000:.0f} kB, largest logit {largest:.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="checkpoints to write (default: all)")
    names = parser.parse_args().names
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in CHECKPOINTS:
        if not names or name in names:
            write(name)


if __name__ == "__main__":
    main()
