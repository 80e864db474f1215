"""What public exporters write: each fixture compiles and agrees with ONNX Runtime on every mesh, or ends in its error."""

import re

import helix
import pytest

MESHES = [(1, 1), (2, 1), (1, 2), (4, 1), (3, 1)]
# Fixtures that are refused, and the error that they end in. What compiles is held to ONNX Runtime's logits below.
REFUSED = {
    "qwen2-genai": 1014,
    "qwen3-genai": 1008,
    "mistral-genai": 1010,
    "phi3-long-genai": 1008,
    "gemma2-genai": 1010,
    "gemma3-genai": 1008,
    "granite-genai": 2003,
    "llama3-genai-f16": 1016,
    "llama3-genai-f16-mha": 1016,
    "llama3-genai-int4": 1013,
    "qwen2-genai-int4": 1013,
    "llama3-mobius": 1009,
    "llama3-mobius-static": 1009,
    "qwen3-mobius": 1009,
    "gpt2-mobius": 1009,
}


def test_list_is_current():
    assert REFUSED.keys() <= helix.PUBLIC.keys()


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


@pytest.mark.parametrize("fixture", [name for name in helix.PUBLIC if name not in REFUSED])
def test_agrees_with_onnx_runtime(fixture, tmp_path):
    ids = helix.sequences(fixture, helix.RAGGED)
    onnx = [helix.onnx_logits(fixture, row) for row in ids]
    prompts = helix.write_prompts(tmp_path / "prompts.jsonl", ids)
    for kvp, tpa in MESHES:
        if tpa > helix.PUBLIC[fixture]["kv_heads"]:
            continue
        artifact = tmp_path / f"{kvp}x{tpa}.hlx"
        helix.compile_model(fixture, artifact, *helix.options(kvp, tpa, len(ids)))
        logits = helix.score(artifact, prompts, artifact.with_suffix(".npz"))
        assert helix.error(logits, onnx) <= 1e-5, f"kvp {kvp}, tpa {tpa}"
