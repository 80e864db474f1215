"""Overlap changes when things are computed, never what: the same logits, bit for bit, on any mesh and in any chunks."""

import random

import numpy as np
import pytest

import helix

SHAPES = sorted(name for name, shape in helix.FIXTURES.items() if name.startswith("llama-"))
CASES = 24


def cases():
    """Random fixtures (head sizes 16 to 256, 1 to 126 heads), meshes, batches, prefill chunks and numbers of chunks."""
    choose = random.Random(7)
    for number in range(CASES):
        fixture = choose.choice(SHAPES)
        kvp = choose.choice([2, 3, 4, 5])
        tpa = choose.choice([t for t in (1, 2) if t <= helix.FIXTURES[fixture]["kv_heads"]])
        yield pytest.param(fixture, kvp, tpa, choose.randint(1, 5), choose.choice([3, 8, 16]),
                           choose.choice(["off", 2, 3, 4, 7, "auto"]), choose.choice(["off", 2, 3, 5, "auto"]),
                           id=f"{number}-{fixture}-{kvp}x{tpa}")


@pytest.mark.parametrize("fixture, kvp, tpa, batch, prefill, hopb, split", cases())
def test_on_equals_off_bit_for_bit(fixture, kvp, tpa, batch, prefill, hopb, split, tmp_path):
    choose = random.Random(f"{fixture} {kvp} {batch} {prefill}")
    ids = helix.sequences(fixture, [(0, choose.randint(49, 90)) for _ in range(batch)])
    prompts = helix.write_prompts(tmp_path / "prompts.jsonl", ids)
    flags = ["--kvp", kvp, "--tpa", tpa, "--batch", batch, "--max-context", 96, "--block", 4, "--prefill-chunk", prefill,
             "--all-logits", "--kv-dtype", choose.choice(["f32", "bf16"])]
    off = helix.compile_model(fixture, tmp_path / "off.hlx", *flags)
    on = helix.compile_model(fixture, tmp_path / "on.hlx", *flags, "--overlap", "--hopb", hopb, "--split-reduce", split)
    expected = helix.score(off, prompts, tmp_path / "off.npz")
    for threads in (1, 7):
        actual = helix.score(on, prompts, tmp_path / "on.npz", "--threads", threads)
        for ours, theirs in zip(actual, expected, strict=True):
            assert np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))


def test_bytes_sent_do_not_change(tmp_path):
    """Chunks of an exchange carry what the exchange did; a sum's shares are rounded up in each of its chunks."""
    totals = []
    for hopb in ("off", 3):
        artifact = helix.compile_model("llama-tiny", tmp_path / f"{hopb}.hlx", "--kvp", 2, "--tpa", 2, "--batch", 3,
                                       "--max-context", 64, "--hopb", hopb)
        run = helix.tool("helix-run", artifact, "--prompt-ids", "1,2,3", "--tokens", 4)
        totals.append(next(line for line in run.stderr.splitlines() if line.startswith("bytes sent")))
    assert totals[0] == totals[1]
