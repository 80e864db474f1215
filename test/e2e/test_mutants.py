"""The suite sees bugs: each mutant of the reference is told from ONNX Runtime by a fixture to which it applies."""

import helix
import pytest

MUTANTS = ["no-rope", "local-rope", "base2-merge", "unweighted-merge", "double-append", "lost-append", "global-length",
           "uniform-attention", "head-shift", "block-off-by-one", "peers-swapped", "no-rescale-empty"]


# One KV head per rank, so that heads are split; and three on each, where heads can be mixed up.
CASES = [("llama-tiny", 2, 2), ("llama-odd", 2, 1)]
# With one KV head per rank there is no other group to read.
NOT_APPLICABLE = {("llama-tiny", "head-shift")}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}x{case[2]}")
def case(request, tmp_path_factory):
    """A sharded fixture, ragged prompts, a file for logits, and ONNX Runtime's logits."""
    fixture, kvp, tpa = request.param
    scratch = tmp_path_factory.mktemp("mutants")
    model, sharded = scratch / "model.mlir", scratch / "sharded.mlir"
    helix.tool("helix-translate", "--import-onnx", helix.model(fixture), "--batch", 3, "--max-context", 96,
               "--prefill-chunk", 16, "--all-logits", "--block", 4, "-o", model)
    helix.tool("helix-opt", model, f"--helix-model-phase=kvp={kvp} tpa={tpa}", "--helix-partition", "-o", sharded)
    ids = helix.sequences(fixture, helix.RAGGED)
    prompts = helix.write_prompts(scratch / "prompts.jsonl", ids)
    onnx = [helix.onnx_logits(fixture, row) for row in ids]
    return fixture, sharded, prompts, scratch / "out.npz", onnx


def test_unmutated(case):
    fixture, sharded, prompts, out, onnx = case
    assert helix.error(helix.interpret(sharded, fixture, prompts, out), onnx) <= 1e-5


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(case, mutant):
    fixture, sharded, prompts, out, onnx = case
    if (fixture, mutant) in NOT_APPLICABLE:
        pytest.skip("does not apply to this fixture")
    logits = helix.interpret(sharded, fixture, prompts, out, "--mutant", mutant)
    # 100 times what the exactness tests allow; NaN counts as seen.
    assert not helix.error(logits, onnx) <= 1e-3
