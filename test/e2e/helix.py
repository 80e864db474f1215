"""What the end-to-end tests share: the tools of one build, fixtures, and ONNX Runtime as the reference."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HELIX_BUILD", ROOT / "build" / "release"))
MODELS = ROOT / "test" / "models"

sys.path.insert(0, str(MODELS))
import drive  # noqa: E402

LISTING = json.loads((MODELS / "fixtures.json").read_text())
FIXTURES = {name: line for name, line in LISTING.items() if "exporter" not in line}
PUBLIC = {name: line for name, line in LISTING.items() if "exporter" in line}  # from several exporters
MESHES = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 2), (3, 1), (5, 1)]

# A prompt of 48 and 48 more; and a ragged batch: prompts of 1, 17 and 48, 48 more each.
SINGLE = [(48, 96)]
RAGGED = [(1, 49), (17, 65), (48, 96)]


def tool(name, *args, stdin=None, check=True):
    """Runs a tool of the build; returns the finished process, its output as text."""
    command = [BUILD / "bin" / name, *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))} exited with {done.returncode}:\n{done.stderr}")
    return done


def script(name, *args):
    """Runs one of the repository's scripts."""
    command = [sys.executable, ROOT / name, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def model(fixture):
    return MODELS / fixture / "model.onnx"


def meshes(fixture):
    """The meshes that the fixture's KV heads allow."""
    return [(kvp, tpa) for kvp, tpa in MESHES if tpa <= LISTING[fixture]["kv_heads"]]


def options(kvp, tpa, batch, dtype="f32", block=4, context=96, cache=None):
    """Flags of helix-compile for the suite's cases: contexts of 96, prefill chunks of 16 with all logits.

    Caches are of the weights' type, or of `cache`.
    """
    return ["--kvp", kvp, "--tpa", tpa, "--batch", batch, "--max-context", context, "--prefill-chunk", 16, "--all-logits",
            "--block", block, "--weight-dtype", dtype, "--kv-dtype", cache or dtype]


def compile_model(fixture, out, *flags):
    tool("helix-compile", model(fixture), "-o", out, *flags)
    return out


@functools.cache
def session(fixture):
    """ONNX Runtime on the fixture; all arithmetic is in f32, whatever its weights are stored in."""
    stored = LISTING[fixture].get("weights", "f32")
    return drive.open_session(model(fixture) if stored == "f32" else drive.exact(model(fixture))[0])


def onnx_logits(fixture, ids, prefill=None):
    """Logits [tokens, vocabulary] f32 of every token of one sequence, by ONNX Runtime.

    In one pass, or `prefill` tokens at once and then one by one with the caches that it returns.
    """
    return drive.logits(session(fixture), ids, LISTING[fixture]["head_dim"], prefill)


def sequences(fixture, lengths, seed=0):
    """Random token ids, one array per (prompt, total) of `lengths`."""
    random = np.random.default_rng(seed)
    return [random.integers(0, LISTING[fixture]["vocab"], total) for _, total in lengths]


def write_prompts(path, ids):
    """One JSON line per sequence."""
    lines = [json.dumps({"ids": [int(i) for i in row]}) for row in ids]
    path.write_text("\n".join(lines) + "\n")
    return path


def score(artifact, prompts, out, *flags, decode_last=48):
    """Teacher-forced logits per prompt, by helix-run."""
    tool("helix-run", artifact, "--prompts", prompts, "--score", "--decode-last", decode_last, "--outputs", out, *flags)
    with np.load(out) as arrays:
        return [arrays[f"logits_{i}"] for i in range(len(arrays.files))]


def interpret(module, fixture, prompts, out, *flags):
    """Teacher-forced logits per prompt in float64, by the reference interpreter on a module of any helix level."""
    tool("helix-interpret", module, "--model-dir", MODELS / fixture, "--prompts", prompts, "--outputs", out, *flags)
    with np.load(out) as arrays:
        return [arrays[f"logits_{i}"] for i in range(len(arrays.files))]


def error(ours, reference):
    """max |a - b| / max |b| over the logits of all sequences."""
    difference = max(np.abs(a.astype(np.float64) - b).max() for a, b in zip(ours, reference, strict=True))
    return difference / max(np.abs(b).max() for b in reference)
