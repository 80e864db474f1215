"""Writes the model fixtures of the tests: small Llama decoders as the onnxruntime-genai model builder exports them.

Run `scripts/fixtures.sh [NAME...]`, which makes an environment with the pinned packages of requirements.txt and calls
this file; without names all fixtures are written. Those of other architectures and exporters are export_public.py's. Nothing is fetched. Each fixture is
test/models/<name>/model.onnx and model.onnx.data, the builder's own files, unedited: float32, CPU execution provider,
GroupQueryAttention with fused rotary embedding, every initializer external. fixtures.json lists their shapes and what
was measured on them.

The weights are random but not default: with default initialisation attention is nearly uniform, and a broken KV cache
or merge would hardly show in the logits. So the q and k weights are scaled until the normalised entropy of each
layer's attention is ENTROPY, norms have weights other than 1, and logits reach 10 to 20. `needle` is trained
(train_needle.py), then sharpened in the same way.

The files are the same bit for bit on every run on the same kind of CPU.
"""

import argparse
import copy
import json
import pathlib

import numpy as np
import onnx_ir
import onnxruntime
import onnxruntime_genai.models  # puts the builder's modules on the path
import torch
import builders
from builders import LlamaModel
from transformers import LlamaConfig, LlamaForCausalLM

from decoder import decode, normalised_entropy
from public import FIXTURES as PUBLIC
from train_needle import make_prompts, train

# Left to itself the builder stamps the file with the commit of whatever repository it is installed within.
builders.base.Model.get_genai_commit = classmethod(lambda cls: None)

HERE = pathlib.Path(__file__).resolve().parent
SEED = 20250707
ENTROPY = 0.55  # the most that tests rely on is 0.6
LENGTH = 96  # tokens of the sequences that fixtures are measured on
PREFILL = 37  # how many of them ONNX Runtime gets at once; the others follow one by one

LLAMA3_THETA = {"rope_type": "default", "rope_theta": 500000.0}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

# name: layers, hidden, ffn, heads, kv_heads, head_dim, vocab, and other LlamaConfig arguments. Wide heads come with
# fewer positions and the many heads with a smaller hidden size, to keep the files small.
SHAPES = {
    "llama-tiny": (2, 64, 160, 4, 2, 16, 256, {}),
    "llama-odd": (2, 72, 101, 9, 3, 16, 251, {"rms_norm_eps": 1e-3, "rope_parameters": LLAMA3_THETA}),
    "llama-one": (1, 48, 80, 1, 1, 64, 96, {}),
    "llama-d80": (1, 48, 64, 4, 2, 80, 96, {"max_position_embeddings": 256}),
    "llama-d96": (1, 48, 64, 6, 2, 96, 96, {"max_position_embeddings": 256}),
    "llama-d128": (1, 48, 64, 4, 2, 128, 96, {"max_position_embeddings": 256}),
    "llama-d256": (1, 48, 64, 4, 2, 256, 96, {"max_position_embeddings": 256}),
    "llama-h63": (1, 48, 64, 63, 21, 16, 96, {}),
    "llama-h126": (1, 32, 64, 126, 6, 16, 100, {}),
    "llama-rope3": (2, 64, 160, 4, 2, 16, 256, {"rope_parameters": LLAMA3_ROPE}),
    "needle": (2, 64, 160, 4, 2, 16, 96, {}),
}


def make_model(layers, hidden, ffn, heads, kv_heads, head_dim, vocab, extra):
    """An untied LlamaForCausalLM in float32 with these shapes."""
    # The builder takes any linear layer that has `vocab` outputs for the LM head.
    assert vocab not in (hidden, ffn, heads * head_dim, kv_heads * head_dim)
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        num_hidden_layers=layers,
        hidden_size=heads,
        intermediate_size=ffn,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=vocab,
        tie_word_embeddings=False,
        **{"max_position_embeddings": 512, "rms_norm_eps": 1e-5, **extra},
    )
    config.hidden_size = hidden  # the constructor refuses one that heads does not divide, even with head_dim given
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def randomise(model, generator):
    """Draws weights such that every part of the model matters to the logits."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            weight.copy_(1 + 0.25 * noise)
        elif "embed_tokens" in name:
            weight.copy_(noise)
        else:
            weight.copy_(noise * ((3 if "lm_head" in name else 1) / weight.shape[1] ** 0.5))


def entropies(model, sequences):
    """Normalised attention entropy of each layer, averaged over the sequences."""
    return np.mean([[normalised_entropy(a) for a in decode(model, ids)[1]] for ids in sequences], 0)


@torch.no_grad()
def sharpen(model, sequences):
    """Scales each layer's q and k weights up, first layer first, until its attention has entropy ENTROPY at most."""
    for index, layer in enumerate(model.model.layers):
        weights = [layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight]
        original = [weight.clone() for weight in weights]
        low, high = 1.0, 16.0  # never blunter than it was
        for _ in range(16):
            scale = (low + high) / 2
            for weight, start in zip(weights, original):
                weight.copy_(start * scale)
            low, high = (low, scale) if entropies(model, sequences)[index] < ENTROPY else (scale, high)


