"""The parts of scripts/gpu/check.py that measure. Each takes the Check and returns what it did in words."""

import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

import numpy as np

PEERS = ("sdpa", "sdpa-folded", "fa3", "flashinfer")
# Kernels alone: microseconds of a batch of one.
MICROSECONDS = {"b1-h32-kv8-d128-s4096": 14, "b1-h32-kv8-d128-s32768": 45}
BANDWIDTH = 4.0e12  # bytes/s that attention is to read of at least a gigabyte
# Decode steps: milliseconds, and the least that PyTorch may take of ours.
STEP_MS = {(1, 1024): 4.7, (1, 131072): 10.0}
STEP_RATIO = {(8, 4096): 1.2, (64, 4096): 1.2, (4, 131072): 1.2}


def lines_of(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def median(line):
    return statistics.median(line["seconds"])


def peers(check, *arguments, seconds):
    """What peers.py prints, by name; a line says what failed in its `error`."""
    if not check.torch:
        return {}
    script = pathlib.Path(__file__).with_name("peers.py")
    try:
        done = check.run(sys.executable, script, *arguments, *(["--small"] if check.small else []), seconds=seconds)
        output, said = done.stdout, f"peers.py {arguments[0]} ended with {done.returncode}: {done.stderr[-600:]}"
    except subprocess.TimeoutExpired as error:
        output, said = error.output, f"peers.py {arguments[0]} did not end in {error.timeout:.0f} s"
    lines = {line["name"]: line for line in lines_of(output)}
    if not lines:
        raise RuntimeError(said)
    return lines


#===-- kernels alone ------------------------------------------------------===


def kernels(check):
    """Ours, cold, as graphs, beside the copy bandwidth and the matrix rate of the same minutes."""
    done = check.run(*check.command("helix-bench-cuda", *(["--small"] if check.small else [])), seconds=100)
    lines = [line for line in lines_of(done.stdout) if "name" in line]
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"helix-bench-cuda ended with {done.returncode}: {done.stderr[-600:]}")
    copy = next(line["bytes"] / median(line) for line in lines if line["name"] == "copy")
    check.result("bandwidth/copy", copy / 1e9, "GB/s", better="higher")
    check.attention_seconds, latents = {}, []
    for line in lines:
        kind, _, rest = line["name"].partition("/")
        rate, shape = line["bytes"] / median(line), rest.rsplit("/", 1)[-1]
        if kind == "attention":
            check.attention_seconds[shape] = median(line)
            if shape in MICROSECONDS:
                check.result(f"attention_us/{rest}", median(line) * 1e6, "us", MICROSECONDS[shape])
            else:
                check.result(f"attention_bandwidth/{rest}", rate / 1e12, "TB/s",
                             BANDWIDTH / 1e12 if line["bytes"] >= 1e9 else None, "higher")
        elif kind == "latents":
            latents.append((rest, line))
            if "-h128-" not in shape:
                check.result(f"mla_fraction/{rest}", rate / copy, "of copy", 0.85, "higher")
        elif kind == "linear":
            target = None if "2bit" in rest else 0.7 if "4bit" in rest and rest.endswith("-b16") else 0.85
            check.result(f"linear_fraction/{rest}", rate / copy, "of copy", target, "higher")
        elif kind == "grouped":
            check.result(f"grouped_fraction/{rest}", rate / copy, "of copy", 0.85, "higher")
        elif kind == "sampling":
            check.result(f"sampling_us/{rest}", median(line) * 1e6, "us")
        elif kind.startswith("prefill"):
            check.result(f"{kind}_rate/{rest}", line["flops"] / median(line) / 1e12, "TFLOP/s", better="higher")
    said = f"{len(lines)} kernels and shapes"
    check.matrix_rate = None
    products = peers(check, "rates", seconds=40)
    rates = [line["flops"] / median(line) for line in products.values() if "seconds" in line]
    if not rates:
        return said + "; no matrix rate: " + str([line.get("error") for line in products.values()] or "no PyTorch")
    check.matrix_rate = max(rates)
    check.result("matrix_rate/bf16", check.matrix_rate / 1e12, "TFLOP/s", better="higher")
    for line in lines:
        if line["name"].startswith("prefill_rounded/"):
            check.result(line["name"].replace("/", "_matrix_fraction/", 1), line["flops"] / median(line) / check.matrix_rate,
                         "of matrix rate", 0.5, "higher")
    for rest, line in latents:
        if "-h128-" in rest:
            check.result(f"mla_matrix_fraction/{rest}", line["flops"] / median(line) / check.matrix_rate, "of matrix rate",
                         0.6, "higher")
    return said


