"""Packs programs, artifacts and expected logits for scripts/gpu/check.py; see scripts/gpu-pack.sh."""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 60 * 10**6
MESHES = [(1, 1), (2, 1), (3, 1), (2, 2), (8, 1), (4, 2)]  # kvp x tpa, up to 8 ranks
PROCESSES = [(2, 1), (2, 2)]  # that also run as processes over NCCL
# Libraries that programs take from where they run. That of C++ is one: a packed one would need as new a libc as this.
SYSTEM = ("libc.so", "libm.so", "libpthread.so", "libdl.so", "librt.so", "ld-linux", "linux-vdso", "libstdc++.so",
          "libgcc_s.so")
CODES = {"2-bits": {"bits": 2, "zero": "packed"}, "4-bits": {}, "4-bits-real": {"zero": "real", "block": 32},
         "8-bits-tied": {"bits": 8, "zero": "packed", "tied": True}}
BENCH_MODEL = "llama-3.1-8b"
BENCH = [(1, 1024), (1, 131072), (8, 4096), (64, 4096), (4, 131072)]  # batch, context
PREFILL = 2048  # tokens
# For HOP-B: attention is most of a step. Batch and chunks.
HOPB_SHAPE = {"layers": 4, "hidden": 1024, "ffn": 1024, "heads": 32, "kv_heads": 8, "head_dim": 128, "vocab": 1024}
HOPB_CONTEXT, HOPB_PLANS = 32768, [(8, 4), (8, 8), (4, 4)]


def copy_programs(build, out):
    """helix-run, helix-simulate, the kernels' tests and benchmark, and the libraries that they need."""
    for folder in ("bin", "lib"):
        (out / folder).mkdir(parents=True)
    for name in ("helix-run", "helix-simulate", "helix-bench-cuda", "HelixGpuKernelTests"):
        program = build / "bin" / name
        shutil.copy2(program, out / "bin")
        subprocess.run(["strip", out / "bin" / name], check=False)
        listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"=> (/\S+)", listing):
            if not pathlib.Path(library).name.startswith(SYSTEM):
                shutil.copy2(library, out / "lib")


def needed_versions(out):
    """The newest versions of the system's libraries that what is packed asks for, by name."""
    needs = {}
    for file in (*(out / "bin").iterdir(), *(out / "lib").iterdir()):
        listing = subprocess.run(["objdump", "-p", file], capture_output=True, text=True, check=True).stdout
        for name, version in re.findall(r"\b(GLIBC|GLIBCXX|CXXABI|GCC)_([\d.]+)$", listing, re.MULTILINE):
            needs[name] = max(needs.get(name, "0"), version, key=lambda text: [int(part) for part in text.split(".")])
    return needs


def pack_fixtures(helix, out, archs):
    """Artifacts of every fixture on every mesh in f32 and bf16, and the logits that ONNX Runtime expects; for bf16 those
    of the float64 interpreter on rounded weights, as ONNX Runtime has no bf16 products."""
    cases = []
    for fixture in helix.FIXTURES:
        folder = out / "models" / fixture
        shutil.copytree(helix.MODELS / fixture, folder)
        ids = helix.sequences(fixture, helix.RAGGED)
        helix.write_prompts(folder / "prompts.jsonl", ids)
        for i, row in enumerate(ids):
            helix.write_prompts(folder / f"prompt-{i}.jsonl", [row])
        onnx = [helix.onnx_logits(fixture, row) for row in ids]
        np.savez_compressed(folder / "expected-f32.npz", **{f"logits_{i}": row for i, row in enumerate(onnx)})
        # Tensor cores take pages of whole groups of tokens.
        for dtype, block in (("f32", 4), ("bf16", 16)):
            flags = helix.options(1, 1, len(ids), dtype, block=block)[4:]
            if dtype != "f32":
                module = folder / "model.mlir"
                helix.tool("helix-translate", "--import-onnx", helix.model(fixture), "--batch", len(ids), "--max-context",
                           96, "--prefill-chunk", 16, "--all-logits", "--block", block, "--weight-dtype", dtype,
                           "--kv-dtype", dtype, "-o", module)
                helix.interpret(module, fixture, folder / "prompts.jsonl", folder / "wide.npz")
                with np.load(folder / "wide.npz") as arrays:
                    np.savez_compressed(folder / f"expected-{dtype}.npz",
                                        **{name: arrays[name].astype(np.float32) for name in arrays.files})
                (folder / "wide.npz").unlink()
                module.unlink()
            for kvp, tpa in MESHES:
                if tpa > helix.LISTING[fixture]["kv_heads"]:
                    continue
                name = f"{dtype}-{kvp}x{tpa}.hlx"
                helix.tool("helix-compile", folder / "model.onnx", "-o", folder / name, "--kvp", kvp, "--tpa", tpa, *flags,
                           "--target", "cuda", "--cuda-arch", archs)
                cases.append({"fixture": fixture, "dtype": dtype, "kvp": kvp, "tpa": tpa, "file": f"models/{fixture}/{name}",
                              "limit": 2e-5 if dtype == "f32" else 1e-2,
                              "processes": fixture == "llama-tiny" and (kvp, tpa) in PROCESSES})
        (folder / "model.onnx").unlink()  # artifacts read the weights beside it alone
    return cases


