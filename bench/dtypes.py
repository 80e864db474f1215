#!/usr/bin/env python3
"""What element types of weights and KV caches cost and how exact they are: `make bench-dtypes`.

Each choice is compiled for one rank and scored on a fixture of test/models. Bytes are those of the plan as
helix-simulate counts them: per element of a weight matrix, and per token and layer of the cache, over all heads; the
error is the largest difference of a logit from the plain f32 run over the largest logit. Weights of a few bits are made
here by rounding to nearest, with a zero point per block of 32: how good a quantisation is depends on how it was made, so
that their error says less about the type than about this rounding. Products with them are exact for what they mean
(test/e2e/test_quantized.py); with --activations int8 the error is the difference from those exact products.

Prints a table and writes build/bench/dtypes.json.
"""

import json
import sys
import tempfile

import harness
import numpy as np
import onnx
from onnx import helper, numpy_helper

MODELS = harness.ROOT / "test/models"
FIXTURE, TOKENS, BLOCK = "llama-tiny", 96, 32
KV = [("f32", []), ("f16", []), ("bf16", []), ("int8", []), ("fp8-e4m3", []), ("int8", ["--kv-scale", "0.0625"]),
      ("fp8-e4m3", ["--kv-scale", "1"])]


def packed(codes, bits):
    """Rows of codes as bytes, the first code in the lowest bits."""
    per = 8 // bits
    codes = np.pad(codes, ((0, 0), (0, -codes.shape[1] % per))).astype(np.uint8)
    return sum(codes[:, i::per] << np.uint8(bits * i) for i in range(per)).astype(np.uint8)


def quantise(source, out, bits):
    """Replaces each MatMul with a constant by a MatMulNBits with zero points."""
    model = onnx.load(source)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in constants:
            continue
        rows = numpy_helper.to_array(constants[node.input[1]]).T.astype(np.float64)
        n, k = rows.shape
        blocks = -(-k // BLOCK)
        cut = np.pad(rows, ((0, 0), (0, blocks * BLOCK - k))).reshape(n, blocks, BLOCK)
        low, high = np.minimum(cut.min(2), 0), np.maximum(cut.max(2), 0)
        scales = ((high - low) / (2**bits - 1) + 1e-9).astype(np.float32)
        zeros = np.rint(-low / scales).clip(0, 2**bits - 1)
        codes = np.rint(cut / scales[..., None] + zeros[..., None]).clip(0, 2**bits - 1)
        name = node.input[1]
        parts = {f"{name}_codes": packed(codes.reshape(n, -1), bits).reshape(n, blocks, -1), f"{name}_scales": scales,
                 f"{name}_zeros": packed(zeros, bits)}
        model.graph.initializer.extend(numpy_helper.from_array(value, part) for part, value in parts.items())
        model.graph.initializer.remove(constants[name])
        node.CopyFrom(helper.make_node("MatMulNBits", [node.input[0], *parts], node.output, node.name, K=k, N=n,
                                       domain="com.microsoft", bits=bits, block_size=BLOCK))
    onnx.save(model, out, save_as_external_data=True, location=out.with_suffix(".data").name, size_threshold=0)
    return out


class Bench(harness.Bench):
    def __init__(self, binaries, scratch):
        super().__init__(binaries, scratch)
        ids = np.random.default_rng(0).integers(0, json.loads((MODELS / "fixtures.json").read_text())[FIXTURE]["vocab"], TOKENS)
        self.prompts = self.scratch / "prompts.jsonl"
        self.prompts.write_text(json.dumps({"ids": [int(i) for i in ids]}) + "\n")

    def measure(self, model, *flags):
        """Logits, bytes of a rank's weights, and of its cache per token and layer."""
        plan = self.scratch / "model.hlx"
        self.tool("helix-compile", model, "-o", plan, "--max-context", TOKENS, "--prefill-chunk", 16,
                  "--all-logits", *flags)
        self.tool("helix-run", plan, "--prompts", self.prompts, "--score", "--decode-last", 32, "--outputs",
                  self.scratch / "logits.npz")
        step = json.loads(self.tool("helix-simulate", plan, "--hardware", "gb200-nvl72", "--context", TOKENS, "--json"))
        layers = json.loads((MODELS / "fixtures.json").read_text())[FIXTURE]["layers"]
        with np.load(self.scratch / "logits.npz") as arrays:
            logits = arrays["logits_0"].astype(np.float64)
        return logits, step["memory"]["weights_bytes"], step["memory"]["kv_bytes"] / TOKENS / layers

    def record(self, kind, name, bytes_name, held, error):
        print(f"{kind:<8}{name:<34}{held:>10.2f}{error:>12.1e}")
        for what, value, unit in ((bytes_name, held, "bytes"), ("error", error, "")):
            self.add(f"{what}/{name}/{kind} of {FIXTURE}", value, unit)


def main():
    parser = harness.parser(__doc__, "dtypes")
    options = parser.parse_args()
    model = MODELS / FIXTURE / "model.onnx"
    matrices = [t for t in onnx.load(model, load_external_data=False).graph.initializer if len(t.dims) == 2]
    embedding = next(t for t in matrices if "embed" in t.name)
    # In products: all matrices but the table and those of the rotary embedding.
    elements = sum(t.dims[0] * t.dims[1] for t in matrices if t is not embedding and "cache" not in t.name)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(options.bin, scratch)
        plain, whole, _ = bench.measure(model)
        error = lambda logits: np.abs(logits - plain).max() / np.abs(plain).max()  # noqa: E731
        print(f"{'':<8}{'type':<34}{'bytes':>10}{'error':>12}")
        for dtype, flags in KV:
            logits, _, held = bench.measure(model, "--kv-dtype", dtype, *flags)
            name = dtype + (f", one scale {flags[1]}" if flags else ", scale per token, head" if "8" in dtype else "")
            bench.record("cache", name, "bytes_per_token_layer", held, error(logits))
        for dtype in ("f32", "f16", "bf16"):
            logits, weights, _ = bench.measure(model, "--weight-dtype", dtype)
            # The table is of that type, too.
            held = 4 - (whole - weights) / (elements + embedding.dims[0] * embedding.dims[1])
            bench.record("weights", dtype, "bytes_per_element", held, error(logits))
        for bits in (8, 4, 2):
            codes = quantise(model, bench.scratch / f"{bits}.onnx", bits)
            logits, weights, _ = bench.measure(codes)
            held = 4 - (whole - weights) / elements
            bench.record("weights", f"{bits} bits, blocks of {BLOCK}", "bytes_per_element", held, error(logits))
            rounded, _, _ = bench.measure(codes, "--activations", "int8")
            off = np.abs(rounded - logits).max() / np.abs(logits).max()
            bench.record("x int8", f"of weights of {bits} bits", "bytes_per_element", 1 + 4 / BLOCK, off)
    return bench.write(options.o)


if __name__ == "__main__":
    sys.exit(main())
