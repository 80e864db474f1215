#!/usr/bin/env python3
"""Measures Helix on this machine's CPU beside its memory and beside ONNX Runtime: `make bench-cpu`.

What is compared is timed in turns, at least 20 times, and medians are quoted: the bandwidth of a shared machine moves.

    attention_fraction, matmul_fraction   bytes that a kernel must read over its time, over the read-only bandwidth
                            weights int8 and int4 are codes in blocks of 32; with -a8 activations are rounded to int8
    step_fraction           the same of a whole decode step: weights, but for the embedding's rows, and the cached tokens
    step_vs_onnxruntime     ONNX Runtime's time of a step over ours; bf16 weights and cache against its f32
    prefill_vs_onnxruntime  the same of a prompt of 2048 tokens
    ranks_overhead          step time of N ranks over that of one with as many threads, over the ratio of their bytes
    load_fraction           bytes of weights loaded per second, over copying the file's bytes to fresh memory
    load_peak               the most memory that loading took, over weights and cache
    p99_over_p50            of the time of 1000 steps
    rss_growth              bytes per step by which a small model's process grows over 5000 steps

ONNX Runtime runs the same ONNX file (GroupQueryAttention, I/O binding, past and present in one buffer) with as many
threads. Models have the shapes of Llama-3.2-1B and random weights, f32 in the file and rounded as they are loaded. Prints a table, writes build/bench/cpu.json, and
exits with 1 if a target is missed. With LLAMA_BENCH=path it also runs that program and prints what it says.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

import harness
import model as shapes

CONTEXT, LONG, PROMPT, PAIRS = 8192, 65536, 2048, 20
LLAMA = shapes.MODELS["llama-3.2-1b"]
SMALL = {"layers": 2, "hidden": 512, "ffn": 2048, "heads": 8, "kv_heads": 2, "head_dim": 64, "vocab": 4096}
ELEMENT = {"f32": 4, "f16": 2, "bf16": 2}


def kernel_target(metric, dtype, shape):
    if metric == "matmul":
        return {("bf16", "b1"): 0.9, ("f32", "b1"): 0.9, ("bf16", "b8"): 0.7, ("int8", "b1"): 0.85,
                ("int4", "b1"): 0.5, ("int4-a8", "b1"): 0.8}.get((dtype, shape.rsplit("-", 1)[1]))
    if "one-kv-head" in shape:
        return None
    # Codes are half the bytes of bf16 and take more instructions to widen: the arithmetic is what sets their pace.
    if dtype in ("int8", "fp8"):
        return None
    return 0.7 if shape.startswith("g8") else {"bf16": 0.8, "f32": 0.9}.get(dtype)


class Server:
    """A process that times steps of one artifact on demand."""

    def __init__(self, bench, plan, context, threads):
        self.process = subprocess.Popen([bench.binaries / "helix-bench-cpu", "--steps", plan, "--context", str(context),
                                         "--threads", str(threads)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = json.loads(self.process.stdout.readline())

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


class Runtime:
    """ONNX Runtime on the same file."""

    def __init__(self, path, shape, batch, context, threads):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Its threads would look for work for some 20 ms after its run, on the cores that whatever is timed next needs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.ort, self.shape, self.batch = onnxruntime, shape, batch
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        cache = (batch, shape["kv_heads"], context + 1, shape["head_dim"])
        self.cache = {f"{layer}.{part}": self.value(np.full(cache, 0.01, np.float32))
                      for layer in range(shape["layers"]) for part in ("key", "value")}

    def value(self, array):
        return self.ort.OrtValue.ortvalue_from_numpy(array)

    def bind(self, tokens, length):
        """A call that appends `tokens` tokens to sequences of `length`."""
        binding = self.session.io_binding()
        ids = np.arange(self.batch * tokens).reshape(self.batch, tokens) % self.shape["vocab"]
        binding.bind_ortvalue_input("input_ids", self.value(ids))
        binding.bind_ortvalue_input("attention_mask", self.value(np.ones((self.batch, length + tokens), np.int64)))
        for name, value in self.cache.items():
            binding.bind_ortvalue_input(f"past_key_values.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)
        logits = np.zeros((self.batch, tokens, self.shape["vocab"]), np.float32)
        binding.bind_ortvalue_output("logits", self.value(logits))

        def run():
            start = time.perf_counter()
            self.session.run_with_iobinding(binding)
            return time.perf_counter() - start

        return run


class Bench(harness.Bench):
    def __init__(self, binaries, scratch, threads):
        super().__init__(binaries, scratch)
        self.threads = threads

    def record(self, name, value, unit, target=None, better="higher"):
        met = self.add(name, value, unit, target, better)["met"]
        verdict = "" if target is None else f"{'<=' if better == 'lower' else '>='} {target:g}  {'met' if met else 'MISSED'}"
        print(f"{name:<52}{value:>9.3f} {unit:<5}{verdict}", flush=True)

    def model(self, name, shape):
        path = self.scratch / name / "model.onnx"
        if not path.exists():
            shapes.write(shape, path.parent, positions=LONG + 64, fill=True)
        return path

    def compile(self, model, dtype, batch, context, *options):
        plan = model.parent / f"{dtype}-b{batch}-{context}{''.join(map(str, options))}.hlx"
        subprocess.run([self.binaries / "helix-compile", model, "-o", plan, "--batch", str(batch), "--max-context",
                        str(context + 64), "--weight-dtype", dtype, "--kv-dtype", dtype, *map(str, options)], check=True)
        return plan


def kernels(bench, pairs):
    print(f"\nKernels: read-only bandwidth beside each, in {pairs} pairs")
    process = subprocess.Popen([bench.binaries / "helix-bench-cpu", "--threads", str(bench.threads), "--pairs", str(pairs)],
                               stdout=subprocess.PIPE, text=True)
    reads = []
    for line in process.stdout:
        case = json.loads(line)
        metric, dtype, shape = case["case"].split("/")
        bench.record(f"{metric}_fraction/{dtype}/{shape}", case["fraction"], "", kernel_target(metric, dtype, shape))
        reads.append(case["read_bytes_per_second"])
    bench.record(f"read_bandwidth/{bench.threads} threads/1 GiB", statistics.median(reads) / 1e9, "GB/s")


def step_bytes(shape, dtype, about, context):
    """Bytes that a step must read: the ranks' weights but for the embedding, and what the slots hold."""
    embedding = shape["vocab"] * shape["hidden"] * ELEMENT[dtype]
    cached = 2 * shape["layers"] * shape["kv_heads"] * shape["head_dim"] * ELEMENT[dtype] * context * about["slots"]
    return about["weight_bytes"] - embedding + cached


