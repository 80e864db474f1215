"""scripts/gpu, on the emulated driver: what is packed here is checked as it will be where there is a GPU, on few elements.

Kernels of artifacts are stood in for as in test_cuda.py. PyTorch is not asked.
"""

import hashlib
import json
import os
import subprocess
import sys
import time

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
        for name, value in {"MESHES": [(1, 1), (2, 1), (2, 2)], "PROCESSES": [(2, 1)], "BENCH_MODEL": "small",
                            "BENCH": [(1, 64)], "PREFILL": 64, "HOPB_SHAPE": SMALL, "HOPB_CONTEXT": 32,
                            "HOPB_PLANS": [(2, 2)]}.items():
            patch.setattr(pack, name, value)
        cases = pack.pack_fixtures(helix, out, "sm_80")
        listing = {"cases": [case for case in cases if case["dtype"] == "f32"], "mutants": pack.pack_mutants(helix, out),
                   "bench": pack.pack_bench(helix, scratch, out, "sm_80"),
                   "hopb": pack.pack_hopb(helix, scratch, out, "sm_80")}
    (out / "cases.json").write_text(json.dumps(listing))
    (out / "bin").mkdir()
    for name in ("helix-simulate", "helix-bench-cuda", "HelixGpuKernelTests"):
        (out / "bin" / name).symlink_to(helix.BUILD / "bin" / name)
    (out / "bin" / "helix-run").write_text(RUN.format(kernels=kernels, program=helix.BUILD / "bin" / "helix-run"))
    (out / "bin" / "helix-run").chmod(0o755)
    return out


def report_of(pack, out, *flags, **environment):
    """The finished check, and what it wrote."""
    done = subprocess.run([sys.executable, str(helix.ROOT / "scripts/gpu/check.py"), "--pack", str(pack), "--out", str(out),
                           *flags], capture_output=True, text=True, timeout=280, env={**os.environ, **environment})
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout.endswith((out / "gpu-check.txt").read_text() + "\n")
    return done, json.loads((out / "gpu-check.json").read_text())


def check(packed, tmp_path, only):
    """The parts that `only` matches, by name, and the results, by name, of an emulation that is slow."""
    done, report = report_of(packed, tmp_path, "--small", "--scale", "10", "--only", only,
                             HELIX_LIBCUDA=str(helix.BUILD / "lib/libemulated-cuda.so"),
                             HELIX_LIBNCCL=str(helix.BUILD / "lib/libemulated-nccl.so"),
                             HELIX_LIBCUBLASLT=str(helix.BUILD / "lib/libemulated-cublaslt.so"))
    parts = {part["part"]: part for part in report["parts"]}
    assert done.returncode == 0, parts
    assert parts.pop("machine")["state"] == "passed", report
    return parts, {result["name"]: result for result in report["results"]}


def test_correctness(packed, tmp_path):
    parts, results = check(packed, tmp_path, "fixtures in f32|NCCL|killed|mutants|lengths")
    assert len(parts) == 5 and {part["state"] for part in parts.values()} == {"passed"}, parts
    assert "2 processes" in parts["processes over NCCL"]["text"] and "HLX" in parts["a killed process"]["text"]
    assert parts["graphs with other lengths"]["text"].startswith("4 sequences")
    assert results["logit_error/f32/fixtures"]["met"]
    assert parts["mutants"]["text"].count(",") >= 9


def test_speed_of_kernels_and_exchanges(packed, tmp_path):
    parts, results = check(packed, tmp_path, "speed of kernels|one exchange")
    assert {part["state"] for part in parts.values()} == {"passed"}, parts
    kinds = {name.partition("/")[0] for name in results}
    assert kinds >= {"bandwidth", "attention_bandwidth", "mla_fraction", "linear_fraction", "grouped_fraction",
                     "prefill_exact_rate", "prefill_rounded_rate", "exchange_two_over_packed"}
    assert {name.split("/")[2] for name in results if name.startswith("exchange")} == {"local", "nccl"}


