"""What public exporters write: each fixture compiles and agrees with ONNX Runtime on every mesh, or ends in its error."""

import json
import re

import helix
import numpy as np
import overview
import pytest
import support

MESHES = [(1, 1), (2, 1), (1, 2), (4, 1), (3, 1)]
# Fixtures that are refused, and the error that they end in. What compiles is held to ONNX Runtime's logits below.
REFUSED = json.loads((helix.MODELS / "refused.json").read_text())


# Models that make positions and masks of an attention_mask whose rows may begin with padding.
PADDED = ["llama3-torch18", "qwen3-torch23", "gpt2-optimum", "gpt-neox-optimum", "bloom-torch20", "gemma2-torch20"]

# Norms over all heads, which no rank has where tpa cuts them.
WHOLE_ROWS = {"olmo2-torch20"}


def test_lists_are_current():
    assert REFUSED.keys() <= helix.PUBLIC.keys()
    assert (helix.MODELS / "README.md").read_text() == overview.overview(), "run test/models/overview.py"
    assert support.PAGE.read_text() == support.page(), "run test/models/support.py"


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


@pytest.mark.parametrize("fixture", PADDED)
def test_left_padding_is_no_part_of_a_sequence(fixture, tmp_path):
    """An artifact takes no attention_mask: what the model computes of left-padded rows is what ours are without."""
    padding, ids = 11, helix.sequences(fixture, [(17, 65)])[0]
    session = helix.session(fixture)
    mask = np.concatenate([np.zeros(padding, np.int64), np.ones(len(ids), np.int64)])
    feeds = {"input_ids": np.concatenate([np.zeros(padding, np.int64), ids])[None], "attention_mask": mask[None],
             "position_ids": np.maximum(np.cumsum(mask) - 1, 0)[None],
             **helix.drive.empty_caches(session, helix.LISTING[fixture]["head_dim"])}
    names = {given.name for given in session.get_inputs()}
    padded = session.run(["logits"], {name: value for name, value in feeds.items() if name in names})[0][0, padding:]
    artifact = helix.compile_model(fixture, tmp_path / "model.hlx", *helix.options(2, 1, 1))
    logits = helix.score(artifact, helix.write_prompts(tmp_path / "prompts.jsonl", [ids]), tmp_path / "out.npz")
    assert helix.error(logits, [padded]) <= 1e-5
