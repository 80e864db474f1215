"""What users see of a run: tokens, ragged batches, slots, sampling, bytes, determinism."""

import json
import os
import re
import shutil
import subprocess

import helix
import numpy as np
import onnx
import pytest


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("runtime")


def artifact(scratch, fixture, kvp, tpa, batch):
    out = scratch / f"{fixture}-{kvp}x{tpa}-{batch}.hlx"
    if not out.exists():
        helix.compile_model(fixture, out, *helix.options(kvp, tpa, batch))
    return out


def generate(hlx, prompts, tokens, *flags):
    """Token ids per prompt."""
    lines = helix.tool("helix-run", hlx, "--prompts", prompts, "--tokens", tokens, *flags).stdout.splitlines()
    return [[int(i) for i in re.split(r"[ ,]+", line.strip())] for line in lines]


@pytest.mark.parametrize("mesh", [(1, 1), (2, 2), (3, 1)])
def test_ragged_equals_solo_bit_for_bit(scratch, mesh):
    ids = helix.sequences("llama-odd", helix.RAGGED)
    hlx = artifact(scratch, "llama-odd", *mesh, 3)
    together = helix.write_prompts(scratch / "together.jsonl", ids)
    ragged = helix.score(hlx, together, scratch / "together.npz")
    for i, (row, length) in enumerate(zip(ids, helix.RAGGED)):
        alone = helix.write_prompts(scratch / "alone.jsonl", [row])
        solo = helix.score(hlx, alone, scratch / "alone.npz")
        assert np.array_equal(ragged[i], solo[0]), f"sequence {i}"


def test_reused_slot_equals_fresh(scratch):
    """More prompts than slots: the later ones run in slots that others have left."""
    hlx = artifact(scratch, "llama-tiny", 2, 2, 1)
    ids = helix.sequences("llama-tiny", helix.RAGGED)
    queued = helix.score(hlx, helix.write_prompts(scratch / "queue.jsonl", ids), scratch / "queue.npz")
    for i, (row, length) in enumerate(zip(ids, helix.RAGGED)):
        fresh = helix.score(hlx, helix.write_prompts(scratch / "one.jsonl", [row]), scratch / "one.npz")
        assert np.array_equal(queued[i], fresh[0]), f"sequence {i}"


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_do_not_change_bits(scratch, threads):
    hlx = artifact(scratch, "llama-odd", 2, 2, 3)
    ids = helix.sequences("llama-odd", helix.RAGGED)
    prompts = helix.write_prompts(scratch / "threads.jsonl", ids)
    base = helix.score(hlx, prompts, scratch / "threads-4.npz", "--threads", 4)
    other = helix.score(hlx, prompts, scratch / "threads-n.npz", "--threads", threads)
    assert all(np.array_equal(a, b) for a, b in zip(base, other, strict=True))


def test_pinned_threads_do_not_change_bits(scratch):
    hlx = artifact(scratch, "llama-tiny", 2, 1, 1)
    prompts = helix.write_prompts(scratch / "pin.jsonl", helix.sequences("llama-tiny", helix.RAGGED))
    cpus = len(os.sched_getaffinity(0))
    base = helix.score(hlx, prompts, scratch / "pin-off.npz", "--threads", cpus, "--pin", "off")
    other = helix.score(hlx, prompts, scratch / "pin-on.npz", "--threads", cpus, "--pin", "on")
    assert all(np.array_equal(a, b) for a, b in zip(base, other, strict=True))
    done = helix.tool("helix-run", hlx, "--prompts", prompts, "--threads", cpus + 1, "--pin", "on", check=False)
    assert done.returncode == 1 and "HLX4012" in done.stderr and f"{cpus + 1} threads" in done.stderr


def test_threads_are_as_many_as_the_cpus_that_may_be_used(scratch):
    hlx = artifact(scratch, "llama-tiny", 1, 1, 1)
    one = min(os.sched_getaffinity(0))
    done = subprocess.run([helix.BUILD / "bin" / "helix-run", hlx, "--prompt-ids", "1,2", "--tokens", "1"], text=True,
                          capture_output=True, timeout=60, preexec_fn=lambda: os.sched_setaffinity(0, {one}))
    assert done.returncode == 0 and "scratch of 1 thread" in done.stderr + done.stdout, done.stderr


def greedy_reference(fixture, ids, tokens):
    """Greedy continuation by ONNX Runtime, one full pass per token."""
    ids = list(ids)
    for _ in range(tokens):
        ids.append(int(helix.onnx_logits(fixture, ids)[-1].argmax()))
    return ids[-tokens:]