def attention_peers(check):
    """PyTorch's attention, FlashAttention-3 and FlashInfer at the shapes of ours."""
    ours = getattr(check, "attention_seconds", {})
    if not check.torch or not ours:
        return "skipped: " + ("no times of ours" if check.torch else "no PyTorch here")
    shapes = [",".join(re.findall(r"\d+", shape)) for shape in ours]
    best, said = {}, []
    for peer in PEERS:
        try:
            lines = peers(check, "attention", peer, *shapes, seconds=60)
        except Exception as error:  # noqa: BLE001: the next one may do
            said.append(f"{peer}: {str(error)[-150:]}")
            continue
        errors = [line["error"] for line in lines.values() if "error" in line]
        said.append(f"{peer}: {errors[0][:150]}" if errors else peer)
        for name, line in lines.items():
            shape = name.partition("/")[2]
            if "seconds" in line:
                check.result(f"attention_us/bf16/{peer}/{shape}", median(line) * 1e6, "us")
                best[shape] = min(best.get(shape, float("inf")), median(line))
    for shape, seconds in best.items():
        check.result(f"attention_over_best_peer/bf16/{shape}", seconds / ours[shape], "times as fast", 1.0, "higher")
    return "; ".join(said)


def exchanges(check):
    """An all-to-all of outputs with their log-sum-exp against one of each, on one GPU and over sockets."""
    flags, said = ["--small"] if check.small else [], []
    local = check.run(*check.command("helix-bench-cuda", *flags, "--exchanges"), seconds=40)
    outputs = {"local": (local.returncode, local.stdout, local.stderr)}
    meeting = f"file:{check.scratch / 'exchanges'}"
    try:
        ends = check.join(check.spawn(4, lambda i: check.command("helix-bench-cuda", *flags, "--exchanges", f"{i}/4",
                                                                 meeting)))
        outputs["nccl"] = (0, ends[0], "")
    except RuntimeError as error:
        outputs["nccl"] = (1, "", str(error))
    failed = []
    for where, (code, text, errors) in outputs.items():
        times = {line["name"]: median(line) for line in lines_of(text)}
        if code != 0 or not times:
            failed.append(f"{where}: {code} {errors[-400:]}")
            continue
        for name in times:
            if name.endswith("/packed"):
                case = name.split("/", 1)[1].removesuffix("/packed")
                ratio = times[name.removesuffix("packed") + "two"] / times[name]
                check.result(f"exchange_two_over_packed/f32/{case}", ratio, "", better="higher")
                said.append(f"{case}: {ratio:.2f}")
    if failed:
        raise RuntimeError("; ".join(failed + said))
    return "; ".join(said)


#===-- whole steps --------------------------------------------------------===