def test_steps_and_hopb(packed, tmp_path):
    parts, results = check(packed, tmp_path, "decode steps$|prefill|HOP-B")
    assert {part["state"] for part in parts.values()} == {"passed"}, parts
    assert results["step_ms/bf16/small/batch 1 at 64"]["value"] > 0
    for how in ("exact", "rounded"):
        assert results[f"prefill_ms/{how}/bf16/small/64 tokens"]["value"] > 0
    assert results["hopb_ttl_error/median"]["target"] == 0.10
    assert sum(name.startswith("hopb_gain/measured") for name in results) == 2


def test_without_a_gpu(packed, tmp_path):
    done, report = report_of(packed, tmp_path, HELIX_LIBCUDA="/nowhere/libcuda.so")
    assert done.returncode == 77
    (name, machine), *others = ((part["part"], part) for part in report["parts"])
    assert name == "machine" and machine["state"] == "failed" and "there is no GPU: HLX4100" in machine["text"], machine
    assert len(others) == 15 and all(part["state"] == "skipped" and part["text"] == "no GPU" for _, part in others)
    assert not report["results"]


# Says that there is a GPU; then its tests hang, and so does a child that outlives it.
HANG = """#!/bin/sh
case "$1" in --gtest_list_tests) echo on a mock; exit 0;; esac
sh -c 'trap "" TERM; sleep 1000' & echo $! >> {pids}
echo $$ >> {pids}
sleep 1000
"""


def alive(pids):
    """Those of the processes that run; zombies do not."""
    states = {}
    for pid in map(int, pids.read_text().split()):
        try:
            with open(f"/proc/{pid}/stat") as file:
                states[pid] = file.read().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            pass
    return [pid for pid, state in states.items() if state not in "ZX"]


def test_what_fails_or_hangs_stops_nothing(tmp_path):
    folder, pids = tmp_path / "pack", tmp_path / "pids"
    (folder / "bin").mkdir(parents=True)
    for name in ("helix-run", "helix-simulate", "helix-bench-cuda"):
        (folder / "bin" / name).symlink_to("/bin/false")
    (folder / "bin" / "HelixGpuKernelTests").write_text(HANG.format(pids=pids))
    (folder / "bin" / "HelixGpuKernelTests").chmod(0o755)
    case = {"fixture": "none", "dtype": "f32", "kvp": 2, "tpa": 1, "file": "none.hlx", "limit": 1, "processes": True}
    (folder / "cases.json").write_text(json.dumps({"cases": [case], "mutants": None, "bench": [], "hopb": None}))
    done, report = report_of(folder, tmp_path / "out", "--scale", "0.03")
    parts = {part["part"]: part for part in report["parts"]}
    assert done.returncode == 1 and len(parts) == 16
    assert parts["machine"]["state"] == "passed"
    assert "HelixGpuKernelTests did not end in 3 s" in parts["kernels"]["text"]
    for name in ("kernels", "fixtures in f32", "speed of kernels", "processes over NCCL", "one exchange or two",
                 "a killed process"):
        assert parts[name]["state"] == "failed", parts[name]
    assert len(pids.read_text().split()) == 2 and not alive(pids)
    assert [result["met"] for result in report["results"]] == [False]


def test_a_check_that_is_stopped_leaves_nothing(tmp_path):
    folder, pids = tmp_path / "pack", tmp_path / "pids"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "HelixGpuKernelTests").write_text(HANG.format(pids=pids))
    (folder / "bin" / "HelixGpuKernelTests").chmod(0o755)
    (folder / "cases.json").write_text(json.dumps({"cases": []}))
    check = subprocess.Popen([sys.executable, str(helix.ROOT / "scripts/gpu/check.py"), "--pack", str(folder), "--out",
                              str(tmp_path), "--only", "kernels"], stdout=subprocess.DEVNULL)
    for _ in range(100):
        time.sleep(0.1)
        if pids.exists() and len(pids.read_text().split()) == 2:
            break
    assert len(alive(pids)) == 2
    check.terminate()
    assert check.wait(timeout=30) == 128 + 15
    assert not alive(pids)
