"""scripts/gpu, on the emulated driver: what is packed here is checked as it will be on a machine with a GPU, on few elements.

Kernels of artifacts are stood in for as in test_cuda.py. PyTorch is not asked.
"""

import hashlib
import json
import os
import subprocess
import sys

import helix
import pytest

sys.path.insert(0, str(helix.ROOT / "scripts" / "gpu"))
sys.path.insert(0, str(helix.ROOT / "bench"))
import model  # noqa: E402
import pack  # noqa: E402

KERNELS = helix.BUILD / "runtime/Cuda/Kernels"
pytestmark = pytest.mark.skipif(not list(KERNELS.glob("*.fatbin")), reason="built without the CUDA toolkit")
SMALL = {"layers": 1, "hidden": 64, "ffn": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "vocab": 64}
# Finds the artifact for the CPU that belongs to the one that is run.
RUN = """#!/bin/sh
for argument; do
  case "$argument" in *.hlx) sum=$(sha256sum "$argument" | cut -c1-64);; esac
done
export HELIX_EMULATED_KERNELS={kernels}/$sum.hlx
exec {program} "$@"
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A pack of a fixture and small models, on programs of this build and the emulated driver."""
    scratch = tmp_path_factory.mktemp("gpu-check")
    out, kernels = scratch / "pack", scratch / "kernels"
    kernels.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        tool = helix.tool

        def tool_for_both(name, *args, **options):
            done = tool(name, *args, **options)
            if name == "helix-compile" and "--target" in args:
                at, target = args.index("--target"), args[args.index("-o") + 1]
                of = hashlib.sha256(target.read_bytes()).hexdigest()
                beside = target.with_suffix(".cpu.hlx")
                tool(name, *(beside if arg == target else arg for arg in args[:at] + args[at + 4:]))
                beside.rename(kernels / f"{of}.hlx")
            return done

        patch.setattr(helix, "tool", tool_for_both)
        patch.setattr(helix, "FIXTURES", ["llama-tiny"])
        patch.setattr(helix, "RAGGED", [(1, 49), (1, 50)])
        patch.setitem(model.MODELS, "small", SMALL)
        for name, value in {"MESHES": [(1, 1), (2, 2)], "PROCESSES": [], "BENCH_MODEL": "small", "BENCH": [(1, 64)], "PREFILL": 16,
                            "HOPB_SHAPE": SMALL, "HOPB_CONTEXT": 32, "HOPB_PLANS": [(2, 2)]}.items():
            patch.setattr(pack, name, value)
        cases = pack.pack_fixtures(helix, out, "sm_80")
        listing = {"cases": [case for case in cases if case["dtype"] == "f32"], "mutants": pack.pack_mutants(helix, out),
                   "bench": pack.pack_bench(helix, scratch, out, "sm_80"),
                   "hopb": pack.pack_hopb(helix, scratch, out, "sm_80")}
    (out / "cases.json").write_text(json.dumps(listing))
    (out / "bin").mkdir()
    for name in ("helix-simulate", "helix-bench-cuda"):
        (out / "bin" / name).symlink_to(helix.BUILD / "bin" / name)
    (out / "bin" / "helix-run").write_text(RUN.format(kernels=kernels, program=helix.BUILD / "bin" / "helix-run"))
    (out / "bin" / "helix-run").chmod(0o755)
    return out


def check(packed, tmp_path, only):
    """The parts that `only` matches, by name, and the results, by name."""
    done = subprocess.run([sys.executable, str(helix.ROOT / "scripts/gpu/check.py"), "--pack", str(packed), "--out",
                           str(tmp_path), "--small", "--only", only], capture_output=True, text=True, timeout=900,
                          env=dict(os.environ, HELIX_LIBCUDA=str(helix.BUILD / "lib/libemulated-cuda.so"),
                                   HELIX_LIBNCCL=str(helix.BUILD / "lib/libemulated-nccl.so")))
    assert "Traceback" not in done.stderr, done.stderr
    report = json.loads((tmp_path / "gpu-check.json").read_text())
    return {part["part"]: part for part in report["parts"]}, {result["name"]: result for result in report["results"]}


def test_correctness(packed, tmp_path):
    parts, results = check(packed, tmp_path, "fixtures in f32|mutants")
    assert {name: part["state"] for name, part in parts.items()} == {"fixtures in f32": "passed", "mutants": "passed"}, parts
    assert results["logit_error/f32/fixtures"]["met"]
    assert parts["mutants"]["text"].count(",") >= 9


def test_speed_of_kernels_and_exchanges(packed, tmp_path):
    parts, results = check(packed, tmp_path, "speed of kernels|one exchange")
    assert {part["state"] for part in parts.values()} == {"passed"}, parts
    kinds = {name.partition("/")[0] for name in results}
    assert kinds >= {"bandwidth", "attention_bandwidth", "mla_fraction", "linear_fraction", "exchange_two_over_packed"}
    assert {name.split("/")[2] for name in results if name.startswith("exchange")} == {"local", "nccl"}


def test_steps_and_hopb(packed, tmp_path):
    parts, results = check(packed, tmp_path, "decode steps$|prefill|HOP-B")
    assert {part["state"] for part in parts.values()} == {"passed"}, parts
    assert results["step_ms/bf16/small/batch 1 at 64"]["value"] > 0
    assert results["prefill_ms/bf16/small/16 tokens"]["value"] > 0
    assert results["hopb_ttl_error/median"]["target"] == 0.10
    assert sum(name.startswith("hopb_gain/measured") for name in results) == 2
