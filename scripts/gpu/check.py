"""Runs what scripts/gpu/pack.py packed on a GPU; see scripts/gpu-check.sh. Needs Python 3.10, NumPy, PyTorch for peers.

Every part is guarded: one that fails or does not end is a line of the report, and the others go on. What it started is
killed with its children. Parts come in the order of their worth; those for which no time is left are skipped, and --only
runs them by themselves. Ends with 0, with 1 if a part failed, with 77 if no GPU can be used, so that nothing was checked.
"""

import argparse
import concurrent.futures
import ctypes.util
import datetime
import importlib.metadata
import itertools
import json
import math
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

try:
    import numpy as np
except ModuleNotFoundError:
    raise SystemExit(f"{sys.executable} has no NumPy; install it, or give PYTHON=... to gpu-check.sh") from None

import speed

BUDGET_S = 450.0
NO_GPU = 77  # as the kernels' tests end


def libraries(environment):
    """Variables that name NCCL and cuBLASLt where the loader does not find them, but the toolkit or PyTorch has them."""
    found = {}
    for variable, name, file in (("HELIX_LIBNCCL", "nccl", "libnccl.so.2"),
                                 ("HELIX_LIBCUBLASLT", "cublasLt", "libcublasLt.so.1[23]")):
        if variable in environment or ctypes.util.find_library(name):
            continue
        places = list(pathlib.Path("/usr/local/cuda/lib64").glob(file))
        for folder in sys.path:
            places += pathlib.Path(folder).glob(f"nvidia/*/lib/{file}")
        if places:
            found[variable] = str(max(places, key=lambda place: place.name))
    return found