def random_weights(check, name, size):
    """A directory with a file of random numbers, which are small and finite read as bf16 and as f32. In memory if it is
    large enough."""
    made = check.weights.get(name)
    if made is None:
        memory = pathlib.Path("/dev/shm")
        base = memory if memory.is_dir() and shutil.disk_usage(memory).free > size + (4 << 30) else check.scratch
        made = check.weights[name] = pathlib.Path(tempfile.mkdtemp(prefix="helix-weights-", dir=base))
        numbers = (0.02 * np.random.default_rng(0).standard_normal(1 << 23)).astype(np.float32)
        block = (numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        with open(made / pathlib.Path(name).name, "wb") as file:
            for begin in range(0, size, len(block)):
                check.limit(1)  # throws where this takes too long
                file.write(block[:size - begin])
    return made


def report_of(check, bench, *arguments, seconds):
    """What helix-run reports."""
    weights = random_weights(check, bench["data"], bench["bytes"])
    report = check.scratch / "report.json"
    report.unlink(missing_ok=True)
    check.helix_run(check.pack / bench["file"], "--weights-root", weights, *arguments, "--report", report, seconds=seconds)
    return json.loads(report.read_text())


def steps(check):
    """Decode steps of Llama-3.1-8B's shape with random weights."""
    if not check.listing["bench"]:
        return "skipped: the pack has no benchmarks"
    said, failed = [], False
    check.step_seconds = {}
    for bench in check.listing["bench"]:
        if bench["prefill"]:
            continue
        batch, context = bench["batch"], bench["context"]
        name = f"{bench['model']}/batch {batch} at {context}"
        try:
            report = report_of(check, bench, "--benchmark-context", context, "--benchmark-steps", 24, seconds=70)
        except Exception as error:  # noqa: BLE001: the next one may fit
            said.append(f"{name}: {str(error)[-200:]}")
            failed = failed or "HLX4004" not in str(error)  # a GPU may be too small for it
            continue
        seconds = report["decode"]["median_s"]
        check.step_seconds[batch, context] = seconds
        check.result(f"step_ms/bf16/{name}", seconds * 1e3, "ms", STEP_MS.get((batch, context)))
        said.append(f"{name}: {seconds * 1e3:.2f} ms")
    if failed or not check.step_seconds:
        raise RuntimeError("; ".join(said))
    return "; ".join(said)


def steps_of_peers(check):
    """The same steps in PyTorch, one process for all."""
    ours = getattr(check, "step_seconds", {})
    if not check.torch or not ours:
        return "skipped: " + ("no times of ours" if check.torch else "no PyTorch here")
    lines = peers(check, "steps", *(f"{batch},{context}" for batch, context in ours), seconds=100)
    said = []
    for (batch, context), seconds in ours.items():
        times = {}
        for way in ("plain", "folded"):
            line = lines.get(f"step/b{batch}-c{context}/{way}", {"error": "no time left"})
            if "seconds" in line:
                times[way] = median(line)
            else:
                said.append(f"batch {batch} at {context}, {way}: {line['error'][:150]}")
        if times:
            best = min(times.values())
            check.result(f"step_ms/bf16/torch/batch {batch} at {context}", best * 1e3, "ms")
            check.result(f"step_over_torch/bf16/batch {batch} at {context}", best / seconds, "times as fast",
                         STEP_RATIO.get((batch, context)), "higher")
    return "; ".join(said) or f"{len(ours)} steps"


def prefill(check):
    """A prompt of 2048 tokens, as a part of the matrix rate."""
    bench = next((bench for bench in check.listing["bench"] if bench["prefill"]), None)
    if not bench:
        return "skipped: the pack has no such benchmark"
    tokens = bench["prefill"]
    prompts = check.scratch / "prefill.jsonl"
    ids = np.random.default_rng(1).integers(0, bench["vocab"], tokens)
    prompts.write_text(4 * (json.dumps({"ids": ids.tolist()}) + "\n"))
    said = []
    # Rounded, a product is one of tensor cores' and not three: what the target is of.
    for how, flags in (("rounded", ["--round-activations"]), ("exact", [])):
        report = report_of(check, bench, "--prompts", prompts, "--tokens", 1, *flags, seconds=40)
        seconds = report["prefill"]["seconds"] / report["prefill"]["tokens"] * tokens
        name = f"{how}/bf16/{bench['model']}/{tokens} tokens"
        check.result(f"prefill_ms/{name}", seconds * 1e3, "ms")
        if getattr(check, "matrix_rate", None):
            check.result(f"prefill_matrix_fraction/{name}", bench["flops"] / seconds / check.matrix_rate, "of matrix rate",
                         0.5 if how == "rounded" else None, "higher")
        said.append(f"{how} {seconds * 1e3:.1f} ms")
    return ", ".join(said)


#===-- HOP-B --------------------------------------------------------------===


def hopb(check):
    """HOP-B with ranks on one GPU and an artificial link between them: what it gains beside what the simulator, which has
    learned from steps with other links, says that it does."""
    listing = check.listing.get("hopb")
    if not listing:
        return "skipped: the pack has no case for HOP-B"
    context, plans = listing["context"], [tuple(plan) for plan in listing["plans"]]
    steps = 2 if check.small else 24
    weights = random_weights(check, listing["data"], listing["bytes"])
    file_of = {(one["batch"], one["chunks"]): check.pack / one["file"] for one in listing["files"]}

    def link_flags(link):
        return ["--link-latency", link[0], "--link-bandwidth", link[1]] if link else []

    def measure(batch, chunks, link, trace):
        report = check.scratch / "report.json"
        check.helix_run(file_of[batch, chunks], "--weights-root", weights, "--benchmark-context", context,
                        "--benchmark-steps", steps, "--trace", trace, "--trace-steps", steps, "--report", report,
                        *link_flags(link), seconds=60)
        return json.loads(report.read_text())["decode"]["median_s"]

    def trace_name(kind, *of):
        # With the artifacts, so that the simulator finds these beside it when it reads the trace elsewhere.
        return check.out / "hopb" / ("-".join(map(str, (kind, *of))) + ".json")

    (check.out / "hopb").mkdir(parents=True, exist_ok=True)
    # A link on which an exchange takes about as long as the attention that can hide it.
    batch = max(batch for batch, _ in plans)
    plain = trace_name("plain", batch, 1)
    measure(batch, 1, None, plain)
    events = [event for event in json.loads(plain.read_text())["traceEvents"] if event["ph"] == "X"]
    attention = statistics.median(event["dur"] * 1e-6 for event in events if event["args"]["kind"] == "PartialAttention")
    sent = statistics.median(event["args"]["sent_bytes"] for event in events if event["args"]["kind"] == "AllToAll")
    even = sent / attention
    fitted = [(0, even / 2), (attention / 2, 2 * even)]
    unseen = [(0, even), (attention / 4, 1.5 * even)]
    variants = sorted(file_of)
    traces = [plain]
    for i, link in enumerate(fitted):
        for variant in variants:
            traces.append(trace_name("fitted", i, *variant))
            measure(*variant, link, traces[-1])
    hardware = check.scratch / "gpu.json"
    done = check.run(*check.command("helix-simulate", "--calibrate", *traces, "-o", hardware))
    if done.returncode != 0:
        raise RuntimeError(f"helix-simulate --calibrate: {done.stderr[-600:]}")

    def predict(batch, chunks, link):
        done = check.run(*check.command("helix-simulate", file_of[batch, chunks], "--hardware", hardware, "--context",
                                        context + 1, "--json", *link_flags(link)))
        if done.returncode != 0:
            raise RuntimeError(f"helix-simulate: {done.stderr[-600:]}")
        return json.loads(done.stdout)["ttl_s"]

    step_errors, gain_errors, said = [], [], []
    for i, link in enumerate(unseen):
        measured = {variant: measure(*variant, link, trace_name("unseen", i, *variant)) for variant in variants}
        predicted = {variant: predict(*variant, link) for variant in variants}
        step_errors += [abs(predicted[v] - measured[v]) / measured[v] for v in variants]
        for batch, chunks in plans:
            off, on = (batch, 1), (batch, chunks)
            gain, foreseen = ((of[off] - of[on]) / of[off] for of in (measured, predicted))
            name = f"batch {batch} in {chunks}, {link[0] * 1e6:.0f} us + {link[1] / 1e6:.0f} MB/s"
            check.result(f"hopb_gain/measured/{name}", gain, "of the step", better="higher")
            check.result(f"hopb_gain/predicted/{name}", foreseen, "of the step", better="higher")
            if gain > 0.05:
                gain_errors.append(abs(foreseen - gain) / gain)
            said.append(f"{name}: {100 * gain:.0f} %, predicted {100 * foreseen:.0f} %")
    check.result("hopb_ttl_error/median", statistics.median(step_errors), "", 0.10)
    check.result("hopb_ttl_error/worst", max(step_errors), "")
    if gain_errors:
        check.result("hopb_gain_error/median", statistics.median(gain_errors), "")
    return "; ".join(said)
