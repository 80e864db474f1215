#!/usr/bin/env python3
"""Reproduces what the Helix paper (arXiv 2507.07120) states, from compiled plans: `make reproduce`.

Every figure is simulated from a plan that helix-compile made, none from a formula. Prints a table of ours, theirs,
tolerance and verdict, writes build/bench/reproduce.json, and exits with 1 if a verdict is "off". In the JSON `target` is
the paper's number and `tolerance` how far from it is still met; where `target` is null, nothing is claimed.
"""

import copy
import json
import sys
import tempfile

import harness
import model as shapes

CONTEXT, BATCH = 1_000_000, 8
MEMORY = 8e12  # bytes/s of a GB200, as the paper has it
FP4 = ["--assume-weights", "fp4", "--assume-kv", "fp4"]
US = 1e6

# One layer whose attention and exchange dwarf all else: 64 query heads on one KV head, a hidden size of 16.
FIG3 = {"layers": 1, "hidden": 16, "ffn": 16, "heads": 64, "kv_heads": 1, "head_dim": 128, "vocab": 32}


class Bench(harness.Bench):
    plans = 0

    def model(self, name, shape):
        """A model whose weights are a hole in a file: plans and their prices depend on shapes alone."""
        return shapes.write(shape, self.scratch / name, dtype="bf16")

    def compile(self, model, *flags):
        self.plans += 1
        out = self.scratch / f"{self.plans}.hlx"
        self.tool("helix-compile", model, "-o", out, "--batch", BATCH, "--max-context", CONTEXT, *flags)
        return out

    def hardware(self, description):
        path = self.scratch / "hardware.json"
        path.write_text(json.dumps(description))
        return path

    def simulate(self, plan, hardware, *flags):
        return json.loads(self.tool("helix-simulate", plan, "--hardware", hardware, "--context", CONTEXT, "--batch", BATCH,
                                    "--json", "--commands", *flags))

    def record(self, name, value, unit, theirs=None, tolerance=None):
        """One line of the table. A number without the paper's beside it is information."""
        met = self.add(name, value, unit, theirs, "equal", tolerance=tolerance)["met"]
        verdict = {None: "", True: "met", False: "OFF"}[met]
        beside = f"{theirs:>10g} {tolerance:>9g}" if theirs is not None else " " * 20
        print(f"{name:<58} {value:>10.4g} {beside}  {unit:<8} {verdict}", flush=True)


def heading(text):
    print(f"\n{text}\n{'':<58} {'ours':>10} {'theirs':>10} {'tolerance':>9}")


def figure3(bench):
    """Eight requests; attention of each takes 2 units, its all-to-all 1.2; from the start of the first attention to the
    end of the last exchange. Bandwidths are such that the plan's own bytes take these times."""
    heading("Fig. 3: eight requests, attention 2 units each, exchange 1.2")
    model = bench.model("fig3", FIG3)
    off = bench.compile(model, "--kvp", 2, "--tpa", 1)
    on = bench.compile(model, "--kvp", 2, "--tpa", 1, "--hopb", BATCH)
    commands = bench.simulate(off, "gb200-nvl72")["commands"]
    attention = next(c for c in commands if c["kind"] == "attention")
    exchange = next(c for c in commands if c["kind"] == "all_to_all")
    hardware = bench.hardware({
        "name": "fig3", "source": "Fig. 3 of arXiv 2507.07120",
        "device": {"memory_bytes_per_s": (attention["kv_bytes"] + attention["activation_bytes"]) / BATCH / 2,
                   "capacity_bytes": 1e15, "peak_flops_per_s": {"f32": 1e30}},
        "system": {"domain": 2, "links": [{"name": "link", "bytes_per_s": exchange["sent_bytes"] / BATCH / 1.2}]},
        "model": {}})
    for name, plan, theirs in ("in lockstep", off, 25.6), ("pipelined (--hopb 8)", on, 17.2):
        commands = bench.simulate(plan, hardware)["commands"]
        start = min(c["start_s"] for c in commands if c["kind"] == "attention")
        end = max(c["end_s"] for c in commands if c["kind"] == "all_to_all")
        bench.record(f"fig3/{name}", end - start, "units", theirs, 0.01)


def layer_times(bench, model, *flags):
    """Microseconds of memory that one layer's KV cache and weights take, and the weights' with W_O over TPA alone."""
    step = bench.simulate(bench.compile(model, *flags), "gb200-nvl72", *FP4)
    layer = [c for c in step["commands"] if c["layer"] == 0]
    kv = sum(c["kv_bytes"] for c in layer if c["kind"] == "attention")
    products = [c for c in layer if c["kind"] == "linear"]
    weights = sum(c["weight_bytes"] for c in products)
    output = sum(c["weight_bytes"] for c in products if "o_proj" in c["source"])
    assert len(products) == 7 and output > 0
    over_tpa = weights + output * (step["mesh"]["kvp"] - 1)
    return [bytes_read / MEMORY * US for bytes_read in (kv, weights, over_tpa)]


