"""bench/model.py: what it writes is a model that ONNX Runtime runs, and large shapes compile without their weights."""

import sys

import helix
import numpy as np
import onnxruntime
import pytest

sys.path.insert(0, str(helix.ROOT / "bench"))
import model as bench  # noqa: E402

SMALL = {"layers": 2, "hidden": 64, "ffn": 96, "heads": 4, "kv_heads": 2, "head_dim": 32, "vocab": 200}


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_filled_model_is_onnx_runtimes(tmp_path, dtype):
    path = bench.write(SMALL, tmp_path, positions=96, dtype=dtype, fill=True)
    helix.tool("helix-compile", path, "-o", tmp_path / "model.hlx", *helix.options(2, 2, 1))
    ids = np.random.default_rng(0).integers(0, SMALL["vocab"], 96)
    ours = helix.score(tmp_path / "model.hlx", helix.write_prompts(tmp_path / "prompts.jsonl", [ids]), tmp_path / "o.npz")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    empty = np.zeros((1, SMALL["kv_heads"], 0, SMALL["head_dim"]), np.float32)
    feeds = {"input_ids": ids[None], "attention_mask": np.ones((1, 96), np.int64)}
    feeds |= {i.name: empty for i in session.get_inputs() if i.name.startswith("past_key_values")}
    onnx = session.run(["logits"], feeds)[0][0]
    assert np.abs(onnx).max() > 1
    assert helix.error(ours, [onnx]) <= 1e-5


@pytest.mark.parametrize("dtype, bytes_each", [("f32", 4), ("f16", 2), ("bf16", 2)])
def test_sparse_weights_take_no_room(tmp_path, dtype, bytes_each):
    path = bench.write(SMALL, tmp_path, positions=1 << 20, dtype=dtype)
    data = (tmp_path / "model.onnx.data").stat()
    matrices = SMALL["vocab"] * SMALL["hidden"] * 2 * bytes_each
    assert data.st_size > (2 << 20) * 16 * 4 + matrices and data.st_blocks * 512 < 65536
    helix.tool("helix-compile", path, "-o", tmp_path / "model.hlx", "--kvp", 2, "--max-context", 1_000_000)
    assert bench.DTYPES[dtype][0] in {t.data_type for t in bench.onnx.load(path, load_external_data=False).graph.initializer}


def test_405b_of_one_million_tokens_compiles(tmp_path):
    """All 126 layers on 64 ranks, from a file that says 812 GB; the commands are those of 126 layers."""
    path = bench.write(bench.MODELS["llama-3.1-405b"], tmp_path, dtype="bf16")
    printed = helix.tool("helix-compile", path, "-o", tmp_path / "model.hlx", "--kvp", 8, "--tpa", 8, "--batch", 8,
                         "--max-context", 1_000_000).stderr
    assert "64 ranks (kvp 8 x tpa 8; tpf 64 x ep 1)" in printed
    text = helix.tool("helix-translate", "--hlx-to-text", tmp_path / "model.hlx").stdout
    assert sum(line.strip().startswith("PartialAttention") for line in text.splitlines()) == 126
