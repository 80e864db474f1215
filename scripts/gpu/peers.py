"""What others take for the same work on the same GPU; scripts/gpu/check.py runs this, each part as a process of its own.

    peers.py rates                               products of bf16 matrices, operations per second
    peers.py attention PEER B,H,KV,D,S ...       a token of each of B sequences: sdpa, sdpa-folded, fa3
                                                 (flash_attn_interface), flashinfer
    peers.py steps B,C ... [--layers N]          decode steps of Llama-3.1-8B's shape in PyTorch, B sequences of C tokens

Prints a JSON object per line with `name` and `seconds`, a list, or `error`. What is timed is a CUDA graph that begins with
a cold second-level cache. --small: few elements, on the CPU where there is no GPU, without graphs: to try this file.
"""

import argparse
import json
import math
import time

import torch
import torch.nn.functional as functional

ROUNDS = 21
COLD = 256 << 20  # bytes, more than a second-level cache holds
LLAMA = {"hidden": 4096, "ffn": 14336, "heads": 32, "kv_heads": 8, "dim": 128, "vocab": 128256, "layers": 32}
SMALL = {"hidden": 64, "ffn": 96, "heads": 4, "kv_heads": 2, "dim": 16, "vocab": 128, "layers": 2}


class Timer:
    def __init__(self, small):
        self.gpu = torch.cuda.is_available()
        self.device = "cuda" if self.gpu else "cpu"
        self.rounds = 2 if small else ROUNDS
        self.cold = torch.empty(1 << 16 if small else COLD, dtype=torch.uint8, device=self.device)

    def graph(self, work):
        """What runs `work` again, as a graph if that is possible."""
        if not self.gpu:
            work()
            return work
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay

    def seconds(self, replay):
        times = []
        for _ in range(self.rounds):
            self.cold.zero_()
            if self.gpu:
                first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                first.record()
                replay()
                last.record()
                torch.cuda.synchronize()
                times.append(first.elapsed_time(last) * 1e-3)
            else:
                begin = time.perf_counter()
                replay()
                times.append(time.perf_counter() - begin)
        return times


def say(name, body):
    """Prints what `body` returns, or why it cannot."""
    try:
        print(json.dumps({"name": name, **body()}), flush=True)
    except Exception as error:  # noqa: BLE001: the next one may do
        print(json.dumps({"name": name, "error": f"{type(error).__name__}: {error}"[:300]}), flush=True)


def rates(timer, small):
    for m, n, k in ((64, 64, 64),) if small else ((8192, 8192, 8192), (2048, 14336, 4096)):
        def measure(m=m, n=n, k=k):
            a, b = (torch.randn(shape, dtype=torch.bfloat16, device=timer.device) for shape in ((m, k), (k, n)))
            out = torch.empty(m, n, dtype=torch.bfloat16, device=timer.device)
            return {"flops": 2 * m * n * k, "seconds": timer.seconds(timer.graph(lambda: torch.matmul(a, b, out=out)))}
        say(f"product/bf16/{m}x{n}x{k}", measure)


