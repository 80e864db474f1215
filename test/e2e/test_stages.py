"""A compile can stop and resume at every stage: phase by phase through text gives what helix-compile writes."""

import helix
import pytest

IMPORT = ["--batch", 2, "--max-context", 96, "--prefill-chunk", 8, "--block", 4]


@pytest.mark.parametrize("fixture, kvp, tpa", [("llama-tiny", 2, 2), ("llama-odd", 3, 1)])
def test_stage_by_stage(tmp_path, fixture, kvp, tpa):
    whole = tmp_path / "model.hlx"
    helix.tool("helix-compile", helix.model(fixture), "-o", whole, "--kvp", kvp, "--tpa", tpa, *IMPORT)
    module = tmp_path / "0.mlir"
    helix.tool("helix-translate", "--import-onnx", helix.model(fixture), *IMPORT, "-o", module)
    phases = [f"--helix-model-phase=kvp={kvp} tpa={tpa}", "--helix-spmd-phase", "--helix-plan-phase"]
    for i, phase in enumerate(phases):
        after = tmp_path / f"{i + 1}.mlir"
        helix.tool("helix-opt", module, phase, "--mlir-print-debuginfo", "-o", after)
        module = after
    staged = tmp_path / "staged.hlx"
    helix.tool("helix-translate", "--plan-to-hlx", module, "--model-dir", helix.model(fixture).parent, "-o", staged)
    assert staged.read_bytes() == whole.read_bytes()


def test_every_pass_alone(tmp_path):
    """The same, one pass at a time."""
    whole = tmp_path / "model.hlx"
    helix.tool("helix-compile", helix.model("llama-tiny"), "-o", whole, "--kvp", 2, "--tpa", 2, *IMPORT)
    module = tmp_path / "0.mlir"
    helix.tool("helix-translate", "--import-onnx", helix.model("llama-tiny"), *IMPORT, "-o", module)
    passes = ["--helix-raise", "--canonicalize", "--cse", "--helix-verify-model", "--helix-shard=kvp=2 tpa=2",
              "--helix-partition", "--cse", "--helix-verify-spmd", "--helix-flatten", "--helix-fuse", "--cse",
              "--helix-verify-spmd", "--helix-codegen", "--helix-schedule", "--helix-place", "--helix-verify-plan"]
    for i, name in enumerate(passes):
        after = tmp_path / f"{i + 1}.mlir"
        helix.tool("helix-opt", module, name, "--mlir-print-debuginfo", "-o", after)
        module = after
    staged = tmp_path / "staged.hlx"
    helix.tool("helix-translate", "--plan-to-hlx", module, "--model-dir", helix.MODELS / "llama-tiny", "-o", staged)
    assert staged.read_bytes() == whole.read_bytes()


def test_through_a_pipe(tmp_path):
    """The README's pipe: the three tools, standard input and output between them."""
    whole, piped = tmp_path / "model.hlx", tmp_path / "piped.hlx"
    helix.tool("helix-compile", helix.model("llama-tiny"), "-o", whole, "--kvp", 4, "--tpa", 2, "--max-context", 256)
    imported = helix.tool("helix-translate", "--import-onnx", helix.model("llama-tiny"), "--max-context", 256).stdout
    plan = helix.tool("helix-opt", "--helix-model-phase=kvp=4 tpa=2", "--helix-spmd-phase", "--helix-plan-phase",
                      "--mlir-print-debuginfo", stdin=imported).stdout
    helix.tool("helix-translate", "--plan-to-hlx", "--model-dir", helix.MODELS / "llama-tiny", "-o", piped, stdin=plan)
    assert piped.read_bytes() == whole.read_bytes()
