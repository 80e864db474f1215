"""Artifacts for GPUs, run on an emulated driver (test/cuda): every step of the runtime but the GPU itself.

Kernels of the library run on an emulation of a GPU; the artifact's own, which are PTX, are stood in for by those of the
same names that the same model has for the CPU.
"""

import json
import os
import signal
import subprocess
import sys
import time

import helix
import numpy as np
import pytest

sys.path.insert(0, str(helix.ROOT / "test" / "import"))
import quantised  # noqa: E402

LIBRARIES = helix.BUILD / "lib"
EMULATED = LIBRARIES / "libemulated-cuda.so"
KERNELS = helix.BUILD / "runtime/Cuda/Kernels"
pytestmark = pytest.mark.skipif(not list(KERNELS.glob("*.fatbin")), reason="built without the CUDA toolkit")
LENGTHS = [(1, 9), (5, 12), (11, 15)]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("cuda")


def artifacts(scratch, fixture, kvp, tpa, dtype="f32", *flags, block=4, cache=None):
    """The model for a GPU, and for the CPU."""
    out = scratch / f"{fixture}-{kvp}x{tpa}-{dtype}-{cache}-{block}{''.join(map(str, flags))}.hlx"
    options = helix.options(kvp, tpa, len(LENGTHS), dtype, block, context=32, cache=cache)
    if not out.exists():
        helix.compile_model(fixture, out, *options, *flags, "--target", "cuda", "--cuda-arch", "sm_80")
        helix.compile_model(fixture, out.with_suffix(".cpu.hlx"), *options, *flags)
    return out, out.with_suffix(".cpu.hlx")


def environment(cpu, **more):
    return {**os.environ, "HELIX_LIBCUDA": str(EMULATED), "HELIX_LIBNCCL": str(LIBRARIES / "libemulated-nccl.so"),
            "HELIX_EMULATED_KERNELS": str(cpu), **more}