def attend(q, k, v, folded):
    """q [B, H, D], k and v [B, KV, S, D]. Folded, the heads of a group are rows that see the same tokens, which PyTorch has
    a faster way for."""
    if folded:
        batch, heads, dim = q.shape
        return functional.scaled_dot_product_attention(q.view(batch, k.shape[1], heads // k.shape[1], dim), k, v)
    return functional.scaled_dot_product_attention(q.unsqueeze(2), k, v, enable_gqa=True)


def sdpa(q, k, v, folded=False):
    """q [B, H, D], k and v [B, S, KV, D]; as all of these."""
    k, v = k.transpose(1, 2).contiguous(), v.transpose(1, 2).contiguous()
    return lambda: attend(q, k, v, folded)


def sdpa_folded(q, k, v):
    return sdpa(q, k, v, folded=True)


def fa3(q, k, v):
    from flash_attn_interface import flash_attn_with_kvcache
    lengths = torch.full((q.shape[0],), k.shape[1], dtype=torch.int32, device=q.device)
    q = q.unsqueeze(1)
    return lambda: flash_attn_with_kvcache(q, k, v, cache_seqlens=lengths, causal=True)


def flashinfer(q, k, v):
    import flashinfer as library
    batch, tokens, kv_heads, dim = k.shape
    page = 16
    pages = tokens // page
    cache = torch.stack([part.reshape(batch * pages, page, kv_heads, dim) for part in (k, v)], dim=1)
    wrapper = library.BatchDecodeWithPagedKVCacheWrapper(
        torch.empty(256 << 20, dtype=torch.uint8, device=q.device), "NHD", use_tensor_cores=True)
    starts = torch.arange(batch + 1, dtype=torch.int32, device=q.device) * pages
    wrapper.plan(starts, torch.arange(batch * pages, dtype=torch.int32, device=q.device),
                 torch.full((batch,), page, dtype=torch.int32, device=q.device), q.shape[1], kv_heads, dim, page,
                 q_data_type=q.dtype, kv_data_type=k.dtype)
    return lambda: wrapper.run(q, cache)


def attention(timer, small, peer, shapes):
    make = {"sdpa": sdpa, "sdpa-folded": sdpa_folded, "fa3": fa3, "flashinfer": flashinfer}[peer]
    for text in shapes:
        batch, heads, kv_heads, dim, tokens = map(int, text.split(","))

        def measure():
            size = 4 * batch * tokens * kv_heads * dim  # bytes of keys and values
            count = 2 if small else math.ceil(COLD / size)
            works = []
            for _ in range(count):
                q = torch.randn(batch, heads, dim, dtype=torch.bfloat16, device=timer.device)
                k, v = (torch.randn(batch, tokens, kv_heads, dim, dtype=torch.bfloat16, device=timer.device)
                        for _ in range(2))
                works.append(make(q, k, v))
                del q, k, v
            replay = timer.graph(lambda: [work() for work in works])
            return {"seconds": [seconds / count for seconds in timer.seconds(replay)]}

        say(f"{peer}/b{batch}-h{heads}-kv{kv_heads}-d{dim}-s{tokens}", measure)
        if timer.gpu:
            torch.cuda.empty_cache()


class Decoder:
    """A step of one token per sequence, in bf16, every sequence as long as the cache is."""

    def __init__(self, shape, device):
        self.shape = shape
        hidden, ffn, dim = shape["hidden"], shape["ffn"], shape["dim"]
        heads, kv_heads = shape["heads"], shape["kv_heads"]

        def matrix(rows, columns):
            weight = torch.empty(rows, columns, dtype=torch.bfloat16, device=device)
            return weight.normal_(0, 1 / math.sqrt(columns))

        self.table, self.head = matrix(shape["vocab"], hidden), matrix(shape["vocab"], hidden)
        self.norm = torch.ones(hidden, dtype=torch.bfloat16, device=device)
        self.layers = [{"qkv": matrix((heads + 2 * kv_heads) * dim, hidden), "out": matrix(hidden, heads * dim),
                        "up": matrix(2 * ffn, hidden), "down": matrix(hidden, ffn)} for _ in range(shape["layers"])]

    def step(self, ids, angles, position, caches, folded):
        shape = self.shape
        dim, heads, kv_heads = shape["dim"], shape["heads"], shape["kv_heads"]
        batch = ids.shape[0]
        cos, sin = angles.cos().to(torch.bfloat16), angles.sin().to(torch.bfloat16)

        def norm(x):
            return functional.rms_norm(x, (shape["hidden"],), self.norm, 1e-5)

        def rotate(x):
            first, second = x.chunk(2, dim=-1)
            return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

        x = functional.embedding(ids, self.table)
        for layer, (keys, values) in zip(self.layers, caches, strict=True):
            qkv = functional.linear(norm(x), layer["qkv"]).view(batch, heads + 2 * kv_heads, dim)
            q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=1)
            keys.index_copy_(2, position, rotate(k).unsqueeze(2))
            values.index_copy_(2, position, v.unsqueeze(2))
            attended = attend(rotate(q), keys, values, folded)
            x = x + functional.linear(attended.reshape(batch, heads * dim), layer["out"])
            gate, up = functional.linear(norm(x), layer["up"]).chunk(2, dim=-1)
            x = x + functional.linear(functional.silu(gate) * up, layer["down"])
        return functional.linear(norm(x), self.head).argmax(dim=-1)


def steps(timer, small, cases, layers):
    shape = dict(SMALL if small else LLAMA)
    if layers:
        shape["layers"] = layers
    decoder = Decoder(shape, timer.device)
    for text in cases:
        batch, context = map(int, text.split(","))

        def measure(folded):
            caches = [[torch.zeros(batch, shape["kv_heads"], context, shape["dim"], dtype=torch.bfloat16,
                                   device=timer.device).normal_() for _ in range(2)] for _ in range(shape["layers"])]
            ids = torch.arange(batch, device=timer.device)
            position = torch.tensor([context - 1], device=timer.device)
            angles = torch.rand(shape["dim"] // 2, device=timer.device)
            with torch.inference_mode():
                replay = timer.graph(lambda: decoder.step(ids, angles, position, caches, folded))
                return {"seconds": timer.seconds(replay)}

        for folded in (False, True):
            say(f"step/b{batch}-c{context}/{'folded' if folded else 'plain'}", lambda folded=folded: measure(folded))
            if timer.gpu:
                torch.cuda.empty_cache()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rates", "attention", "steps"])
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    timer = Timer(options.small)
    if options.what == "rates":
        rates(timer, options.small)
    elif options.what == "attention":
        attention(timer, options.small, options.rest[0], options.rest[1:])
    else:
        steps(timer, options.small, options.rest, options.layers)


if __name__ == "__main__":
    main()
