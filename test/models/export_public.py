"""Writes the fixtures from public exporters: public.py lists them, architectures.py makes their models.

Run `scripts/fixtures.sh [NAME...]`. Each fixture is test/models/<name>/model.onnx and its data, the exporter's own
files, unedited. Each is checked: ONNX Runtime's logits on it against the PyTorch model's, in one pass and token by
token, within BOUND, and attention no blunter than BLUNTEST. Where weights are stored in f16 or int4 both compute in
f32 with the weights as stored; ort_error_as_stored is how far ONNX Runtime gets from that on the file as it is.
fixtures.json lists what was measured.
"""

import argparse
import copy
import importlib
import importlib.metadata
import json
import pathlib
import re
import shutil
import warnings

import numpy as np
import onnx
import torch

import architectures
import drive
from public import EXPORTERS, FIXTURES

HERE = pathlib.Path(__file__).resolve().parent
LISTING = HERE / "fixtures.json"
BLUNTEST = 0.6
# How many tokens ONNX Runtime gets at once in the second run, 37 if not listed. Longrope turns to other tables, for all
# tokens, where a sequence grows beyond 64: both runs must end with the same ones.
PREFILL = {"phi3-long": 70}
BOUND = 1e-5  # of max|a - b| / max|b| over the logits


def weight_type(options):
    """f32, f16 or int4."""
    return {"uint4": "int4"}.get(options.get("precision"), options.get("precision", "f32"))


@torch.no_grad()
def quantised_twin(model, weights):
    """The model with its linear layers' weights replaced by what the genai builder's MatMulNBits hold, by node name.

    Each must be within half a step of the original, so that it is a rounding of this weight and no other.
    """
    other = copy.deepcopy(model)
    modules = dict(other.named_modules())
    for name, weight in weights.items():
        path = re.sub(r"/MatMul\w*$", "", name).strip("/").replace("/", ".").replace(".attn.", ".self_attn.")
        parts = ["q_proj", "k_proj", "v_proj"] if path.endswith("qkv_proj") else [path.rsplit(".")[-1]]
        layers = [modules[path.rsplit(".", 1)[0] + "." + part] if "." in path else modules[part] for part in parts]
        start = 0
        for layer in layers:
            rows = torch.from_numpy(weight[start : start + layer.weight.shape[0]])
            blocks = layer.weight.unfold(1, 32, 32)
            step = (blocks.amax(-1).clamp(min=0) - blocks.amin(-1).clamp(max=0)).repeat_interleave(32, 1) / 15
            far = ((rows - layer.weight).abs() / step.clamp(min=1e-9)).max().item()
            if far > 1.1:
                raise SystemExit(f"{name}: {far:.2f} steps from the model's weight")
            layer.weight = torch.nn.Parameter(rows.clone())
            start += layer.weight.shape[0]
        assert start == weight.shape[0]
    return other


@torch.no_grad()
def rounded(model, weights):
    """The PyTorch model with the weights that the file stores, its arithmetic still in f32."""
    if weights:
        return quantised_twin(model, weights)
    other = copy.deepcopy(model)
    for weight in other.parameters():
        weight.copy_(weight.half())
    # The file holds the rotary tables in f16 too; PyTorch computes them.
    other.model.rotary_emb.register_forward_hook(lambda module, given, tables: [t.half().float() for t in tables])
    return other


def relative_error(ours, theirs):
    return float(max(np.abs(a - b).max() for a, b in zip(ours, theirs)) / np.abs(theirs).max())


@torch.no_grad()
def describe(name, model, sequences, folder):
    """The fixture's line of fixtures.json; stops if ONNX Runtime and PyTorch disagree or attention is blunt."""
    architecture, exporter, options = FIXTURES[name]
    config = model.config
    heads, kv_heads, head_dim = architectures.heads_and_width(config)
    path = folder / "model.onnx"
    expected, session = model, drive.open_session(path)
    if weight_type(options) != "f32":
        plain, weights = drive.exact(path)
        expected, session = rounded(model, weights), drive.open_session(plain)
    theirs = np.stack([expected(ids[None]).logits[0].numpy() for ids in sequences])

    def error(session, prefill):
        return relative_error([drive.logits(session, ids.numpy(), head_dim, prefill) for ids in sequences], theirs)

    prefill = PREFILL.get(architecture, 37)
    ort_error = max(error(session, None), error(session, prefill))
    entropy = architectures.entropies(model, sequences)
    if not ort_error <= BOUND or max(entropy) > BLUNTEST:
        raise SystemExit(f"{name}: error {ort_error:.1e}, entropy {entropy}")
    measured = {"ort_error": float(f"{ort_error:.1e}")}
    if weight_type(options) != "f32":
        measured["ort_error_as_stored"] = float(f"{error(drive.open_session(path), prefill):.1e}")
    module = importlib.import_module(EXPORTERS[exporter])
    return {
        "architecture": architecture,
        "exporter": exporter,
        "options": options,
        "versions": {package: importlib.metadata.version(package) for package in module.PACKAGES},
        "opset": next(o.version for o in onnx.load(folder / "model.onnx", load_external_data=False).opset_import if not o.domain),
        "features": architectures.ARCHITECTURES[architecture][2],
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "prefill": prefill,
        "vocab": config.vocab_size,
        "weights": weight_type(options),
        "entropy": [round(e, 3) for e in entropy],
        "max_logit": round(float(np.abs(theirs).max()), 2),
        **measured,
    }


def write(name, known):
    """Exports, checks and lists one fixture."""
    architecture, exporter, options = FIXTURES[name]
    model, sequences = architectures.make(architecture)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    importlib.import_module(EXPORTERS[exporter]).export(model, folder, **options)
    for left in sorted(p.name for p in folder.iterdir() if not p.name.startswith("model.onnx")):
        raise SystemExit(f"{name}: unexpected file {left}")
    known[name] = describe(name, model, sequences, folder)
    size = sum(p.stat().st_size for p in folder.iterdir())
    print(f"{name}: ort_error {known[name]['ort_error']:.1e}, {size / 1000:.0f} kB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exporters", default=",".join(EXPORTERS), help="of these only, separated by commas")
    parser.add_argument("names", nargs="*", metavar="NAME", help="fixtures to write (default: all)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    known = json.loads(LISTING.read_text())
    for name, (_, exporter, _) in FIXTURES.items():
        if exporter in arguments.exporters.split(",") and (not arguments.names or name in arguments.names):
            write(name, known)
            ordered = {key: known[key] for key in [*(k for k in known if k not in FIXTURES), *FIXTURES] if key in known}
            LISTING.write_text("{\n" + ",\n".join(f'  "{k}": {json.dumps(v)}' for k, v in ordered.items()) + "\n}\n")


if __name__ == "__main__":
    main()
