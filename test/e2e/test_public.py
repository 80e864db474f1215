"""What public exporters write: each fixture compiles and agrees with ONNX Runtime on every mesh, or ends in its error."""

import re

import helix
import overview
import pytest

MESHES = [(1, 1), (2, 1), (1, 2), (4, 1), (3, 1)]
# Fixtures that are refused, and the error that they end in. What compiles is held to ONNX Runtime's logits below.
REFUSED = {
    "phi3-long-genai": 1061,
    "gemma2-genai-bounded": 1010,
    "llama3-genai-f16-mha": 1062,
    "llama3-genai-int4": 1013,
    "qwen2-genai-int4": 1013,
    "gpt2-torch23": 2003,
    "gpt-neox-torch23": 1066,
    "gpt-neox-torch18": 1066,
    "falcon-torch18": 1066,
    "bloom-torch20": 1062,
    "gpt2-optimum": 2003,
    "gpt-neox-optimum": 1011,
}


# Norms over all heads, which no rank has where tpa cuts them.
WHOLE_ROWS = {"olmo2-torch20"}


def test_lists_are_current():
    assert REFUSED.keys() <= helix.PUBLIC.keys()
    assert (helix.MODELS / "README.md").read_text() == overview.overview(), "run test/models/overview.py"


@pytest.mark.parametrize("fixture", helix.PUBLIC)
def test_caches_of_onnx_runtime(fixture):
    """The reference is fed right: with the caches carried from step to step it gives the logits of one pass."""
    (ids,) = helix.sequences(fixture, helix.SINGLE)
    stepwise = helix.onnx_logits(fixture, ids, helix.PUBLIC[fixture]["prefill"])
    assert helix.error([stepwise], [helix.onnx_logits(fixture, ids)]) <= 5e-6


@pytest.mark.parametrize("fixture", REFUSED)
def test_refused(fixture, tmp_path):
    done = helix.tool("helix-compile", helix.model(fixture), "-o", tmp_path / "model.hlx", *helix.options(2, 1, 1), check=False)
    assert done.returncode != 0, f"{fixture} compiles now: take it from REFUSED"
    numbers = {int(n) for n in re.findall(r"HLX(\d{4})", done.stderr)}
    assert numbers == {REFUSED[fixture]}, done.stderr


def agrees_with_onnx_runtime(fixture, scratch, lengths, context):
    """Compiles the fixture for every mesh that it allows and compares its logits with ONNX Runtime's."""
    ids = helix.sequences(fixture, lengths)
    onnx = [helix.onnx_logits(fixture, row) for row in ids]
    prompts = helix.write_prompts(scratch / "prompts.jsonl", ids)
    for kvp, tpa in MESHES:
        if tpa > helix.PUBLIC[fixture]["kv_heads"]:
            continue
        artifact = scratch / f"{kvp}x{tpa}.hlx"
        flags = helix.options(kvp, tpa, len(ids), context=context)
        if tpa > 1 and fixture in WHOLE_ROWS:
            refused = helix.tool("helix-compile", helix.model(fixture), "-o", artifact, *flags, check=False)
            assert refused.returncode != 0 and "HLX2010" in refused.stderr
            continue
        helix.compile_model(fixture, artifact, *flags)
        logits = helix.score(artifact, prompts, artifact.with_suffix(".npz"))
        assert helix.error(logits, onnx) <= 1e-5, f"kvp {kvp}, tpa {tpa}"


@pytest.mark.parametrize("fixture", [name for name in helix.PUBLIC if name not in REFUSED])
def test_agrees_with_onnx_runtime(fixture, tmp_path):
    agrees_with_onnx_runtime(fixture, tmp_path, helix.RAGGED, 96)


def test_longrope_on_the_short_side(tmp_path):
    """Contexts of 64 never leave the tables for short sequences, so the model's If is decided."""
    agrees_with_onnx_runtime("phi3-long-genai", tmp_path, [(1, 49), (16, 64)], 64)
