#!/usr/bin/env python3
"""Measures HOP-B on this machine beside what the simulator predicts: `make bench-hopb`.

Two ranks, each a thread with a core of its own, exchange over an artificial link. Everything is timed in rounds: in
each, every plan runs on every link, with HOP-B off and on right after each other, so that a machine that is now faster
and now slower is so for all alike. It should do little else. The simulator is calibrated on traces of some links and
predicts others. Judged is the gain, the time of a step with HOP-B off minus that with it on, in the median round:

    gain_error      |predicted - measured| / measured on links left out of the calibration, where the gain is above 5 %
                    of the step; median and worst
    ttl_error       the same of the step itself, on and off; median
    gain_of_ideal   measured / (min(c, m) (n - 1) layers) on a link without latency, with c and m a chunk's attention
                    and exchange as they take in the plan without HOP-B; median
    simulate_seconds  helix-simulate on a plan of 126 layers, the whole process

Prints a table, writes build/bench/hopb.json, and exits with 1 if a target is missed.
"""

import collections
import json
import statistics
import sys
import tempfile
import time

import harness
import model as shapes

RANKS = ["--kvp", 2, "--tpa", 1]
SHAPE = {"layers": 2, "hidden": 128, "ffn": 256, "heads": 16, "kv_heads": 4, "head_dim": 64, "vocab": 512}
SHAPE_NAME = "2 layers of 16 heads of 64, 32K tokens"
CONTEXT = 32768

# Latency in seconds and bytes/s. An exchange of one sequence has 2080 bytes here.
FITTED = [(0.0, 5e5), (2e-4, 1.5e6), (5e-4, 3e6)]
UNSEEN = [(0.0, 8e5), (0.0, 2e6), (1e-4, 1e6), (3e-4, 2e6)]
# Batch and chunks.
PLANS = [(1, 4), (2, 2), (4, 4), (4, 2), (8, 4), (8, 8), (16, 4), (16, 8)]
ROUNDS, STEPS = 6, 4  # and steps of a run


class Bench(harness.Bench):
    def compile(self, model, batch, chunks):
        out = self.scratch / f"{batch}-{chunks}.hlx"
        if not out.exists():
            self.tool("helix-compile", model, "-o", out, *RANKS, "--batch", batch, "--max-context", CONTEXT + 64,
                      *(["--hopb", chunks] if chunks != 1 else []))
        return out

    def run(self, plan, link, trace=None):
        """Seconds of each timed step."""
        report = self.scratch / "report.json"
        self.tool("helix-run", plan, "--benchmark-context", CONTEXT, "--benchmark-steps", STEPS, "--threads", 2,
                  "--link-latency", link[0], "--link-bandwidth", link[1], "--report", report,
                  *(["--trace", trace, "--trace-steps", STEPS] if trace else []))
        return json.loads(report.read_text())["decode"]["step_seconds"]

    def predict(self, plan, link, hardware):
        step = json.loads(self.tool("helix-simulate", plan, "--hardware", hardware, "--context", CONTEXT + 1, "--json",
                                    "--link-latency", link[0], "--link-bandwidth", link[1]))
        return step["ttl_s"]


def commands(trace, kind):
    """Seconds of a command of a kind, the median of all ranks and steps."""
    file = json.loads(trace.read_text())
    times = [event["dur"] * 1e-6 for event in file["traceEvents"]
             if event["ph"] == "X" and event["args"].get("kind") == kind]
    return statistics.median(times)


def link_name(link):
    return f"{link[0] * 1e6:g} us + {link[1] / 1e6:g} MB/s"


