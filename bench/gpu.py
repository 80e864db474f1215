#!/usr/bin/env python3
"""Measures the CUDA kernels alone on this machine's GPU: `make bench-gpu`.

What is compared is timed in turns, as graphs, each time with a cold second-level cache, and medians are quoted.

    linear      bytes of a weight, its scales and zero points over the time of the product, over the copy bandwidth
    grouped     bytes of the weights of the experts hit, the same
    prefill     multiplications and additions of a product of many rows over its time, x exact or rounded to the
                weight's type (helix-run --round-activations); the target is half of an H200's bf16 rate
    attention   bytes of the keys and values that a step must read, the same; of a batch of one, microseconds
    latents     the same of latents, whose values are a part of the keys; of 128 heads, operations per second

The copy bandwidth, bytes read and written by a copy on the device, is that of the same run. Prints a table, writes
build/bench/gpu.json, and exits with 1 if a target is missed, or there is no GPU.
"""

import json
import statistics

import harness

H200_BF16 = 989e12  # operations a second, dense: NVIDIA's data sheet
MICROSECONDS = {"b1-h32-kv8-d128-s4096": 14, "b1-h32-kv8-d128-s32768": 45}


def main():
    options = harness.parser(__doc__, "gpu")
    options.add_argument("--small", action="store_true", help="shapes of a few elements, to try this on an emulation")
    options = options.parse_args()
    bench = harness.Bench(options.bin, ".")
    about, *lines = map(json.loads, bench.tool("helix-bench-cuda", *(["--small"] if options.small else [])).splitlines())
    print(f"{about['gpu']}\n{'kernel':42} {'us':>10} {'GB/s':>8} {'of copy':>8}")
    copy = None
    for line in lines:
        name, seconds = line["name"], statistics.median(line["seconds"])
        if name.startswith("prefill"):
            rate = line["flops"] / seconds
            print(f"{name:42} {seconds * 1e6:10.1f} {rate / 1e12:8.1f} T operations/s")
            target = 0.5 * H200_BF16 / 1e12 if name.startswith("prefill_rounded") else None
            bench.add(name.replace("/", "_tflops/", 1), rate / 1e12, "TFLOP/s", target, "higher")
            continue
        rate = line["bytes"] / seconds
        copy = copy or rate
        print(f"{name:42} {seconds * 1e6:10.1f} {rate / 1e9:8.0f} {rate / copy:8.2f}")
        shape = name.rsplit("/", 1)[-1]
        if name == "copy":
            bench.add("bandwidth/copy", rate / 1e9, "GB/s", better="higher", gpu=about["gpu"])
        elif shape in MICROSECONDS:
            bench.add(f"attention_us/{name.split('/', 1)[1]}", seconds * 1e6, "us", MICROSECONDS[shape])
        elif name.startswith("latents"):
            if "-h128-" in shape:
                bench.add(f"mla_rate/{name.split('/', 1)[1]}", line["flops"] / seconds / 1e12, "TFLOP/s", better="higher")
            else:
                bench.add(f"mla_fraction/{name.split('/', 1)[1]}", rate / copy, "of copy", 0.85, "higher")
        elif name.startswith("grouped"):
            bench.add(f"grouped_fraction/{name.split('/', 1)[1]}", rate / copy, "of copy", better="higher")
        elif name.startswith("sampling"):
            bench.add(f"sampling_us/{name.split('/', 1)[1]}", seconds * 1e6, "us")
        elif name.startswith("attention"):
            bench.add(f"attention_fraction/{name.split('/', 1)[1]}", rate / copy, "of copy", better="higher")
        else:
            target = None if "/2bit" in name else 0.7 if "/4bit" in name and name.endswith("-b16") else 0.85
            bench.add(f"linear_fraction/{name.split('/', 1)[1]}", rate / copy, "of copy", target, "higher")
    return bench.write(options.o)


if __name__ == "__main__":
    raise SystemExit(main())
