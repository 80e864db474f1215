"""Sharded equals unsharded: every fixture on every mesh against ONNX Runtime and the float64 interpreter."""

import helix
import pytest

CASES = {"single": helix.SINGLE, "ragged": helix.RAGGED}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("exactness")


def imported(fixture, scratch, batch, dtype):
    """The fixture at model level, as the interpreter reads it."""
    out = scratch / f"{fixture}-{batch}-{dtype}.mlir"
    if not out.exists():
        helix.tool("helix-translate", "--import-onnx", helix.model(fixture), "--batch", batch, "--max-context", 96,
                   "--prefill-chunk", 16, "--all-logits", "--block", 4, "--weight-dtype", dtype, "--kv-dtype", dtype,
                   "-o", out)
    return out


def reference(fixture, case, scratch, dtype):
    """Logits of the interpreter at model level, computed once per fixture, case and type."""
    lengths = CASES[case]
    ids = helix.sequences(fixture, lengths)
    prompts = helix.write_prompts(scratch / f"{fixture}-{case}.jsonl", ids)
    out = scratch / f"{fixture}-{case}-{dtype}-reference.npz"
    module = imported(fixture, scratch, len(lengths), dtype)
    return prompts, ids, helix.interpret(module, fixture, prompts, out)


def ours(fixture, case, scratch, mesh, dtype, prompts):
    kvp, tpa = mesh
    artifact = scratch / f"{fixture}-{case}-{kvp}x{tpa}-{dtype}.hlx"
    helix.compile_model(fixture, artifact, *helix.options(kvp, tpa, len(CASES[case]), dtype))
    return helix.score(artifact, prompts, artifact.with_suffix(".npz"))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fixture", helix.FIXTURES)
def test_f32(fixture, case, scratch):
    prompts, ids, exact = reference(fixture, case, scratch, "f32")
    onnx = [helix.onnx_logits(fixture, row) for row in ids]
    # Where ONNX Runtime itself is far from float64, twice its own error is what can be asked.
    limit = max(1e-5, 2 * helix.error(onnx, exact))
    for mesh in helix.meshes(fixture):
        logits = ours(fixture, case, scratch, mesh, "f32", prompts)
        assert helix.error(logits, exact) <= 1e-5, f"{mesh} against the interpreter"
        assert helix.error(logits, onnx) <= limit, f"{mesh} against ONNX Runtime"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype, limit", [("f16", 2e-3), ("bf16", 1e-2)])
@pytest.mark.parametrize("fixture", helix.FIXTURES)
def test_half_precision(fixture, case, dtype, limit, scratch):
    prompts, _, exact = reference(fixture, case, scratch, dtype)
    by_mesh = [ours(fixture, case, scratch, mesh, dtype, prompts) for mesh in helix.meshes(fixture)]
    for mesh, logits in zip(helix.meshes(fixture), by_mesh):
        assert helix.error(logits, exact) <= limit, f"{mesh} against the interpreter"
        assert helix.error(logits, by_mesh[0]) <= 2e-3, f"{mesh} against one rank"


def test_reference_is_independent(scratch):
    """The interpreter agrees with ONNX Runtime to f32 rounding, so both above are one truth."""
    for fixture in helix.FIXTURES:
        _, ids, exact = reference(fixture, "ragged", scratch, "f32")
        assert helix.error([helix.onnx_logits(fixture, row) for row in ids], exact) <= 5e-6, fixture
