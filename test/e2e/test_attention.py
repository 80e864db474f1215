"""What GroupQueryAttention can be asked for beyond plain attention: each, alone and together, against ONNX Runtime."""

import importlib.util

import helix
import numpy as np
import onnxruntime
import pytest

# By its path: test/models has a decoder.py, too.
_spec = importlib.util.spec_from_file_location("import_decoder", helix.ROOT / "test" / "import" / "decoder.py")
decoder = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(decoder)

LENGTH, MESHES = 60, [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)]

FEATURES = {
    "softcap": {"softcap": 1.5},
    "window": {"local_window_size": 7},
    "sinks": {},
    "smooth": {"smooth_softmax": 1},
    "smooth_sinks": {"smooth_softmax": 1},
    "all": {"softcap": 1.5, "local_window_size": 7},
}


def write_model(directory, feature):
    model = decoder.Decoder()
    model.set("a", **FEATURES[feature])
    if feature in ("sinks", "smooth_sinks", "all"):
        values = [-2.0, 0.0, 1.5, 3.0] if feature == "smooth_sinks" else [0.5, -1.0, 2.0, 1.0]
        model.weights["sinks"] = np.array(values, np.float32)
        model["a"].input[11] = "sinks"
    decoder.write(directory, *model.model())
    return directory / "model.onnx"


def onnx_logits(path, ids):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    empty = np.zeros((1, decoder.KV_HEADS, 0, decoder.DIM), np.float32)
    feeds = {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64),
             "past.0.key": empty, "past.0.value": empty}
    return session.run(["logits"], feeds)[0][0]


@pytest.fixture(autouse=True)
def larger_heads(monkeypatch):
    """Two KV heads, and as wide as ONNX Runtime rotates."""
    for name, value in {"HEADS": 4, "KV_HEADS": 2, "DIM": 16}.items():
        monkeypatch.setattr(decoder, name, value)


@pytest.mark.parametrize("feature", FEATURES)
def test_matches_onnx_runtime(feature, tmp_path):
    path = write_model(tmp_path, feature)
    ids = [np.random.default_rng(1).integers(0, decoder.VOCABULARY, LENGTH)]
    onnx = [onnx_logits(path, row) for row in ids]
    prompts = helix.write_prompts(tmp_path / "prompts.jsonl", ids)
    for kvp, tpa in MESHES:
        artifact = tmp_path / f"{kvp}x{tpa}.hlx"
        helix.tool("helix-compile", path, "-o", artifact, "--kvp", kvp, "--tpa", tpa, "--max-context", 64,
                   "--prefill-chunk", 16, "--all-logits", "--block", 4)
        logits = helix.score(artifact, prompts, tmp_path / "out.npz")
        assert helix.error(logits, onnx) <= 1e-5, f"{kvp} x {tpa}"


def test_each_feature_matters(tmp_path):
    """So that the comparison above could fail: no two variants give the same logits."""
    ids = np.random.default_rng(1).integers(0, decoder.VOCABULARY, LENGTH)
    logits = [onnx_logits(write_model(tmp_path / feature, feature), ids) for feature in FEATURES]
    plain = decoder.Decoder()
    decoder.write(tmp_path / "plain", *plain.model())
    logits.append(onnx_logits(tmp_path / "plain" / "model.onnx", ids))
    for i, a in enumerate(logits):
        for b in logits[:i]:
            assert helix.error([a], [b]) > 1e-2