def pack_codes(helix, out, archs):
    """Models with weights of 2, 4 and 8 bits; what is expected are the logits of the CPU."""
    sys.path.insert(0, str(ROOT / "test" / "import"))
    import quantised

    cases = []
    for name, form in CODES.items():
        folder = out / "models" / name
        folder.mkdir(parents=True)
        model, cpu = folder / "model.onnx", folder / "cpu.hlx"
        model.write_bytes(quantised.Quantised(**form).model().SerializeToString())
        ids = [np.random.default_rng(1).integers(0, quantised.forms.VOCABULARY, total) for total in (49, 57, 64)]
        prompts = helix.write_prompts(folder / "prompts.jsonl", ids)
        helix.tool("helix-compile", model, "-o", cpu, *helix.options(1, 1, len(ids), context=64))
        helix.score(cpu, prompts, folder / "expected-f32.npz", decode_last=48)
        for kvp, tpa in ((1, 1), (3, 1), (4, 2)):
            file = folder / f"f32-{kvp}x{tpa}.hlx"
            helix.tool("helix-compile", model, "-o", file, *helix.options(kvp, tpa, len(ids), context=64), "--target",
                       "cuda", "--cuda-arch", archs)
            cases.append({"fixture": name, "dtype": "f32", "kvp": kvp, "tpa": tpa, "file": f"models/{name}/{file.name}",
                          "limit": 2e-5, "processes": False})
        for left in (model, *folder.glob("cpu.*")):  # artifacts read the weights beside them alone
            left.unlink()
    return cases


def pack_mutants(helix, out):
    """Logits of the reference and of its mutants for the longest prompt of a fixture on a mesh of its artifacts."""
    import test_mutants

    fixture, kvp, tpa = test_mutants.CASES[0]
    folder = out / "models" / fixture
    model, sharded, wide = (folder / name for name in ("model.mlir", "sharded.mlir", "wide.npz"))
    ids = helix.sequences(fixture, helix.RAGGED)
    longest = max(range(len(ids)), key=lambda i: len(ids[i]))
    prompts = folder / f"prompt-{longest}.jsonl"
    helix.tool("helix-translate", "--import-onnx", helix.model(fixture), "--batch", 1, "--max-context", 96,
               "--prefill-chunk", 16, "--all-logits", "--block", 4, "-o", model)
    helix.tool("helix-opt", model, f"--helix-model-phase=kvp={kvp} tpa={tpa}", "--helix-partition", "-o", sharded)
    logits = {}
    for mutant in ("none", *test_mutants.MUTANTS):
        if (fixture, mutant) in test_mutants.NOT_APPLICABLE:
            continue
        flags = () if mutant == "none" else ("--mutant", mutant)
        logits[mutant] = helix.interpret(sharded, fixture, prompts, wide, *flags)[0].astype(np.float32)
    np.savez_compressed(folder / "mutants.npz", **logits)
    for left in (model, sharded, wide):
        left.unlink()
    # 100 times what the exactness tests allow, as in test/e2e/test_mutants.py.
    return {"file": f"models/{fixture}/mutants.npz", "artifact": f"models/{fixture}/f32-{kvp}x{tpa}.hlx",
            "prompts": f"models/{fixture}/{prompts.name}", "limit": 1e-3}


def compile_hollow(helix, source, target, archs, kvp, batch, context, *flags):
    """An artifact whose weights are a hole that the other machine fills."""
    helix.tool("helix-compile", source / "model.onnx", "-o", target, "--kvp", kvp, "--tpa", 1, "--batch", batch,
               "--max-context", context + 256, "--weight-dtype", "bf16", "--kv-dtype", "bf16", "--target", "cuda",
               "--cuda-arch", archs, *flags)