def turns(calls, pairs):
    """Medians of what each call returns, in turns, the first two of which do not count."""
    taken = [[] for _ in calls]
    for turn in range(pairs + 2):
        order = range(len(calls)) if turn % 2 == 0 else reversed(range(len(calls)))
        for i in order:
            taken[i].append(calls[i]())
    return [statistics.median(values[2:]) for values in taken]


def steps(bench, dtype, batch, context, pairs, runtime):
    shape_name = f"llama-3.2-1b-b{batch}-{context // 1024}k"
    model = bench.model("llama-3.2-1b", LLAMA)
    prefill = batch == 1 and context == CONTEXT
    plan = bench.compile(model, dtype, batch, context, *(["--prefill-chunk", 512] if prefill else []))
    with Server(bench, plan, context, bench.threads) as server:
        about = server.about
        needed = about["weight_bytes"] + about["kv_bytes"]
        if prefill:
            bench.record(f"load_fraction/{dtype}/llama-3.2-1b",
                         about["load_bytes_per_second"] / about["copy_bytes_per_second"], "", 0.5)
            bench.record(f"load_peak/{dtype}/llama-3.2-1b", about["load_peak_bytes"] / needed, "", 1.1, "lower")
        calls = [lambda: server.ask("read"), lambda: server.ask("step")]
        if runtime:
            other = Runtime(model, LLAMA, batch, context, bench.threads)
            calls.append(other.bind(1, context))
        values = turns(calls, pairs)
        fraction = step_bytes(LLAMA, dtype, about, context) / values[1] / values[0]
        bench.record(f"step_fraction/{dtype}/{shape_name}", fraction, "",
                     0.8 if dtype == "bf16" and batch == 1 else None)
        bench.record(f"step_time/{dtype}/{shape_name}", values[1] * 1e3, "ms", better="lower")
        if runtime:
            bench.record(f"step_vs_onnxruntime/{dtype}/{shape_name}", values[2] / values[1], "",
                         2.0 if dtype == "bf16" else 1.2)
        if prefill and dtype == "f32":
            # Products of many rows compute in f32 whatever the weights are kept in.
            values = turns([lambda: server.ask(f"prefill {PROMPT}"), other.bind(PROMPT, 0)], pairs)
            bench.record(f"prefill_time/{dtype}/llama-3.2-1b-2k", values[0], "s", better="lower")
            bench.record(f"prefill_vs_onnxruntime/{dtype}/llama-3.2-1b-2k", values[1] / values[0], "", 1.0)
        if prefill and dtype == "bf16":
            times = sorted(server.ask("step") for _ in range(1000 if pairs >= PAIRS else 50))
            bench.record(f"p99_over_p50/{dtype}/{shape_name}", times[len(times) * 99 // 100] / times[len(times) // 2], "",
                         1.5, "lower")


def ranks(bench, pairs):
    model = bench.model("llama-3.2-1b", LLAMA)
    for count, threads, target in ((2, bench.threads, 1.10), (8, max(8, bench.threads), 1.3)):
        with (Server(bench, bench.compile(model, "bf16", 1, CONTEXT), CONTEXT, bench.threads) as one,
              Server(bench, bench.compile(model, "bf16", 1, CONTEXT, "--kvp", count), CONTEXT, threads) as many):
            alone, sharded = turns([lambda: one.ask("step"), lambda: many.ask("step")], pairs)
            ratio = (step_bytes(LLAMA, "bf16", many.about, CONTEXT) / step_bytes(LLAMA, "bf16", one.about, CONTEXT))
            bench.record(f"ranks_overhead/bf16/llama-3.2-1b-b1-8k-n{count}", sharded / alone / ratio, "", target, "lower")


def small(bench, count):
    plan = bench.compile(bench.model("small", SMALL), "f32", 1, 256)
    with Server(bench, plan, 256, bench.threads) as server:
        for _ in range(100):
            server.ask("step")
        before = server.ask("rss")
        for _ in range(count):
            server.ask("step")
        bench.record("rss_growth/f32/small", (server.ask("rss") - before) / count, "B", 0, "lower")


def main():
    parser = harness.parser(__doc__, "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of everything (default: all cores)")
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"turns of each comparison (default {PAIRS})")
    parser.add_argument("--parts", default="kernels,steps,ranks,small", help="what to measure (default: %(default)s)")
    parser.add_argument("--rows", default="", help="of the steps only those whose dtype-batch-context starts so")
    options = parser.parse_args()
    scratch = harness.ROOT / "build/bench/models"
    scratch.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.bin, scratch, options.threads)
    parts = options.parts.split(",")
    if "kernels" in parts:
        kernels(bench, options.pairs)
    if "steps" in parts:
        print("\nWhole steps")
        for dtype, batch, context, runtime in (("bf16", 1, CONTEXT, True), ("f32", 1, CONTEXT, True),
                                               ("bf16", 8, CONTEXT, False), ("bf16", 1, LONG, False)):
            if f"{dtype}-{batch}-{context}".startswith(options.rows):
                steps(bench, dtype, batch, context, options.pairs, runtime)
    if "ranks" in parts:
        ranks(bench, options.pairs)
    if "small" in parts:
        small(bench, 5000 if options.pairs >= PAIRS else 200)
    status = bench.write(options.o)
    if llama := os.environ.get("LLAMA_BENCH"):
        subprocess.run([llama, "-t", str(options.threads)], check=False)
    return status


if __name__ == "__main__":
    sys.exit(main())
