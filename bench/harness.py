"""What the benchmarks share: running tools, the results as JSON, and the options that all of them have."""

import argparse
import datetime
import json
import pathlib
import platform
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Bench:
    """One run of a benchmark. `scratch` is a directory for its files."""

    def __init__(self, binaries, scratch):
        self.binaries, self.scratch, self.results = pathlib.Path(binaries).resolve(), pathlib.Path(scratch), []

    def tool(self, name, *arguments):
        """What a tool prints; ends the benchmark with what it says if it fails."""
        done = subprocess.run([self.binaries / name, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name} {' '.join(map(str, arguments))}\n{done.stderr}")
        return done.stdout

    def add(self, name, value, unit, target=None, better="lower", **more):
        """Keeps a result and returns it. Without a target nothing is claimed. `better` is lower or higher; or equal, and
        `tolerance` says how far from the target is still met."""
        met = None
        if target is not None:
            met = bool({"lower": lambda: value <= target, "higher": lambda: value >= target,
                        "equal": lambda: abs(value - target) <= more["tolerance"] * (1 + 1e-9)}[better]())
        self.results.append({"name": name, "value": value, "unit": unit, "target": target, **more, "better": better,
                             "met": met})
        return self.results[-1]

    def write(self, path):
        """Writes the results, in the form of DESIGN's `make bench-NAME`; the exit status: 1 if a target is missed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": platform.machine(), "date": datetime.date.today().isoformat(),
                                    "results": self.results}, indent=1) + "\n")
        print(f"written to {path}")
        return 0 if all(result["met"] is not False for result in self.results) else 1


def parser(description, name):
    """A parser of the options of every benchmark; `name` is that of its JSON file."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/release/bin", help="directory of the tools")
    options.add_argument("-o", type=pathlib.Path, default=ROOT / f"build/bench/{name}.json", help="JSON file to write")
    return options