def pack_bench(helix, build, out, archs):
    """Steps and a prefill of a public shape."""
    sys.path.insert(0, str(ROOT / "bench"))
    import model

    shape, source = model.MODELS[BENCH_MODEL], build / "gpu-bench" / BENCH_MODEL
    model.write(shape, source, positions=max(context for _, context in BENCH) + 512, dtype="bf16")
    folder = out / "bench" / BENCH_MODEL
    folder.mkdir(parents=True)
    common = {"model": BENCH_MODEL, "data": f"bench/{BENCH_MODEL}/{model.DATA}",
              "bytes": (source / model.DATA).stat().st_size, "vocab": shape["vocab"]}
    listing = []
    for batch, context, prefill in [*((*case, 0) for case in BENCH), (1, PREFILL, PREFILL)]:
        name = f"prefill-{prefill}.hlx" if prefill else f"{batch}-{context}.hlx"
        # Compiled beside the weights, which it refers to.
        compile_hollow(helix, source, source / name, archs, 1, batch, context,
                       *(["--prefill-chunk", prefill] if prefill else []))
        shutil.copy2(source / name, folder / name)
        listing.append({**common, "batch": batch, "context": context, "prefill": prefill,
                        "file": f"bench/{BENCH_MODEL}/{name}", "flops": prefill_flops(shape, prefill)})
    return listing


def prefill_flops(shape, tokens):
    """Of a prompt in all layers: products, and scores and weighted values of the tokens that each sees; the head's are for
    one row and left out."""
    hidden, ffn, dim = shape["hidden"], shape["ffn"], shape["head_dim"]
    products = hidden * (shape["heads"] + 2 * shape["kv_heads"]) * dim + shape["heads"] * dim * hidden + 3 * hidden * ffn
    return shape["layers"] * (2 * products * tokens + 4 * shape["heads"] * dim * tokens * (tokens + 1) // 2)


def pack_hopb(helix, build, out, archs):
    """Two ranks, with HOP-B off and on."""
    sys.path.insert(0, str(ROOT / "bench"))
    import model

    source, folder = build / "gpu-bench" / "hopb", out / "bench" / "hopb"
    model.write(HOPB_SHAPE, source, positions=HOPB_CONTEXT + 512, dtype="bf16")
    folder.mkdir(parents=True)
    files = []
    for batch, chunks in sorted({*HOPB_PLANS, *((batch, 1) for batch, _ in HOPB_PLANS)}):
        name = f"{batch}-{chunks}.hlx"
        compile_hollow(helix, source, source / name, archs, 2, batch, HOPB_CONTEXT,
                       *(["--hopb", chunks] if chunks > 1 else []))
        shutil.copy2(source / name, folder / name)
        files.append({"batch": batch, "chunks": chunks, "file": f"bench/hopb/{name}"})
    return {"files": files, "plans": HOPB_PLANS, "context": HOPB_CONTEXT, "data": f"bench/hopb/{model.DATA}",
            "bytes": (source / model.DATA).stat().st_size}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--archs", default="sm_90a", help="cubins for these, PTX for newer ones")
    parser.add_argument("--no-bench", action="store_true", help="leave the large shapes out")
    options = parser.parse_args()
    os.environ["HELIX_BUILD"] = str(options.build.resolve())
    sys.path.insert(0, str(ROOT / "test" / "e2e"))
    import helix

    shutil.rmtree(options.out, ignore_errors=True)
    copy_programs(options.build, options.out)
    cases = pack_fixtures(helix, options.out, options.archs) + pack_codes(helix, options.out, options.archs)
    bench = [] if options.no_bench else pack_bench(helix, options.build, options.out, options.archs)
    hopb = None if options.no_bench else pack_hopb(helix, options.build, options.out, options.archs)
    listing = {"needs": needed_versions(options.out), "holds": {}, "cases": cases,
               "mutants": pack_mutants(helix, options.out), "bench": bench, "hopb": hopb}
    for folder in sorted(path for path in options.out.rglob("*") if path.is_dir()):
        files = [path for path in folder.iterdir() if path.is_file()]
        if files:
            listing["holds"][str(folder.relative_to(options.out))] = {"files": len(files),
                                                                      "bytes": sum(path.stat().st_size for path in files)}
    (options.out / "cases.json").write_text(json.dumps(listing, indent=1))
    total = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    for folder, size in listing["holds"].items():
        print(f"{size['bytes'] / 1e6:6.1f} MB in {size['files']:3} files  {folder}")
    print("needs " + ", ".join(f"{name} {version}" for name, version in sorted(listing["needs"].items())))
    print(f"{options.out}: {len(cases)} artifacts of {len({case['fixture'] for case in cases})} fixtures, {len(bench)} of "
          f"benchmarks, {total / 1e6:.1f} MB")
    if total > LIMIT:
        raise SystemExit(f"more than {LIMIT / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