def figure1(bench):
    heading("Fig. 1: memory time of one layer, batch 8, 1M tokens, FP4 (tolerance: a unit of the last digit printed)")
    model = bench.model("fig1", shapes.MODELS["helix-fig1"])
    kv_theirs = [1024, 512, 256, 128, 128, 128, 128]
    weight_theirs = [(237, 1), (118, 1), (59.2, 0.1), (29.6, 0.1), (14.9, 0.1), (7.6, 0.1), (3.9, 0.1)]
    for i, (kv_target, weight_target) in enumerate(zip(kv_theirs, weight_theirs)):
        tp = 1 << i
        kv, weights, _ = layer_times(bench, model, "--tpa", tp, "--kv-replicate")
        bench.record(f"fig1/kv/tp{tp}", kv, "us", kv_target, 1)
        bench.record(f"fig1/weights/tp{tp}", weights, "us", *weight_target)
    for kvp, kv_target, weight_target in (2, 64, 17.0), (4, 32, 10.8), (8, 16, 7.6):
        kv, weights, over_tpa = layer_times(bench, model, "--tpa", 8, "--kvp", kvp)
        bench.record(f"fig1/kv/tpa8-kvp{kvp}", kv, "us", kv_target, 1)
        bench.record(f"fig1/weights/tpa8-kvp{kvp}, W_O over TPA as printed", over_tpa, "us", weight_target, 0.1)
        bench.record(f"fig1/weights/tpa8-kvp{kvp}, W_O over N as compiled", weights, "us")


MODELS_OF_LATENCY = {"divisible": ["--latency-model", "divisible", "--op-latency-model", "divisible"],
                     "per-collective": ["--latency-model", "per-collective", "--op-latency-model", "per-command"]}


def users(bench, plans, hardware, flags):
    """Tokens/s/user by number of chunks."""
    return {chunks: bench.simulate(plan, hardware, *FP4, *flags)["tokens_per_s_per_user"] for chunks, plan in plans.items()}


def best(rates):
    """The number of chunks with the highest rate, the fewest of equals; and by how many % the rate is lower uncut."""
    chunks = max(rates, key=lambda n: (rates[n], -n))
    return chunks, 100 * (1 - rates[1] / rates[chunks])


def varied(base):
    """The description with one constant changed, by name of the change."""
    def change(name, edit):
        description = copy.deepcopy(base)
        edit(description)
        return name, description

    def latency(factor):
        def edit(description):
            for link in description["system"]["links"]:
                given = link["latency_s"]
                link["latency_s"] = ({kind: value * factor for kind, value in given.items()}
                                     if isinstance(given, dict) else given * factor)
        return edit

    def constant(key, value):
        return lambda description: description["model"].__setitem__(key, value)

    return [change("as described", lambda description: None)] + [
        change(f"collective latency x {factor}", latency(factor)) for factor in (0.3, 0.5, 2)] + [
        change(f"latency per command {us} us", constant("op_latency_s", us * 1e-6)) for us in (0, 1, 5)] + [
        change(f"memory efficiency {share}", constant("memory_efficiency", share)) for share in (0.6, 1.0)]


def ablation(bench):
    heading("HOP-B off against on: Llama-3.1-405B, 126 layers, 64 ranks (kvp 8 x tpa 8), batch 8, 1M tokens, FP4, gb200-nvl72")
    model = bench.model("405b", shapes.MODELS["llama-3.1-405b"])
    plans = {chunks: bench.compile(model, "--kvp", 8, "--tpa", 8, *(["--hopb", chunks] if chunks > 1 else []))
             for chunks in (1, 2, 4, 8)}
    base = json.loads(bench.tool("helix-simulate", "--print-hardware", "gb200-nvl72"))
    lines = []
    for name, description in varied(base):
        hardware, line = bench.hardware(description), [name]
        for latency, flags in MODELS_OF_LATENCY.items():
            rates = users(bench, plans, hardware, flags)
            chunks, lower = best(rates)
            line += [rates[1], rates[chunks], chunks, lower]
            if name == "as described":
                for n, rate in rates.items():
                    bench.record(f"405b/{latency}/{'off' if n == 1 else f'{n} chunks'}", rate, "tok/s/user")
                bench.record(f"405b/{latency}/best number of chunks", chunks, "chunks")
                theirs = (12, 4) if latency == "divisible" else (None, None)
                bench.record(f"405b/{latency}/lower without HOP-B", lower, "%", *theirs)
        lines.append(line)
    print(f"\n{'sensitivity of the ablation':<32}{'divisible':^36}{'per-collective':^36}")
    print(f"{'':<32}" + f"{'off':>9}{'on':>9}{'chunks':>8}{'lower':>9} " * 2)
    for name, *numbers in lines:
        print(f"{name:<32}" + "".join(f"{off:>9.2f}{on:>9.2f}{chunks:>8}{lower:>8.2f}% "
                                      for off, on, chunks, lower in (numbers[:4], numbers[4:])))
        for latency, (*_, lower) in zip(MODELS_OF_LATENCY, (numbers[:4], numbers[4:])):
            bench.add(f"405b/{latency}/lower without HOP-B/{name}", lower, "%", None, "equal", tolerance=None)


def main():
    parser = harness.parser(__doc__, "reproduce")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(options.bin, scratch)
        for part in figure3, figure1, ablation:
            part(bench)
    judged = [result["met"] for result in bench.results if result["met"] is not None]
    print(f"\n{sum(judged)} of {len(judged)} figures of the paper are met")
    return bench.write(options.o)


if __name__ == "__main__":
    sys.exit(main())