def score(gpu, cpu, prompts, out, *flags):
    command = [helix.BUILD / "bin" / "helix-run", gpu, "--prompts", prompts, "--score", "--decode-last", 4, "--outputs", out,
               *flags]
    done = subprocess.run([str(c) for c in command], env=environment(cpu), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return load(out)


def load(out):
    with np.load(out) as arrays:
        return [arrays[f"logits_{i}"] for i in range(len(arrays.files))]


@pytest.mark.parametrize("fixture, kvp, tpa, flags", [
    ("llama-tiny", 1, 1, ()), ("llama-tiny", 2, 2, ()), ("llama-odd", 3, 1, ()), ("llama-odd", 4, 2, ()),
    ("llama-tiny", 2, 2, ("--hopb", 2, "--split-reduce", 2)), ("llama-d128", 2, 1, ()), ("llama-rope3", 2, 1, ())])
def test_logits_are_onnx_runtimes(scratch, fixture, kvp, tpa, flags):
    gpu, cpu = artifacts(scratch, fixture, kvp, tpa, "f32", *flags)
    ids = helix.sequences(fixture, LENGTHS)
    prompts = helix.write_prompts(scratch / f"{fixture}.jsonl", ids)
    ours = score(gpu, cpu, prompts, scratch / "logits.npz")
    assert helix.error(ours, [helix.onnx_logits(fixture, row) for row in ids]) <= 1e-5


@pytest.mark.parametrize("dtype, limit", [("f16", 2e-3), ("bf16", 1e-2)])
def test_half_precision_is_the_cpus(scratch, dtype, limit):
    gpu, cpu = artifacts(scratch, "llama-tiny", 2, 2, dtype)
    prompts = helix.write_prompts(scratch / "half.jsonl", helix.sequences("llama-tiny", LENGTHS))
    ours = score(gpu, cpu, prompts, scratch / "half.npz")
    theirs = helix.score(cpu, prompts, scratch / "half-cpu.npz", decode_last=4)
    assert helix.error(ours, theirs) <= limit


@pytest.mark.parametrize("name, kvp, tpa, form", [
    ("4-bits", 1, 1, {}), ("4-bits-zeros", 2, 2, {"zero": "packed"}), ("4-bits-half", 5, 1, {
        "zero": "packed", "scale": np.float16}), ("4-bits-real", 4, 2, {"zero": "real", "block": 32}),
    ("2-bits", 3, 1, {"bits": 2, "zero": "packed"}), ("8-bits-tied", 2, 2, {"bits": 8, "zero": "packed", "tied": True}),
    ("table", 2, 1, {"table": ("UINT8", 4, 16, "packed")}), ("table-int4", 2, 2, {"table": ("INT4", 4, 16, "middle")})])
def test_weights_of_codes_are_the_cpus(scratch, name, kvp, tpa, form):
    model, gpu = scratch / f"{name}.onnx", scratch / f"{name}.hlx"
    cpu = gpu.with_suffix(".cpu.hlx")
    model.write_bytes(quantised.Quantised(**form).model().SerializeToString())
    options = helix.options(kvp, tpa, len(LENGTHS), context=32)
    helix.tool("helix-compile", model, "-o", gpu, *options, "--target", "cuda", "--cuda-arch", "sm_80")
    helix.tool("helix-compile", model, "-o", cpu, *options)
    ids = [np.random.default_rng(1).integers(0, quantised.forms.VOCABULARY, total) for _, total in LENGTHS]
    prompts = helix.write_prompts(scratch / f"{name}.jsonl", ids)
    ours = score(gpu, cpu, prompts, scratch / f"{name}.npz")
    theirs = helix.score(cpu, prompts, scratch / f"{name}-cpu.npz", decode_last=4)
    assert max(np.abs(row).max() for row in theirs) > 1
    assert helix.error(ours, theirs) <= 1e-5


def test_rounded_activations_are_refused(scratch):
    """helix-compile does not make such an artifact; helix-opt does."""
    model, weights, gpu = (scratch / f"rounded.{end}" for end in ("onnx", "safetensors", "hlx"))
    model.write_bytes(quantised.Quantised().model().SerializeToString())
    text = helix.tool("helix-translate", "--import-onnx", model, "--activations", "int8", "--inline-weights", weights,
                      "--max-context", 32).stdout
    text = helix.tool("helix-opt", "--helix-model-phase", "--helix-spmd-phase", "--helix-plan-phase=target=cuda",
                      "--mlir-print-debuginfo", stdin=text).stdout
    helix.tool("helix-translate", "--plan-to-hlx", "--model-dir", scratch, "-o", gpu, stdin=text)
    cpu = gpu.with_suffix(".cpu.hlx")
    helix.tool("helix-compile", model, "-o", cpu, "--max-context", 32)
    done = subprocess.run([str(helix.BUILD / "bin" / "helix-run"), str(gpu), "--prompt-ids", "1"], capture_output=True,
                          text=True, env=environment(cpu))
    assert done.returncode == 1 and "HLX4103: the artifact rounds activations to int8" in done.stderr, done.stderr


# Pages of 16 tokens and heads of 128: on tensor cores.
@pytest.mark.parametrize("fixture, kvp, tpa, block", [("llama-tiny", 2, 2, 4), ("llama-d128", 2, 1, 16)])
@pytest.mark.parametrize("cache, flags", [
    ("int8", ()), ("int8", ("--kv-scale", 2.0**-5)), ("fp8-e4m3", ()), ("fp8-e4m3", ("--kv-scale", 2.0**-5))])
def test_caches_of_codes_are_the_cpus(scratch, fixture, kvp, tpa, block, cache, flags):
    gpu, cpu = artifacts(scratch, fixture, kvp, tpa, "f32", *flags, block=block, cache=cache)
    ids = helix.sequences(fixture, LENGTHS)
    prompts = helix.write_prompts(scratch / f"codes-{fixture}.jsonl", ids)
    ours = score(gpu, cpu, prompts, scratch / "codes.npz")
    theirs = helix.score(cpu, prompts, scratch / "codes-cpu.npz", decode_last=4)
    assert helix.error(ours, theirs) <= 1e-5
    assert helix.error(ours, [helix.onnx_logits(fixture, row) for row in ids]) > 1e-4, "nothing was rounded"


def test_a_link_takes_its_time_and_the_simulator_learns_from_it(scratch):
    gpu, cpu = artifacts(scratch, "llama-tiny", 2, 1, "f32", "--hopb", 2)
    latency, bandwidth, traces = 3e-3, 1e6, []
    for i, link in enumerate([(), ("--link-latency", latency, "--link-bandwidth", bandwidth)]):
        traces.append(scratch / f"link-{i}.json")
        command = [helix.BUILD / "bin" / "helix-run", gpu, "--benchmark-context", 8, "--benchmark-steps", 2, "--trace",
                   traces[-1], "--trace-steps", 2, *link]
        done = subprocess.run([str(c) for c in command], env=environment(cpu), capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
    trace = json.loads(traces[1].read_text())
    assert trace["helix"]["link"] == {"latency_s": latency, "bytes_per_s": bandwidth}
    exchanges = [event for event in trace["traceEvents"] if event["ph"] == "X" and "sent_bytes" in event["args"]]
    assert {event["args"]["kind"] for event in exchanges} == {"AllToAll", "AllReduce"}
    for event in exchanges:
        assert event["dur"] * 1e-6 >= latency + event["args"]["sent_bytes"] / bandwidth
    # Alone in the plan, an exchange has no wait for others in its time.
    sums = [event for event in exchanges if event["args"]["kind"] == "AllReduce"]
    assert all(event["dur"] * 1e-6 <= latency + event["args"]["sent_bytes"] / bandwidth + 1e-4 for event in sums)
    hardware = scratch / "link.hardware.json"
    helix.tool("helix-simulate", "--calibrate", *traces, "-o", hardware)
    steps = [json.loads(helix.tool("helix-simulate", gpu, "--hardware", hardware, "--context", 9, "--json", *link).stdout)
             for link in ((), ("--link-latency", latency, "--link-bandwidth", bandwidth))]
    # On the emulation nothing takes long enough to hide an exchange.
    first = trace["helix"]["steps"][0]["step"]
    total = sum(latency + event["args"]["sent_bytes"] / bandwidth for event in exchanges
                if event["pid"] == 0 and event["args"]["step"] == first)
    assert steps[1]["ttl_s"] - steps[0]["ttl_s"] == pytest.approx(total, rel=0.05)


# Lists hold a part of the vocabulary, or all; the last rank of llama-odd has padding.
@pytest.mark.parametrize("fixture, kvp, tpa, seed, flags", [
    ("llama-tiny", 1, 1, 1, ()), ("llama-tiny", 1, 1, 2, ("--top-k", 100)), ("llama-tiny", 2, 2, 3, ("--top-p", 0.9)),
    ("llama-odd", 3, 1, 4, ("--top-k", 40)), ("llama-odd", 4, 2, 5, ("--top-k", 20, "--top-p", 0.8)),
    ("llama-tiny", 1, 1, 6, ("--top-k", 100, "--top-p", 0.9))])
def test_drawn_tokens_are_the_cpus(scratch, fixture, kvp, tpa, seed, flags):
    gpu, cpu = artifacts(scratch, fixture, kvp, tpa)
    prompts = helix.write_prompts(scratch / f"draw-{fixture}.jsonl", helix.sequences(fixture, LENGTHS))
    log = scratch / f"draw-{seed}.log"
    arguments = ["--prompts", prompts, "--tokens", 4, "--temperature", 1.5, "--seed", seed, *flags]
    done = subprocess.run([str(c) for c in (helix.BUILD / "bin" / "helix-run", gpu, *arguments)], capture_output=True,
                          env=environment(cpu, HELIX_EMULATED_LOG=str(log)), text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    theirs = helix.tool("helix-run", cpu, *arguments).stdout
    assert done.stdout == theirs
    assert theirs != helix.tool("helix-run", cpu, "--prompts", prompts, "--tokens", 4).stdout, "that is greedy"
    # First tokens, before steps are captured; rows of logits where lists are not enough.
    copies = log.read_text().splitlines().count("do copy to the host")
    assert (copies > 2) == ("--top-p" in flags and 100 in flags)


def process(gpu, cpu, i, n, meeting, arguments, **more):
    command = [helix.BUILD / "bin" / "helix-run", gpu, *arguments, "--process", f"{i}/{n}", "--rendezvous", meeting]
    return subprocess.Popen([str(c) for c in command], env=environment(cpu, **more), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def processes(gpu, cpu, n, meeting, arguments, more=None):
    return [process(gpu, cpu, i, n, meeting, arguments(i), **(more(i) if more else {})) for i in range(n)]


@pytest.mark.parametrize("kvp, tpa", [(2, 1), (2, 2)])
def test_processes_have_the_bits_of_local_ranks(scratch, kvp, tpa):
    gpu, cpu = artifacts(scratch, "llama-tiny", kvp, tpa)
    prompts = helix.write_prompts(scratch / "nccl.jsonl", helix.sequences("llama-tiny", LENGTHS))
    local = score(gpu, cpu, prompts, scratch / "local.npz")
    n = kvp * tpa
    outs = [scratch / f"rank{i}.npz" for i in range(n)]
    logs = [scratch / f"nccl-{n}-{i}.log" for i in range(n)]
    running = processes(gpu, cpu, n, f"file:{scratch}/meet{n}", lambda i: [
        "--prompts", prompts, "--score", "--decode-last", 4, "--outputs", outs[i]],
        lambda i: {"HELIX_EMULATED_LOG": str(logs[i])})
    for process in running:
        _, said = process.communicate(timeout=280)
        assert process.returncode == 0, said
    for out in outs:
        assert all(np.array_equal(a, b) for a, b in zip(load(out), local, strict=True))
    assert not list(scratch.glob("meet*")), "the file of the meeting is removed"
    # One group of messages for an all-to-all, with output and log-sum-exp in it, and two for a sum.
    log = logs[0].read_text().splitlines()
    assert log.index(f"init 0 of {n}") >= 0
    splits = [line for line in log if line.startswith("split")]
    assert len(splits) == (0 if tpa == 1 else 2), "a communicator for each axis that is not all ranks"
    assert all(line.startswith("destroy") for line in log if "abort" in line)


def test_processes_draw_the_tokens_of_local_ranks(scratch):
    gpu, cpu = artifacts(scratch, "llama-tiny", 2, 1)
    arguments = ["--prompt-ids", "1,2,3", "--tokens", 3, "--temperature", 1, "--top-p", 0.9, "--seed", 5]
    running = processes(gpu, cpu, 2, f"file:{scratch}/draw", lambda i: arguments)
    said = [process.communicate(timeout=280) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert {out for out, _ in said} == {helix.tool("helix-run", cpu, *arguments).stdout}


def test_processes_with_other_artifacts_are_refused(scratch):
    """Kernels are the same, what is kept where is not."""
    running = [process(*artifacts(scratch, "llama-tiny", 2, 1, block=block), i, 2, f"file:{scratch}/other",
                       ["--prompt-ids", "1,2,3", "--comm-timeout", 10]) for i, block in enumerate((4, 8))]
    said = [each.communicate(timeout=250)[1] for each in running]
    assert any("HLX4106" in text and "same artifact" in text for text in said), said


def test_a_killed_process_ends_the_others(scratch):
    gpu, cpu = artifacts(scratch, "llama-tiny", 2, 1)
    log = scratch / "killed.log"
    running = processes(gpu, cpu, 2, f"file:{scratch}/killed", lambda i: [
        "--benchmark-context", 8, "--benchmark-steps", 100000, "--comm-timeout", 10],
        lambda i: {"HELIX_EMULATED_LOG": str(log)} if i == 0 else {})
    while "launch graph" not in (log.read_text() if log.exists() else ""):
        assert [p.poll() for p in running] == [None, None], running[0].communicate(timeout=10)[1]
        time.sleep(0.2)
    running[1].send_signal(signal.SIGKILL)
    # What is left of a step is computed first; that takes a while here, and next to none on a GPU.
    _, said = running[0].communicate(timeout=250)
    running[1].communicate(timeout=10)
    assert running[0].returncode == 1 and "HLX4105" in said, said


@pytest.mark.parametrize("wrong, code", [("late", "HLX4005"), ("fail:9", "HLX4105"), ("stall:9", "HLX4005")])
def test_what_nccl_does_wrong_is_an_error(scratch, wrong, code):
    gpu, cpu = artifacts(scratch, "llama-tiny", 2, 1)
    running = processes(gpu, cpu, 2, f"file:{scratch}/{wrong}", lambda i: [
        "--prompt-ids", "1,2,3", "--tokens", 20, "--comm-timeout", 3], lambda i: {
        "HELIX_EMULATED_NCCL": wrong, "HELIX_EMULATED_LOG": str(scratch / f"wrong-{i}.log")})
    for process in running:
        _, said = process.communicate(timeout=250)
        assert process.returncode == 1 and code in said, said
    assert "abort" in (scratch / "wrong-0.log").read_text().splitlines()


def test_without_nccl_it_is_a_numbered_error(scratch):
    gpu, cpu = artifacts(scratch, "llama-tiny", 2, 1)
    running = processes(gpu, cpu, 2, f"file:{scratch}/missing", lambda i: ["--prompt-ids", "1", "--comm-timeout", 3],
                              lambda i: {"HELIX_LIBNCCL": "/nowhere/libnccl.so.2"})
    said = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [1, 1]
    assert any("HLX4104" in errors for _, errors in said), "who does not find it says so; the others do not meet it"
    assert not any(out for out, _ in said)


def test_without_a_driver_it_is_a_numbered_error(scratch):
    gpu, _ = artifacts(scratch, "llama-tiny", 1, 1)
    done = subprocess.run([str(helix.BUILD / "bin" / "helix-run"), str(gpu), "--prompt-ids", "1"], capture_output=True,
                          text=True, env=dict(os.environ, HELIX_LIBCUDA="/nowhere/libcuda.so"))
    assert done.returncode == 1 and "HLX4100" in done.stderr and not done.stdout
