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
# Libraries of the system that programs must take from where they run.
SYSTEM = ("libc.so", "libm.so", "libpthread.so", "libdl.so", "librt.so", "ld-linux", "linux-vdso")
CODES = {"2-bits": {"bits": 2, "zero": "packed"}, "4-bits": {}, "4-bits-real": {"zero": "real", "block": 32},
         "8-bits-tied": {"bits": 8, "zero": "packed", "tied": True}}
BENCH = [  # model, layers, batch, context
    ("llama-3.1-8b", None, 1, 1024), ("llama-3.1-8b", None, 1, 131072), ("llama-3.1-8b", None, 8, 4096),
    ("llama-3.1-8b", None, 64, 4096), ("llama-3.1-8b", None, 4, 131072)]


def copy_programs(build, out):
    """helix-run, the tests of the kernels alone, and the libraries that they need."""
    for folder in ("bin", "lib"):
        (out / folder).mkdir(parents=True)
    for name in ("helix-run", "HelixGpuKernelTests"):
        program = build / "bin" / name
        shutil.copy2(program, out / "bin")
        subprocess.run(["strip", out / "bin" / name], check=False)
        listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"=> (/\S+)", listing):
            if not pathlib.Path(library).name.startswith(SYSTEM):
                shutil.copy2(library, out / "lib")


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
                helix.tool("helix-translate", "--import-onnx", helix.model(fixture), "--batch", len(ids), "--max-context", 96,
                           "--prefill-chunk", 16, "--all-logits", "--block", block, "--weight-dtype", dtype, "--kv-dtype",
                           dtype, "-o", module)
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


def pack_bench(helix, build, out, archs):
    """Artifacts of models of public shapes; their weights are a hole that the other machine makes for itself."""
    listing, scratch = [], build / "gpu-bench"
    for name, layers, batch, context in BENCH:
        source = scratch / name
        if not (source / "model.onnx").exists():
            subprocess.run([sys.executable, ROOT / "bench" / "model.py", name, "-o", source,
                            *(["--layers", str(layers)] if layers else [])], check=True)
        folder = out / "bench" / name
        folder.mkdir(parents=True, exist_ok=True)
        data = next(p for p in source.iterdir() if p.name.endswith(".data"))
        target = source / f"{batch}-{context}.hlx"
        helix.tool("helix-compile", source / "model.onnx", "-o", target, "--kvp", 1, "--tpa", 1, "--batch", batch,
                   "--max-context", context + 256, "--weight-dtype", "bf16", "--kv-dtype", "bf16", "--target", "cuda",
                   "--cuda-arch", archs)
        shutil.copy2(target, folder / target.name)
        listing.append({"model": name, "batch": batch, "context": context, "file": f"bench/{name}/{target.name}",
                        "data": f"bench/{name}/{data.name}", "bytes": data.stat().st_size})
    return listing


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
    (options.out / "cases.json").write_text(json.dumps({"cases": cases, "bench": bench}, indent=1))
    total = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{options.out}: {len(cases)} artifacts of {len(helix.FIXTURES) + len(CODES)} fixtures, {len(bench)} of benchmarks, "
          f"{total / 1e6:.1f} MB")
    if total > LIMIT:
        raise SystemExit(f"more than {LIMIT / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