def test_greedy_tokens_are_onnx_runtimes(scratch):
    ids = [row[:prompt] for row, (prompt, _) in zip(helix.sequences("llama-tiny", helix.RAGGED), helix.RAGGED)]
    prompts = scratch / "greedy.jsonl"
    prompts.write_text("".join(json.dumps({"ids": [int(i) for i in row]}) + "\n" for row in ids))
    want = [greedy_reference("llama-tiny", row, 24) for row in ids]
    for mesh in [(1, 1), (2, 2), (5, 1)]:
        assert generate(artifact(scratch, "llama-tiny", *mesh, 3), prompts, 24) == want, mesh


@pytest.mark.parametrize("flags", [[], ["--top-k", "20"], ["--top-p", "0.9"], ["--top-k", "50", "--top-p", "0.8"]])
def test_sampled_tokens_are_the_same_on_every_mesh(scratch, flags):
    prompts = scratch / "sampled.jsonl"
    prompts.write_text("".join(json.dumps({"ids": [i + 1, 7, 9]}) + "\n" for i in range(3)))
    runs = {mesh: generate(artifact(scratch, "llama-tiny", *mesh, 3), prompts, 32, "--temperature", "0.9", "--seed", "11",
                           *flags)
            for mesh in helix.meshes("llama-tiny")}
    assert all(run == runs[1, 1] for run in runs.values()), runs
    other = generate(artifact(scratch, "llama-tiny", 1, 1, 3), prompts, 32, "--temperature", "0.9", "--seed", "12", *flags)
    assert other != runs[1, 1], "another seed gives other tokens"


def test_needle_is_found_on_every_mesh(scratch):
    """A trained model that finds a value in its context: exact match may not suffer from any sharding."""
    cases = [json.loads(line) for line in (helix.MODELS / "needle" / "prompts.jsonl").read_text().splitlines()]
    assert len(cases) >= 32
    prompts = scratch / "needle.jsonl"
    prompts.write_text("".join(json.dumps({"ids": case["ids"]}) + "\n" for case in cases))
    for kvp, tpa in helix.meshes("needle"):
        hlx = scratch / f"needle-{kvp}x{tpa}.hlx"
        helix.compile_model("needle", hlx, "--kvp", kvp, "--tpa", tpa, "--batch", 4, "--max-context", 128, "--block", 4,
                            "--prefill-chunk", 16)
        found = [tokens[0] == case["answer"] for tokens, case in zip(generate(hlx, prompts, 1), cases, strict=True)]
        assert sum(found) == len(cases), f"{(kvp, tpa)}: {sum(found)} of {len(cases)}"


def test_same_input_same_artifact(scratch):
    first, second = scratch / "first.hlx", scratch / "second.hlx"
    for out in (first, second):
        helix.compile_model("llama-odd", out, *helix.options(2, 2, 3))
    assert first.read_bytes() == second.read_bytes()


