"""KV caches of int8 and fp8-e4m3: the logits of a float64 model that keeps keys and values in the same codes."""

import sys

import helix
import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

sys.path.insert(0, str(helix.ROOT / "test" / "import"))
import decoder  # noqa: E402
import forms  # noqa: E402

MESHES = [(1, 1), (3, 1), (2, 2), (5, 1)]
SCALE = 2.0**-5  # of a whole cache; some keys saturate int8 with it
# Seeds of models whose keys and values lie on no boundary between two codes, as `Codes.margin` tells: f32 and f64 then
# choose the same codes, and all else agrees to rounding.
CASES = {("int8", None): 4, ("int8", SCALE): 1, ("fp8-e4m3", None): 4, ("fp8-e4m3", SCALE): 3}


class Codes:
    """Numbers through codes and back, a scale for each row [..., dim] or one for all."""

    def __init__(self, dtype, scale):
        self.dtype, self.scale, self.margin = dtype, scale, np.inf

    def __call__(self, x):
        largest = 127 if self.dtype == "int8" else 448
        scale = self.scale or (np.abs(x).max(-1, keepdims=True) / largest).astype(np.float32).astype(np.float64)
        y = np.clip(x / scale, -largest, largest)
        if self.dtype == "int8":
            codes, step = np.rint(y), 1.0
        else:
            codes = y.astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
            step = np.maximum(2.0**-9, 2.0 ** (np.floor(np.log2(np.maximum(np.abs(y), 1e-30))) - 3))
        # How far, in steps, from where the next code starts; what saturates is far from it.
        inside = np.abs(y) < largest
        self.margin = min(self.margin, (0.5 - np.abs(y - codes) / step)[inside].min())
        return codes * scale


def decode(form, ids, codes):
    """Logits [tokens, vocabulary] f64 of one sequence by the formulas of test/import/forms.py."""
    w = {name: value.astype(np.float64) for name, value in form.weights.items()}
    tokens, dim, group = len(ids), forms.DIM, forms.HEADS // forms.KV_HEADS
    cos, sin = w["cos"][:tokens, None], w["sin"][:tokens, None]

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3) * w[name]

    def rotate(x):
        return x * cos + np.concatenate([-x[..., dim // 2 :], x[..., : dim // 2]], -1) * sin

    x = w["embed"][ids]
    for layer in range(forms.LAYERS):
        y = norm(x, f"norm_{layer}a")
        q, k, v = ((y @ w[f"{name}_{layer}"]).reshape(tokens, -1, dim) for name in "qkv")
        q, k, v = rotate(q), np.repeat(codes(rotate(k)), group, 1), np.repeat(codes(v), group, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(dim)
        scores = np.where(np.tril(np.ones((tokens, tokens), bool)), scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        x = x + np.einsum("hqk,khd->qhd", scores, v).reshape(tokens, -1) @ w[f"o_{layer}"]
        y = norm(x, f"norm_{layer}b")
        gate = y @ w[f"gate_{layer}"]
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w[f"up_{layer}"])) @ w[f"down_{layer}"]
    return norm(x, "norm_f") @ w["head"]


def ids_of(form):
    random = np.random.default_rng(1)
    return [random.integers(0, forms.VOCABULARY, total) for total in (7, 19)]


def score(artifact, prompts, count):
    helix.tool("helix-run", artifact, "--prompts", prompts, "--score", "--decode-last", 5, "--outputs",
               artifact.with_suffix(".npz"))
    with np.load(artifact.with_suffix(".npz")) as arrays:
        return [arrays[f"logits_{i}"] for i in range(count)]


@pytest.mark.parametrize("dtype, scale", CASES)
def test_equals_float64(dtype, scale, tmp_path):
    form = forms.Form(seed=CASES[dtype, scale])
    path = tmp_path / "model.onnx"
    path.write_bytes(form.model().SerializeToString())
    codes, ids = Codes(dtype, scale), ids_of(form)
    expected = [decode(form, row, codes) for row in ids]
    assert codes.margin >= 5e-4, "take another seed: f32 could choose another code"
    plain = [decode(form, row, lambda x: x) for row in ids]
    assert helix.error(expected, plain) > 1e-3, "a cache without codes must not pass"
    prompts = helix.write_prompts(tmp_path / "prompts.jsonl", ids)
    flags = ["--batch", len(ids), "--max-context", 32, "--prefill-chunk", 8, "--all-logits", "--block", 2, "--kv-dtype",
             dtype] + (["--kv-scale", scale] if scale else [])
    for kvp, tpa in MESHES:
        artifact = tmp_path / f"{kvp}x{tpa}.hlx"
        helix.tool("helix-compile", path, "-o", artifact, "--kvp", kvp, "--tpa", tpa, *flags)
        logits = score(artifact, prompts, len(ids))
        assert helix.error(logits, expected) <= 1e-5, f"kvp {kvp}, tpa {tpa}"
    module = tmp_path / "model.mlir"
    helix.tool("helix-translate", "--import-onnx", path, "--inline-weights", tmp_path / "weights.safetensors", *flags,
               "-o", module)
    helix.tool("helix-interpret", module, "--model-dir", tmp_path, "--prompts", prompts, "--outputs", tmp_path / "i.npz")
    with np.load(tmp_path / "i.npz") as arrays:
        logits = [arrays[f"logits_{i}"] for i in range(len(ids))]
    assert helix.error(logits, expected) <= 1e-6, "the interpreter"


def test_caches_that_the_model_keeps_in_codes(tmp_path, monkeypatch):
    """GroupQueryAttention with int8 caches and a scale for each of keys and values, against ONNX Runtime."""
    monkeypatch.setattr(decoder, "DIM", 16)  # ONNX Runtime wants no less
    form = decoder.Decoder()
    form.weights |= {"k_scale": np.array([0.125], np.float32), "v_scale": np.array([0.046875], np.float32)}
    form.set("a", k_quant_type="PER_TENSOR", v_quant_type="PER_TENSOR", kv_cache_bit_width=8)
    form["a"].input.extend(["k_scale", "v_scale"])
    for info in form.inputs + form.outputs:
        if ".0." in info.name:
            info.type.tensor_type.elem_type = TensorProto.INT8
    decoder.write(tmp_path, *form.model())
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    ids = [np.random.default_rng(1).integers(0, decoder.VOCABULARY, total) for total in (7, 19)]
    expected = []
    for row in ids:
        empty = np.zeros((1, decoder.KV_HEADS, 0, decoder.DIM), np.int8)
        logits, keys, values = session.run(
            ["logits", "present.0.key", "present.0.value"],
            {"input_ids": row[None], "attention_mask": np.ones((1, len(row)), np.int64), "past.0.key": empty,
             "past.0.value": empty})
        assert max(np.abs(keys.astype(int)).max(), np.abs(values.astype(int)).max()) < 127, "nothing saturates"
        expected.append(logits[0])
    prompts = helix.write_prompts(tmp_path / "prompts.jsonl", ids)
    for kvp in (1, 3):
        artifact = tmp_path / f"{kvp}.hlx"
        # What the model says goes before the option.
        helix.tool("helix-compile", tmp_path / "model.onnx", "-o", artifact, "--kvp", kvp, "--batch", 2, "--max-context",
                   32, "--prefill-chunk", 8, "--all-logits", "--block", 2, "--kv-dtype", "bf16")
        logits = score(artifact, prompts, len(ids))
        assert helix.error(logits, expected) <= 1e-5, f"kvp {kvp}"
    assert "I8, scales 0.125 of keys, 0.046875 of values" in helix.tool("helix-translate", "--hlx-to-text", artifact).stdout
