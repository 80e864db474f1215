"""What weights and caches of small types cost, as helix-simulate reads it from the artifact, counted by hand."""

import json
import sys

import helix
import numpy as np
import pytest

sys.path.insert(0, str(helix.ROOT / "test" / "import"))
import forms  # noqa: E402
import quantised  # noqa: E402

CONTEXT = 32


def simulate(tmp_path, model, *flags):
    path, artifact = tmp_path / "model.onnx", tmp_path / "model.hlx"
    path.write_bytes(model.SerializeToString())
    helix.tool("helix-compile", path, "-o", artifact, "--max-context", CONTEXT, *flags)
    return json.loads(helix.tool("helix-simulate", artifact, "--hardware", "gb200-nvl72", "--json").stdout)


@pytest.mark.parametrize("bits, block, zero", [(4, 16, "packed"), (4, 32, "middle"), (2, 16, "real"), (8, 16, "middle")])
def test_weights(bits, block, zero, tmp_path):
    form = quantised.Quantised(bits=bits, block=block, zero=zero)
    of_block = 4 + {"packed": 1, "middle": 0, "real": 4}[zero]
    saved = 0
    for name, weight in form.originals.items():
        if weight.ndim == 2 and f"{name}_codes" in form.weights:
            k, n = weight.shape
            saved += 4 * k * n - n * (k * bits // 8 + -(-k // block) * of_block)
    assert saved > 0
    plain, codes = simulate(tmp_path, form.meant()), simulate(tmp_path, form.model())
    assert plain["memory"]["weights_bytes"] - codes["memory"]["weights_bytes"] == saved
    # A step reads every product's weight once.
    read = [sum(phase["weights"] for phase in step["per_rank"].values()) for step in (plain, codes)]
    assert read[0] - read[1] == pytest.approx(saved)


@pytest.mark.parametrize("flags, number, own", [(["f32"], 4, 0), (["bf16"], 2, 0), (["int8"], 1, 8), (["fp8-e4m3"], 1, 8),
                                                (["int8", "--kv-scale", 1], 1, 0)])
def test_caches(flags, number, own, tmp_path):
    step = simulate(tmp_path, forms.Form().model(), "--kv-dtype", *flags)
    held = CONTEXT * forms.LAYERS * forms.KV_HEADS * (2 * forms.DIM * number + own)
    assert step["memory"]["kv_bytes"] == held
    # A step writes one token and reads all of them.
    moved = sum(phase["kv"] for phase in step["per_rank"].values())
    assert moved == pytest.approx(held * (1 + 1 / CONTEXT))
    assert np.isfinite(step["step_s"])