def expected_bytes(fixture, kvp, tpa, batch, tokens):
    """Bytes that a rank sends per step by the design's formula: all-to-all, all-reduces of layers, of the embedding."""
    shape, ranks = helix.FIXTURES[fixture], kvp * tpa
    kv_heads = -(-shape["kv_heads"] // tpa)
    heads = -(-kv_heads * (shape["heads"] // shape["kv_heads"]) // kvp)
    exchange = (kvp - 1) * batch * tokens * heads * (4 * shape["head_dim"] + 4) * shape["layers"]
    reduce = 2 * (ranks - 1) * -(-batch * tokens * shape["hidden"] // ranks) * 4
    return exchange, reduce * 2 * shape["layers"], reduce


@pytest.mark.parametrize("fixture", ["llama-tiny", "llama-odd"])
def test_bytes_sent_equal_the_formula(scratch, fixture):
    for kvp, tpa in helix.meshes(fixture):
        run = helix.tool("helix-run", artifact(scratch, fixture, kvp, tpa, 3), "--prompt-ids", "1,2,3", "--tokens", 4)
        sent = re.search(r"all-to-all (\d+), all-reduce (\d+), embedding (\d+),", run.stderr)
        assert sent, run.stderr
        assert tuple(map(int, sent.groups())) == expected_bytes(fixture, kvp, tpa, 3, 1), (kvp, tpa)


def test_artifact_moves_with_its_weights(scratch):
    """Weights are found relative to the artifact, or where --weights-root says."""
    home = scratch / "home"
    home.mkdir()
    for name in ("model.onnx", "model.onnx.data"):
        shutil.copy(helix.MODELS / "llama-tiny" / name, home / name)
    hlx = home / "model.hlx"
    helix.tool("helix-compile", home / "model.onnx", "-o", hlx, "--kvp", 2, "--max-context", 64)
    want = helix.tool("helix-run", hlx, "--prompt-ids", "5,6", "--tokens", 5).stdout
    moved = scratch / "moved"
    home.rename(moved)
    assert helix.tool("helix-run", moved / "model.hlx", "--prompt-ids", "5,6", "--tokens", 5).stdout == want
    (scratch / "alone").mkdir()
    alone = shutil.move(moved / "model.hlx", scratch / "alone" / "model.hlx")
    lost = helix.tool("helix-run", alone, "--prompt-ids", "5,6", "--tokens", 5, check=False)
    assert lost.returncode != 0 and re.search(r"HLX4\d\d\d: .*model\.onnx\.data", lost.stderr)
    assert helix.tool("helix-run", alone, "--weights-root", moved, "--prompt-ids", "5,6", "--tokens", 5).stdout == want


def test_cache_of_more_than_4_gib(scratch):
    """4,200 slots of 256 tokens: the last slot's cache lies beyond 2^32 bytes, and its logits are those of the first."""
    slots, hlx = 4200, scratch / "large.hlx"
    helix.compile_model("llama-d256", hlx, "--batch", slots, "--max-context", 256)
    ids = [[i % 3, 7, i % 2, 11] for i in range(slots)]
    prompts, out = helix.write_prompts(scratch / "large.jsonl", ids), scratch / "large.npz"
    run = helix.tool("helix-run", hlx, "--prompts", prompts, "--score", "--outputs", out)
    assert float(re.search(r"KV cache ([\d.]+) GiB", run.stderr)[1]) > 4
    with np.load(out) as arrays:
        for i in range(6):
            first, last = arrays[f"logits_{i}"], arrays[f"logits_{slots - 6 + i}"]
            assert ids[i] == ids[slots - 6 + i] and np.array_equal(first, last)
        assert helix.error([last], [helix.onnx_logits("llama-d256", ids[-1])]) <= 1e-5


def test_c_example_gives_the_tools_tokens(scratch):
    hlx = artifact(scratch, "llama-tiny", 2, 2, 1)
    want = helix.tool("helix-run", hlx, "--prompt-ids", "3,1,4,1,5", "--tokens", 12).stdout.split()
    assert helix.tool("example-generate", hlx, 12, 3, 1, 4, 1, 5).stdout.split() == want


def test_a_trace_tells_every_command_by_its_onnx_node(scratch):
    hlx, out = artifact(scratch, "llama-tiny", 2, 2, 1), scratch / "trace.json"
    run = helix.tool("helix-run", hlx, "--benchmark-context", 40, "--benchmark-steps", 3, "--link-latency", 0.001,
                     "--trace", out)
    assert "decode: 3 steps" in run.stderr and run.stdout == ""
    trace = json.loads(out.read_text())
    nodes = {node.name for node in onnx.load(helix.model("llama-tiny"), load_external_data=False).graph.node}
    commands = [event for event in trace["traceEvents"] if "command" in event.get("args", {})]
    assert all(event["name"] in nodes for event in commands if event["name"] != event["args"]["kind"])
    assert {"AllToAll", "PartialAttention", "Linear", "Generated"} <= {event["cat"] for event in commands}
    steps = trace["helix"]["steps"]
    assert [step["past"] for step in steps] == [[40]] * 3
    for step in steps:
        for rank in range(4):
            own = [it for it in commands if it["pid"] == rank and it["args"]["step"] == step["step"]]
            kv = [it["args"]["bytes"] for it in own if it["cat"] == "PartialAttention"]
            # 41 tokens in blocks of 4 over two ranks: 21 and 20, each with one KV head of 16 + 16 floats.
            local = 21 if rank % 2 == 0 else 20
            assert all(bytes_ >= local * 32 * 4 for bytes_ in kv) and kv
            sent = [it["args"]["sent_bytes"] for it in own if it["cat"] in ("AllToAll", "AllReduce")]
            assert sum(sent) == sum(expected_bytes("llama-tiny", 2, 2, 1, 1))
            for stream in {it["tid"] for it in own}:
                track = [it for it in own if it["tid"] == stream]
                assert all(b["ts"] >= a["ts"] + a["dur"] - 1e-3 for a, b in zip(track, track[1:]))
