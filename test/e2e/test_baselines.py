"""The baselines that are made on request: copies of KV heads, and the FFN on the first ranks alone. Both are exact."""

import re

import helix
import numpy as np
import pytest

# Fixture, mesh: two ranks per KV head; three, where heads are odd in number; and more, with kvp and without.
REPLICATED = [("llama-tiny", 1, 4), ("llama-tiny", 2, 4), ("llama-d128", 3, 4), ("llama-odd", 2, 9), ("llama-d96", 2, 6),
              ("llama-h126", 1, 18)]
SUBSETS = [("llama-tiny", 2, 2, 1), ("llama-tiny", 2, 2, 3), ("llama-odd", 3, 1, 2), ("llama-odd", 4, 2, 7),
           ("llama-odd", 4, 2, 8)]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("baselines")


def check(fixture, scratch, kvp, tpa, shard, flags):
    """The artifact and the interpreter on the sharded module against the model level and ONNX Runtime."""
    model, sharded = scratch / "model.mlir", scratch / "sharded.mlir"
    helix.tool("helix-translate", "--import-onnx", helix.model(fixture), "--batch", 3, "--max-context", 96,
               "--prefill-chunk", 16, "--all-logits", "--block", 4, "-o", model)
    helix.tool("helix-opt", model, f"--helix-model-phase=kvp={kvp} tpa={tpa} {shard}", "--helix-partition", "-o", sharded)
    ids = helix.sequences(fixture, helix.RAGGED)
    prompts = helix.write_prompts(scratch / "prompts.jsonl", ids)
    exact = helix.interpret(model, fixture, prompts, scratch / "model.npz")
    assert helix.error(helix.interpret(sharded, fixture, prompts, scratch / "sharded.npz"), exact) <= 1e-12
    artifact = helix.compile_model(fixture, scratch / "model.hlx", *helix.options(kvp, tpa, 3), *flags)
    ours = helix.score(artifact, prompts, scratch / "ours.npz")
    onnx = [helix.onnx_logits(fixture, row) for row in ids]
    assert helix.error(ours, exact) <= 1e-5
    assert helix.error(ours, onnx) <= max(1e-5, 2 * helix.error(onnx, exact))


@pytest.mark.parametrize("fixture, kvp, tpa", REPLICATED)
def test_copies_of_kv_heads(scratch, fixture, kvp, tpa):
    assert tpa > helix.FIXTURES[fixture]["kv_heads"]
    check(fixture, scratch, kvp, tpa, "kv-replicate", ["--kv-replicate"])


@pytest.mark.parametrize("fixture, kvp, tpa, ranks", SUBSETS)
def test_ffn_on_the_first_ranks(scratch, fixture, kvp, tpa, ranks):
    check(fixture, scratch, kvp, tpa, f"ffn-ranks={ranks}", ["--ffn-ranks", ranks])


def test_all_ranks_are_the_default_bit_for_bit(scratch):
    """--ffn-ranks N cuts the FFN just as tpf = N does."""
    ids = helix.sequences("llama-odd", helix.RAGGED)
    prompts = helix.write_prompts(scratch / "prompts.jsonl", ids)
    runs = []
    for flags in [], ["--ffn-ranks", 6]:
        artifact = helix.compile_model("llama-odd", scratch / "all.hlx", *helix.options(2, 3, 3), *flags)
        runs.append(helix.score(artifact, prompts, scratch / "all.npz"))
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("kvp, tpa, flags", [(2, 4, ["--kv-replicate"]), (4, 1, ["--ffn-ranks", 2])])
def test_bytes_on_the_wire(scratch, kvp, tpa, flags):
    """The formulas are the same: h query heads per rank after the exchange, and all-reduces over all ranks."""
    artifact = helix.compile_model("llama-tiny", scratch / "wire.hlx", "--kvp", kvp, "--tpa", tpa, "--max-context", 64,
                                   *flags)
    printed = helix.tool("helix-run", artifact, "--prompt-ids", "1,2,3", "--tokens", 4).stderr
    sent = re.search(r"bytes sent per rank and decode step: all-to-all (\d+), all-reduce (\d+)", printed)
    shape, ranks = helix.FIXTURES["llama-tiny"], kvp * tpa
    heads = -(-shape["heads"] // tpa // kvp)
    assert int(sent[1]) == shape["layers"] * (kvp - 1) * heads * (4 * shape["head_dim"] + 4)
    assert int(sent[2]) == shape["layers"] * 2 * 2 * (ranks - 1) * -(-shape["hidden"] // ranks) * 4
