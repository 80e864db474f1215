"""Runs what scripts/gpu/pack.py packed on a GPU; see scripts/gpu-check.sh. Needs Python, NumPy, and PyTorch for peers.

Every part is guarded: one that fails or does not end is a line of the report, and the others go on. Parts come in the
order of their worth; those for which no time is left are skipped, and --only runs them by themselves.
"""

import argparse
import concurrent.futures
import datetime
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import tempfile
import time
import traceback

import numpy as np

import speed

BUDGET_S = 450.0


class Check:
    def __init__(self, pack, out, only="", small=False):
        self.pack, self.out, self.only, self.small = pack.resolve(), out.resolve(), only, small
        self.slower = 10 if small else 1  # an emulation is
        self.gpu, self.weights = "unknown GPU", {}
        try:
            self.torch = importlib.metadata.version("torch")
        except importlib.metadata.PackageNotFoundError:
            self.torch = None
        self.listing = json.loads((pack / "cases.json").read_text())
        self.results, self.parts = [], []
        self.begin = time.monotonic()
        self.numbers = itertools.count()
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="helix-gpu-"))
        self.environment = dict(os.environ, LD_LIBRARY_PATH=f"{self.pack / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}")

    def left(self):
        return BUDGET_S * self.slower - (time.monotonic() - self.begin)

    def result(self, name, value, unit, target=None, better="lower"):
        met = None if target is None else bool(value <= target if better == "lower" else value >= target)
        self.results.append({"name": name, "value": value, "unit": unit, "target": target, "better": better, "met": met})

    def part(self, name, body, seconds):
        """Runs a part, if it is asked for and there is time for it."""
        if not re.search(self.only, name):
            return
        begin = time.monotonic()
        if self.left() < min(seconds, 20):
            self.parts.append({"part": name, "state": "skipped", "text": "no time left", "seconds": 0})
            return
        self.deadline = min(begin + seconds * self.slower, self.begin + BUDGET_S * self.slower)
        try:
            text = body() or ""
            state = "skipped" if text.startswith("skipped") else "passed"
        except subprocess.TimeoutExpired as error:
            state, text = "failed", f"{pathlib.Path(error.cmd[0]).name} did not end in {error.timeout:.0f} s"
        except Exception as error:  # noqa: BLE001: the other parts go on
            said = f"{error}" if isinstance(error, RuntimeError) else traceback.format_exc()
            state, text = "failed", said[-2000:]
        self.parts.append({"part": name, "state": state, "text": text[:2000],
                           "seconds": round(time.monotonic() - begin, 1)})
        print(f"{name}: {state} {text[:500]}", flush=True)
        self.write()  # what there is survives whatever comes next

    def command(self, program, *arguments):
        return [str(self.pack / "bin" / program), *map(str, arguments)]

    def run(self, *command, seconds=None, environment=None):
        limit = max(1.0, min((seconds or 60) * self.slower, self.deadline - time.monotonic()))
        return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=limit,
                              env={**self.environment, **(environment or {})})

    def helix_run(self, *arguments, **options):
        done = self.run(*self.command("helix-run", *arguments), **options)
        if done.returncode != 0:
            raise RuntimeError(f"helix-run {' '.join(map(str, arguments))}: {done.returncode}: {done.stderr[-600:]}")
        return done

    def scoring(self):
        return ["--score", "--decode-last", 4 if self.small else 48]

    def score(self, artifact, prompts, *flags, **options):
        out = self.scratch / f"{next(self.numbers)}.npz"
        self.helix_run(artifact, "--prompts", prompts, *self.scoring(), "--outputs", out, *flags, **options)
        with np.load(out) as arrays:
            logits = [arrays[f"logits_{i}"] for i in range(len(arrays.files))]
        out.unlink()
        return logits

    #===-- parts ------------------------------------------------------------===

    def machine(self):
        done = self.run("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
        self.gpu = done.stdout.strip() or self.gpu
        return f"{self.gpu}; torch {self.torch}"

    def kernels(self):
        """The kernels alone against float64: the unit tests, and sizes that only a GPU can do."""
        report = self.scratch / "kernels.json"
        done = self.run(*self.command("HelixGpuKernelTests", f"--gtest_output=json:{report}"), seconds=120)
        if done.returncode == 77:
            return done.stderr.strip()
        if not report.exists():
            raise RuntimeError(f"ended with {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
        tests = [test for suite in json.loads(report.read_text())["testsuites"] for test in suite["testsuite"]]
        failed = [test for test in tests if test.get("failures")]
        skipped = [f"{test['classname']}.{test['name']}" for test in tests if test["result"] == "SKIPPED"]
        if failed or done.returncode != 0:
            said = [f"{test['classname']}.{test['name']}: {test['failures'][0]['failure'][:300]}" for test in failed]
            raise RuntimeError(f"{len(failed)} of {len(tests)} tests: " + "; ".join(said))
        return f"{len(tests) - len(skipped)} tests" + "".join(f"; {name} skipped" for name in skipped)

    def fixtures(self, dtype):
        """Every fixture on every mesh against the expected logits, several at a time: most of a run is its start."""

        def error_of(case):
            folder = (self.pack / case["file"]).parent
            with np.load(folder / f"expected-{dtype}.npz") as arrays:
                expected = [arrays[f"logits_{i}"] for i in range(len(arrays.files))]
            ours = self.score(self.pack / case["file"], folder / "prompts.jsonl")
            peak = max(np.abs(row).max() for row in expected)
            return max(np.abs(a.astype(np.float64) - b).max() for a, b in zip(ours, expected, strict=True)) / peak

        worst, failures, cases = 0.0, [], [case for case in self.listing["cases"] if case["dtype"] == dtype]
        with concurrent.futures.ThreadPoolExecutor(max_workers=min(6, os.cpu_count() or 1)) as pool:
            pending = [(case, pool.submit(error_of, case)) for case in cases]
            for case, future in pending:
                name = f"{case['fixture']}-{case['kvp']}x{case['tpa']}"
                try:
                    error = float(future.result())
                    worst = max(worst, error)
                    if not error <= case["limit"]:
                        failures.append(f"{name}: {error:.1e}")
                except Exception as error:  # noqa: BLE001
                    failures.append(f"{name}: {str(error)[-300:]}")
        count = len(cases)
        self.result(f"logit_error/{dtype}/fixtures", worst, "of the largest logit",
                    max(c["limit"] for c in self.listing["cases"] if c["dtype"] == dtype))
        if failures:
            raise RuntimeError(f"{len(failures)} of {count} artifacts: " + "; ".join(failures[:12]))
        return f"{count} artifacts, largest error {worst:.1e} of the largest logit"

    def mutants(self):
        """What the GPU computes is told from every mutant of the reference."""
        mutants = self.listing["mutants"]
        if not mutants:
            return "skipped: the pack has no mutants"
        told = []
        with np.load(self.pack / mutants["file"]) as arrays:
            ours = self.score(self.pack / mutants["artifact"], self.pack / mutants["prompts"])[0].astype(np.float64)
            for name in arrays.files:
                error = np.abs(ours - arrays[name]).max() / np.abs(arrays[name]).max()
                if (name == "none") != bool(error <= mutants["limit"]):
                    raise RuntimeError(f"{name}: {error:.1e} of the largest logit, the limit is {mutants['limit']:.0e}")
                told.append(name)
        return f"{len(told) - 1} mutants differ: {', '.join(name for name in told if name != 'none')}"

    def replay(self):
        """One graph, other lengths: sequences alone in the batch have the bits that they have beside others, and a slot
        that is used again those of a fresh one."""
        count = 0
        for case in self.listing["cases"]:
            if case["fixture"] not in ("llama-tiny", "llama-odd") or (case["kvp"], case["tpa"]) not in ((1, 1), (2, 2)):
                continue
            folder = (self.pack / case["file"]).parent
            together = self.score(self.pack / case["file"], folder / "prompts.jsonl")
            for i in range(len(together)):
                alone = self.score(self.pack / case["file"], folder / f"prompt-{i}.jsonl")[0]
                if not np.array_equal(alone, together[i]):
                    raise RuntimeError(f"{case['file']}: sequence {i} alone differs by {np.abs(alone - together[i]).max()}")
                count += 1
        return f"{count} sequences have the same bits alone"

    def processes(self):
        """Ranks in processes over NCCL have the bits of those that share the GPU; when one is killed the others end."""
        cases = [case for case in self.listing["cases"] if case["processes"]]
        lines = []
        for case in cases:
            folder = (self.pack / case["file"]).parent
            local = self.score(self.pack / case["file"], folder / "prompts.jsonl")
            n = case["kvp"] * case["tpa"]
            outs = [self.scratch / f"rank{i}.npz" for i in range(n)]
            running = self.start(case, n, ["--prompts", folder / "prompts.jsonl", *self.scoring()],
                                 [["--outputs", out] for out in outs])
            self.join(running)
            for out in outs:
                with np.load(out) as arrays:
                    for i, row in enumerate(local):
                        if not np.array_equal(arrays[f"logits_{i}"], row):
                            raise RuntimeError(f"{case['file']} over NCCL differs from local ranks")
            lines.append(f"{n} processes ({case['dtype']}): the bits of local ranks")
        if not cases:
            return "skipped: the pack has no case for processes"
        return "; ".join(lines)

    def start(self, case, n, arguments, each=None, timeout=20):
        meeting = self.scratch / f"meet{next(self.numbers)}"
        return self.spawn(n, lambda i: self.command(
            "helix-run", self.pack / case["file"], *arguments, *(each[i] if each else []), "--process", f"{i}/{n}",
            "--rendezvous", f"file:{meeting}", "--comm-timeout", timeout))

    def spawn(self, n, command_of):
        """Processes that NCCL takes for machines of their own."""
        environment = [{"NCCL_HOSTID": f"helix{i}", "NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1"} for i in range(n)]
        return [subprocess.Popen(command_of(i), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 env={**self.environment, **environment[i]}) for i in range(n)]

    def join(self, running):
        """What each printed, when all have ended."""
        errors, outputs = [], []
        for process in running:
            try:
                output, text = process.communicate(timeout=max(1, self.deadline - time.monotonic()))
                outputs.append(output)
                if process.returncode != 0:
                    errors.append(f"{process.returncode}: {text[-300:]}")
            except subprocess.TimeoutExpired:
                errors.append("does not end")
                process.kill()
        if errors:
            raise RuntimeError("; ".join(errors))
        return outputs

    def killed(self):
        case = next((c for c in self.listing["cases"] if c["processes"] and c["kvp"] == 2), None)
        if not case:
            return "skipped: the pack has no case for processes"
        running = self.start(case, case["kvp"] * case["tpa"], ["--benchmark-context", 40, "--benchmark-steps", 1000000],
                             timeout=10)
        try:
            time.sleep(2 if self.small else 12)
            early = [p.returncode for p in running if p.poll() is not None]
            if early:
                raise RuntimeError(f"ended before one was killed: {running[0].communicate(timeout=5)[1][-400:]}")
            running[-1].send_signal(signal.SIGKILL)
            begin, said = time.monotonic(), []
            for process in running[:-1]:
                _, text = process.communicate(timeout=30)
                said += re.findall(r"HLX\d+", text)[-1:]
                if process.returncode == 0 or not said:
                    raise RuntimeError(f"a peer of a killed process ended with {process.returncode}: {text[-300:]}")
            self.result("seconds_to_end/killed_peer", time.monotonic() - begin, "s", 25)
            return f"the others ended within {time.monotonic() - begin:.1f} s: {' '.join(said)}"
        finally:
            for process in running:
                process.kill()

    def sanitizer(self):
        program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
        if not os.path.exists(program):
            return "skipped: no compute-sanitizer here"
        case = next(c for c in self.listing["cases"] if c["fixture"] == "llama-tiny" and (c["kvp"], c["tpa"]) == (2, 2))
        lines = []
        programs = {"a model": ("helix-run", self.pack / case["file"], "--prompt-ids", "1,2,3,4,5", "--tokens", 3),
                    "the kernels": ("HelixGpuKernelTests", "--gtest_filter=CudaFar.*:CudaLink.*:CudaRows.Merge*")}
        for what, command in programs.items():
            for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
                done = self.run(program, "--tool", tool, "--error-exitcode", 9, *self.command(*command), seconds=60)
                if done.returncode != 0:
                    raise RuntimeError(f"{tool} of {what}: {(done.stdout + done.stderr)[-1500:]}")
                lines.append(f"{tool} of {what} clean")
        return ", ".join(lines)

    #===-- report -----------------------------------------------------------===

    def write(self):
        self.out.mkdir(parents=True, exist_ok=True)
        report = {"machine": f"{self.gpu}; {platform.platform()}; torch {self.torch}",
                  "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "parts": self.parts,
                  "results": self.results}
        (self.out / "gpu-check.json").write_text(json.dumps(report, indent=1) + "\n")
        lines = [report["machine"], report["date"], ""]
        lines += [f"{p['state']:8} {p['seconds']:7.1f} s  {p['part']}: {p['text']}" for p in self.parts]
        lines += ["", f"{'measure':70} {'value':>12} {'unit':10} {'target':>8}  met"]
        for r in self.results:
            target = "" if r["target"] is None else f"{r['target']:g}"
            met = {None: "", True: "yes", False: "NO"}[r["met"]]
            lines.append(f"{r['name']:70} {r['value']:12.4g} {r['unit']:10} {target:>8}  {met}")
        (self.out / "gpu-check.txt").write_text("\n".join(lines) + "\n")

    def main(self):
        self.part("machine", self.machine, 30)
        self.part("kernels", self.kernels, 100)
        self.part("fixtures in f32", lambda: self.fixtures("f32"), 80)
        self.part("fixtures in bf16", lambda: self.fixtures("bf16"), 80)
        self.part("speed of kernels", lambda: speed.kernels(self), 100)
        self.part("decode steps", lambda: speed.steps(self), 110)
        self.part("HOP-B", lambda: speed.hopb(self), 90)
        self.part("processes over NCCL", self.processes, 50)
        self.part("attention of others", lambda: speed.attention_peers(self), 90)
        self.part("decode steps of PyTorch", lambda: speed.steps_of_peers(self), 90)
        self.part("prefill", lambda: speed.prefill(self), 50)
        self.part("one exchange or two", lambda: speed.exchanges(self), 50)
        self.part("a killed process", self.killed, 50)
        self.part("mutants", self.mutants, 20)
        self.part("graphs with other lengths", self.replay, 40)
        self.part("compute-sanitizer", self.sanitizer, 90)
        self.write()
        print((self.out / "gpu-check.txt").read_text())
        for made in (self.scratch, *self.weights.values()):
            shutil.rmtree(made, ignore_errors=True)
        return any(p["state"] == "failed" for p in self.parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", help="a regular expression: the parts that have it in their names")
    parser.add_argument("--small", action="store_true", help="measure shapes of a few elements, to try this on an emulation")
    options = parser.parse_args()
    raise SystemExit(Check(options.pack, options.out, options.only, options.small).main())