def measure(bench, model):
    traces = []
    seconds = collections.defaultdict(list)  # (plan, HOP-B on, link) -> of a step, by round
    hidden = collections.defaultdict(list)  # (plan, link) -> what is to be hidden in a step, by round
    for turn in range(ROUNDS):
        print(f"round {turn + 1} of {ROUNDS}", flush=True)
        fitted = FITTED[turn % len(FITTED)]
        for link in [fitted, *UNSEEN]:
            for batch, chunks in PLANS:
                for on in (False, True) if turn % 2 == 0 else (True, False):
                    trace = bench.scratch / f"trace-{len(traces)}.json" if link == fitted else bench.scratch / "one.json"
                    steps = bench.run(bench.compile(model, batch, chunks if on else 1), link, trace)
                    seconds[(batch, chunks), on, link].append(statistics.median(steps))
                    if link == fitted:
                        traces.append(trace)
                    elif not on and link[0] == 0 and batch > 1:
                        count = min(batch, chunks)
                        least = min(commands(trace, "PartialAttention"), commands(trace, "AllToAll"))
                        hidden[(batch, chunks), link].append(least / count * (count - 1) * SHAPE["layers"])
    hardware = bench.scratch / "machine.json"
    print(bench.tool("helix-simulate", "--calibrate", *traces, "-o", hardware))

    gain_errors, ttl_errors, of_ideal = [], [], []
    print(f"{'link':<20}{'batch':>6}{'chunks':>7}{'off ms':>9}{'on ms':>9}{'gain':>8}{'predicted':>11}{'error':>8}{'of ideal':>10}")
    for link in UNSEEN:
        for batch, chunks in PLANS:
            plan, count = (batch, chunks), min(batch, chunks)
            off, on = (seconds[plan, which, link] for which in (False, True))
            predicted = [bench.predict(bench.compile(model, batch, n), link, hardware) for n in (1, chunks)]
            measured = [statistics.median(off), statistics.median(on)]
            ttl_errors += [abs(p - m) / m for p, m in zip(predicted, measured)]
            gain, foreseen = statistics.median(a - b for a, b in zip(off, on)), predicted[0] - predicted[1]
            error = abs(foreseen - gain) / gain if gain > 0.05 * measured[0] else None
            gain_errors += [error] if error is not None else []
            ideal = None
            if (plan, link) in hidden:
                ideal = gain / statistics.median(hidden[plan, link])
                of_ideal.append(ideal)
                bench.add(f"gain_of_ideal/f32/batch {batch}, {count} chunks, {link_name(link)}", ideal, "")
            percent = lambda x: "" if x is None else f"{100 * x:.1f}%"  # noqa: E731
            print(f"{link_name(link):<20}{batch:>6}{count:>7}{measured[0] * 1e3:>9.2f}{measured[1] * 1e3:>9.2f}"
                  f"{percent(gain / measured[0]):>8}{percent(foreseen / measured[0]):>11}{percent(error):>8}{percent(ideal):>10}",
                  flush=True)
    bench.add(f"gain_error/f32/median, {SHAPE_NAME}", statistics.median(gain_errors), "", 0.20)
    bench.add(f"gain_error/f32/worst, {SHAPE_NAME}", max(gain_errors), "", 0.35)
    bench.add(f"ttl_error/f32/median, {SHAPE_NAME}", statistics.median(ttl_errors), "", 0.10)
    bench.add(f"gain_of_ideal/f32/median, {SHAPE_NAME}", statistics.median(of_ideal), "", 0.80, "higher")


def speed(bench):
    plan = bench.scratch / "405b.hlx"
    model = shapes.write(shapes.MODELS["llama-3.1-405b"], bench.scratch / "405b", dtype="bf16")
    bench.tool("helix-compile", model, "-o", plan, "--kvp", 8, "--tpa", 8, "--batch", 8, "--max-context", 1_000_000,
               "--hopb", 8)
    times = []
    for _ in range(20):
        start = time.monotonic()
        bench.tool("helix-simulate", plan, "--hardware", "gb200-nvl72", "--json")
        times.append(time.monotonic() - start)
    bench.add("simulate_seconds/bf16/llama-3.1-405b, 126 layers, 64 ranks, 8 chunks", statistics.median(times), "s", 1.0)


def main():
    parser = harness.parser(__doc__, "hopb")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(options.bin, scratch)
        measure(bench, shapes.write(SHAPE, bench.scratch / "model"))
        speed(bench)
    print()
    for result in bench.results:
        if result["target"] is not None:
            print(f"{result['name']:<76}{result['value']:>8.3f} {result['unit']:<2} "
                  f"{'<=' if result['better'] == 'lower' else '>='} {result['target']:g}  {'met' if result['met'] else 'MISSED'}")
    return bench.write(options.o)


if __name__ == "__main__":
    sys.exit(main())