class Check:
    def __init__(self, pack, out, only="", small=False, scale=1.0):
        self.pack, self.out, self.only, self.small, self.scale = pack.resolve(), out.resolve(), only, small, scale
        self.gpu, self.weights, self.running = "unknown GPU", {}, set()
        try:
            self.torch = importlib.metadata.version("torch")
        except importlib.metadata.PackageNotFoundError:
            self.torch = None
        self.listing = json.loads((self.pack / "cases.json").read_text())
        self.results, self.parts = [], []
        self.begin = time.monotonic()
        self.numbers = itertools.count()
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="helix-gpu-"))
        self.environment = {**os.environ, **libraries(os.environ)}
        self.out.mkdir(parents=True, exist_ok=True)

    def left(self):
        """Seconds of the whole check."""
        return BUDGET_S * self.scale - (time.monotonic() - self.begin)

    def limit(self, seconds):
        """Seconds for something of this part."""
        limit = min(seconds * self.scale, self.deadline - time.monotonic())
        if limit <= 0:
            raise RuntimeError("no time left in this part")
        return limit

    def result(self, name, value, unit, target=None, better="lower"):
        value = float(value) if math.isfinite(value) else None
        met = None if target is None else value is not None and (value <= target if better == "lower" else value >= target)
        self.results.append({"name": name, "value": value, "unit": unit, "target": target, "better": better, "met": met})

    def part(self, name, body, seconds):
        """Runs a part, if it is asked for and there is time for it."""
        if not re.search(self.only, name):
            return
        begin = time.monotonic()
        if self.left() < min(seconds, 20) * self.scale:
            self.parts.append({"part": name, "state": "skipped", "text": "no time left", "seconds": 0})
            return
        self.deadline = min(begin + seconds * self.scale, self.begin + BUDGET_S * self.scale)
        try:
            text = body() or ""
            state = "skipped" if text.startswith("skipped: ") else "passed"
            text = text.removeprefix("skipped: ")
        except subprocess.TimeoutExpired as error:
            said = b"".join(said.encode() if isinstance(said, str) else said or b"" for said in (error.output, error.stderr))
            state, text = "failed", (f"{pathlib.Path(error.cmd[0]).name} did not end in {error.timeout:.0f} s; it said: "
                                     f"{said.decode(errors='replace').strip()[-600:]}")
        except Exception as error:  # noqa: BLE001: the other parts go on
            said = f"{error}" if isinstance(error, (RuntimeError, OSError)) else traceback.format_exc()
            state, text = "failed", said[-2000:]
        self.parts.append({"part": name, "state": state, "text": text[:2000],
                           "seconds": round(time.monotonic() - begin, 1)})
        print(f"{name}: {state} {text[:500]}", flush=True)
        self.write()  # what there is survives whatever comes next

    def command(self, program, *arguments):
        return [str(self.pack / "bin" / program), *map(str, arguments)]

    def popen(self, command, environment=None):
        """A process with a group of its own, so that its children can be killed with it."""
        command = [str(c) for c in command]
        environment = {**self.environment, **(environment or {})}
        # PyTorch keeps the libraries that it came with.
        if any(argument.startswith(f"{self.pack / 'bin'}/") for argument in command):
            environment["LD_LIBRARY_PATH"] = f"{self.pack / 'lib'}:{environment.get('LD_LIBRARY_PATH', '')}"
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                                   start_new_session=True, env=environment)
        self.running.add(process)
        return process

    def end(self, process):
        """Kills what is left of it, children that outlive it too."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            pass  # the kernel does not let go of it; nobody waits for it
        self.running.discard(process)

    def run(self, *command, seconds=60, environment=None):
        limit = self.limit(seconds)
        process = self.popen(command, environment)
        try:
            output, errors = process.communicate(timeout=limit)
            return subprocess.CompletedProcess(process.args, process.returncode, output, errors)
        except subprocess.TimeoutExpired as error:
            self.end(process)
            try:
                error.output, error.stderr = process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                error.output = error.stderr = ""  # the kernel does not let go of it
            raise
        finally:
            self.end(process)

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
        """Whether there is a GPU that the packed programs can use, and what is on the machine."""
        done = self.run(*self.command("HelixGpuKernelTests", "--gtest_list_tests"), seconds=60)
        if done.returncode == NO_GPU:
            self.gpu = None
        if done.returncode != 0:
            said = done.stderr.strip().removeprefix("skipped, ")
            raise RuntimeError(said[-1000:] or f"HelixGpuKernelTests ended with {done.returncode}")
        self.gpu = done.stdout.splitlines()[0].removeprefix("on ")
        if shutil.which("nvidia-smi"):
            said = self.run("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader").stdout
            self.gpu = said.strip() or self.gpu
        named = [f"{name}={self.environment[name]}" for name in sorted(self.environment) if name.startswith("HELIX_LIB")]
        return "; ".join([self.gpu, f"torch {self.torch}", *named])

    def kernels(self):
        """The kernels alone against float64: the unit tests, and sizes that only a GPU can do."""
        report = self.scratch / "kernels.json"
        done = self.run(*self.command("HelixGpuKernelTests", f"--gtest_output=json:{report}"), seconds=120)
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

        errors, failures, cases = [], [], [case for case in self.listing["cases"] if case["dtype"] == dtype]
        if not cases:
            return "skipped: the pack has no case of it"
        with concurrent.futures.ThreadPoolExecutor(max_workers=min(6, os.cpu_count() or 1)) as pool:
            pending = [(case, pool.submit(error_of, case)) for case in cases]
            for case, future in pending:
                name = f"{case['fixture']}-{case['kvp']}x{case['tpa']}"
                try:
                    errors.append(float(future.result()))
                    if not errors[-1] <= case["limit"]:
                        failures.append(f"{name}: {errors[-1]:.1e}")
                except Exception as error:  # noqa: BLE001
                    failures.append(f"{name}: {str(error)[-300:]}")
        count = len(cases)
        worst = max(errors) if len(errors) == count else math.nan
        self.result(f"logit_error/{dtype}/fixtures", worst, "of the largest logit", max(case["limit"] for case in cases))
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
        return f"{count} sequences have the same bits alone" if count else "skipped: the pack has no case for it"

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
        return [self.popen(command_of(i), environment[i]) for i in range(n)]

    def join(self, running):
        """What each printed, when all have ended."""
        errors, outputs = [], []
        try:
            for process in running:
                output, text = process.communicate(timeout=self.limit(90))
                outputs.append(output)
                if process.returncode != 0:
                    errors.append(f"{process.returncode}: {text[-300:]}")
        finally:
            for process in running:
                self.end(process)
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
            begin = time.monotonic()
            while time.monotonic() - begin < (2 if self.small else 10) and all(p.poll() is None for p in running):
                time.sleep(0.1)
            if ended := [p for p in running if p.poll() is not None]:
                raise RuntimeError(f"ended before one was killed: {ended[0].communicate(timeout=5)[1][-400:]}")
            running[-1].send_signal(signal.SIGKILL)
            begin, said = time.monotonic(), []
            for process in running[:-1]:
                _, text = process.communicate(timeout=30)
                numbers = re.findall(r"HLX\d+", text)
                said += numbers[-1:]
                if process.returncode == 0 or not numbers:
                    raise RuntimeError(f"a peer of a killed process ended with {process.returncode}: {text[-300:]}")
            self.result("seconds_to_end/killed_peer", time.monotonic() - begin, "s", 25)
            return f"the others ended within {time.monotonic() - begin:.1f} s: {' '.join(said)}"
        finally:
            for process in running:
                self.end(process)

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
        report = {"machine": f"{self.gpu or 'no GPU'}; {platform.platform()}; torch {self.torch}",
                  "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "parts": self.parts,
                  "results": self.results}
        (self.out / "gpu-check.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
        lines = [report["machine"], report["date"], ""]
        lines += [f"{p['state']:8} {p['seconds']:7.1f} s  {p['part']}: {' '.join(p['text'].split())}" for p in self.parts]
        lines += ["", f"{'measure':70} {'value':>12} {'unit':20} {'target':>8}  met"]
        for r in self.results:
            value = "no number" if r["value"] is None else f"{r['value']:.4g}"
            target = "" if r["target"] is None else f"{r['target']:g}"
            met = {None: "", True: "yes", False: "NO"}[r["met"]]
            lines.append(f"{r['name']:70} {value:>12} {r['unit']:20} {target:>8}  {met}")
        states = [part["state"] for part in self.parts]
        aims = [r["met"] for r in self.results if r["met"] is not None]
        lines += ["", ", ".join(f"{states.count(state)} {state}" for state in ("passed", "failed", "skipped"))
                  + f"; {aims.count(True)} of {len(aims)} targets met"]
        (self.out / "gpu-check.txt").write_text("\n".join(lines) + "\n")

    def all(self):
        """The parts: name, what it does, seconds that it may take at most."""
        return [("kernels", self.kernels, 90),
                ("fixtures in f32", lambda: self.fixtures("f32"), 60),
                ("fixtures in bf16", lambda: self.fixtures("bf16"), 60),
                ("speed of kernels", lambda: speed.kernels(self), 80),
                ("decode steps", lambda: speed.steps(self), 110),
                ("prefill", lambda: speed.prefill(self), 50),
                ("HOP-B", lambda: speed.hopb(self), 90),
                ("processes over NCCL", self.processes, 50),
                ("attention of others", lambda: speed.attention_peers(self), 90),
                ("decode steps of PyTorch", lambda: speed.steps_of_peers(self), 90),
                ("one exchange or two", lambda: speed.exchanges(self), 50),
                ("a killed process", self.killed, 50),
                ("mutants", self.mutants, 20),
                ("graphs with other lengths", self.replay, 40),
                ("compute-sanitizer", self.sanitizer, 90)]

    def main(self):
        only, self.only = self.only, ""
        self.part("machine", self.machine, 60)
        self.only = only
        for name, body, seconds in self.all():
            if self.gpu:
                self.part(name, body, seconds)
            elif re.search(only, name):
                self.parts.append({"part": name, "state": "skipped", "text": "no GPU", "seconds": 0})
        self.write()
        print((self.out / "gpu-check.txt").read_text())
        return NO_GPU if not self.gpu else any(p["state"] == "failed" for p in self.parts)

    def clean(self):
        for process in list(self.running):
            self.end(process)
        for made in (self.scratch, *self.weights.values()):
            shutil.rmtree(made, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", help="a regular expression: the parts that have it in their names")
    parser.add_argument("--small", action="store_true", help="measure shapes of a few elements, to try this on an emulation")
    parser.add_argument("--scale", type=float, default=1.0, help="of all limits of time")
    options = parser.parse_args()
    if not (options.pack / "cases.json").is_file():
        parser.error(f"{options.pack} is no pack; scripts/gpu-pack.sh makes one where helix is built")
    check = Check(options.pack, options.out, options.only, options.small, options.scale)
    if not any(re.search(options.only, name) for name, _, _ in check.all()):
        parser.error(f"no part has {options.only} in its name")

    def stop(*_):
        check.deadline = 0  # of threads that would start something
        check.clean()
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    try:
        return check.main()
    finally:
        check.clean()


if __name__ == "__main__":
    raise SystemExit(main())