class Builder(LlamaModel):
    """The model builder on a model in memory. Its command line also wants a checkpoint, a tokenizer and a cache."""

    def __init__(self, model):
        float32 = onnx_ir.DataType.FLOAT
        super().__init__(copy.deepcopy(model.config), float32, float32, "cpu", cache_dir="", extra_options={})
        self.loaded = model

    def load_weights(self, input_path):
        return self.loaded


def export(model, folder):
    """Writes model.onnx and model.onnx.data of `model` into `folder` with the model builder."""
    folder.mkdir(exist_ok=True)
    builder = Builder(model)
    builder.make_model(input_path="")
    builder.save_model(folder)


def run_onnxruntime(path, config, ids, prefill=PREFILL):
    """Logits [T, vocab] of ONNX Runtime for one sequence: `prefill` tokens at once, then one at a time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    empty = np.zeros((1, config.num_key_value_heads, 0, config.head_dim), np.float32)
    past = {
        f"past_key_values.{layer}.{part}": empty
        for layer in range(config.num_hidden_layers)
        for part in ("key", "value")
    }
    present = [name.replace("past_key_values", "present") for name in past]
    logits, start = [], 0
    for end in range(prefill, len(ids) + 1):
        feed = {"input_ids": ids[None, start:end].numpy(), "attention_mask": np.ones((1, end), np.int64), **past}
        step, *caches = session.run(["logits", *present], feed)
        logits.append(step[0])
        past = dict(zip(past, caches))
        start = end
    return np.concatenate(logits)


def relative_error(a, b):
    """max|a - b| / max|b|"""
    return float(np.abs(a - b).max() / np.abs(b).max())


@torch.no_grad()
def describe(model, folder, sequences):
    """The fixture's line of fixtures.json; raises if ONNX Runtime or Hugging Face disagree with the float64 decoder."""
    config = model.config
    reference = [decode(model, ids)[0].numpy() for ids in sequences]
    onnx_error = max(
        relative_error(run_onnxruntime(folder / "model.onnx", config, ids), logits)
        for ids, logits in zip(sequences, reference)
    )
    torch_error = max(
        relative_error(model(ids[None]).logits[0].numpy(), logits) for ids, logits in zip(sequences, reference)
    )
    entropy = entropies(model, sequences)
    if onnx_error > 1e-5 or torch_error > 1e-4 or entropy.max() > 0.6:
        raise SystemExit(f"{folder.name}: ort {onnx_error:.1e}, torch {torch_error:.1e}, entropy {entropy}")
    return {
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "ffn": config.intermediate_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "vocab": config.vocab_size,
        "max_positions": config.max_position_embeddings,
        "rope_theta": config.rope_parameters["rope_theta"],
        "rope_type": config.rope_parameters["rope_type"],
        "rms_norm_eps": config.rms_norm_eps,
        "entropy": [round(float(e), 3) for e in entropy],
        "max_logit": round(float(max(np.abs(logits).max() for logits in reference)), 2),
        "ort_error": float(f"{onnx_error:.1e}"),
    }


def ask_needles(config, folder, prompts):
    """Lets ONNX Runtime answer the prompts and returns the exact-match score; the first 32 go to prompts.jsonl."""
    path = folder / "model.onnx"
    right = [run_onnxruntime(path, config, ids, len(ids))[-1].argmax() == answer for ids, answer in prompts]
    lines = [json.dumps({"ids": ids.tolist(), "answer": answer}) + "\n" for ids, answer in prompts[:32]]
    (folder / "prompts.jsonl").write_text("".join(lines))
    return {"exact_match": float(np.mean(right))}


def main():
    parser = argparse.ArgumentParser(description="Write the model fixtures.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="fixtures to write (default: all)")
    names = parser.parse_args().names
    if unknown := set(names) - SHAPES.keys() - PUBLIC.keys():
        parser.error(f"no fixture is called {', '.join(sorted(unknown))}")
    names = [name for name in SHAPES if name in names or not names]
    torch.set_num_threads(1)
    listing = HERE / "fixtures.json"
    fixtures = json.loads(listing.read_text()) if listing.exists() else {}
    for name in names:
        generator = torch.Generator().manual_seed(SEED)
        model = make_model(*SHAPES[name])
        vocab = model.config.vocab_size
        randomise(model, generator)
        if name == "needle":
            train(model, generator)
            sequences = [ids for ids, _ in make_prompts(4, vocab, generator, shortest=LENGTH)]
        else:
            sequences = torch.randint(vocab, (4, LENGTH), generator=generator)
        sharpen(model, sequences)
        export(model, HERE / name)
        measured = {}
        if name == "needle":
            measured = ask_needles(model.config, HERE / name, make_prompts(200, vocab, generator))
        fixtures[name] = {**describe(model, HERE / name, sequences), **measured}
        print(name, fixtures[name], flush=True)
        known = {key: fixtures[key] for key in [*SHAPES, *PUBLIC] if key in fixtures}
        listing.write_text("{\n" + ",\n".join(f'  "{k}": {json.dumps(v)}' for k, v in known.items()) + "\n}\n")


if __name__ == "__main__":
    main()
