"""The parts of a decoder in the forms that exporters write them in, each against ONNX Runtime on the same file."""

import sys

import helix
import numpy as np
import onnxruntime
import pytest

sys.path.insert(0, str(helix.ROOT / "test" / "import"))
import forms  # noqa: E402

LENGTHS = [(1, 20), (9, 30), (17, 40)]


def onnx_logits(form, path, ids):
    """ONNX Runtime's logits of one sequence, all tokens at once."""
    feeds = {"input_ids": ids[None], "position_ids": np.arange(len(ids))[None]}
    if form.static:
        cache = np.zeros((1, forms.POSITIONS, forms.KV_HEADS * forms.DIM), np.float32)
        feeds |= {"write_indices": np.array([0]), "nonpad_kv_seqlen": np.array([len(ids)])}
    else:
        cache = np.zeros((1, forms.KV_HEADS, 0, forms.DIM), np.float32)
        feeds["attention_mask"] = np.ones((1, len(ids)), np.int64)
    feeds |= {info.name: cache for info in form.inputs if info.name not in feeds}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], feeds)[0][0]


def saved(form, path):
    path.write_bytes(form.model().SerializeToString())
    return path


def agrees_with_onnx_runtime(form, reference, tmp_path):
    """Compiles `form` for several meshes and compares its logits with ONNX Runtime's of `reference`."""
    path = saved(form, tmp_path / "model.onnx")
    random = np.random.default_rng(1)
    ids = [random.integers(0, forms.VOCABULARY, total) for _, total in LENGTHS]
    onnx_path = saved(reference, tmp_path / "reference.onnx")
    onnx = [onnx_logits(reference, onnx_path, row) for row in ids]
    assert max(np.abs(row).max() for row in onnx) > 1
    prompts = helix.write_prompts(tmp_path / "prompts.jsonl", ids)
    for kvp, tpa in [(1, 1), (3, 1), (2, 2)]:
        artifact = tmp_path / f"{kvp}x{tpa}.hlx"
        flags = ["--kvp", kvp, "--tpa", tpa, "--batch", len(ids), "--max-context", 48, "--prefill-chunk", 8,
                 "--all-logits", "--block", 4]
        helix.tool("helix-compile", path, "-o", artifact, *flags)
        helix.tool("helix-run", artifact, "--prompts", prompts, "--score", "--decode-last", 10, "--outputs",
                   artifact.with_suffix(".npz"))
        with np.load(artifact.with_suffix(".npz")) as arrays:
            logits = [arrays[f"logits_{i}"] for i in range(len(ids))]
        assert helix.error(logits, onnx) <= 1e-5, f"kvp {kvp}, tpa {tpa}"


@pytest.mark.parametrize("name", forms.FORMS)
def test_agrees_with_onnx_runtime(name, tmp_path):
    form = forms.Form(**forms.FORMS[name])
    agrees_with_onnx_runtime(form, form, tmp_path)


def test_windows_of_opset_25(tmp_path):
    """ONNX Runtime does not know them: the reference is the same decoder with the window in its mask."""
    windows = forms.Form(attention="windows", rope="op", norm="op")
    masked = forms.Form(attention="op", rope="op", norm="op", mask="window")
    assert all(np.array_equal(windows.weights[name], masked.weights[name]) for name in windows.weights)
    agrees_with_onnx_runtime(windows, masked, tmp_path)
