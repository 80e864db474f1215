"""The node tests of the onnx package through import, compile and run; attention over growing caches once more as
stateful decoding on three ranks. A line per family; not green unless each family has as many cases, and as many that
pass, as it is known to have."""

import argparse
import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import ml_dtypes
import numpy as np
import onnx

import node_tests
import stateful


@dataclasses.dataclass(frozen=True)
class Family:
    label: str
    pattern: str  # of the case's name
    cases: int  # there are at least so many
    passing: int  # of which so many pass


FAMILIES = [
    Family("attention", r"test_attention_", 93, 93),
    Family("rms_normalization", r"test_rms_normalization_", 19, 19),
    Family("rotary_embedding", r"test_rotary_embedding", 8, 8),
    Family("tensorscatter", r"test_tensorscatter", 3, 3),
    Family("swish", r"test_swish$", 1, 1),
    Family("gelu", r"test_gelu_", 4, 4),
    Family("layer_normalization", r"test_layer_normalization_", 19, 19),
]
DECODED = Family("attention, decoded at kvp 3", "", 18, 18)


class Refused(Exception):
    """The tool ended in a numbered error."""


def tool(bin_dir, name, *args):
    done = subprocess.run([bin_dir / name, *map(str, args)], capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        return
    line = next((line for line in done.stderr.splitlines() if re.search(r"\bHLX\d{4}\b", line)), None)
    if line is None or done.returncode < 0:
        raise AssertionError(f"{name} exited with {done.returncode}: {done.stderr.strip()[-400:]}")
    raise Refused(line)


def difference(ours, expected, case):
    """What is wrong with an output; empty if nothing is. Numbers in half precision, which the reference computes in
    that, may differ by one unit of the last place of the largest."""
    if ours.shape != expected.shape:
        return f"shape {ours.shape} instead of {expected.shape}"
    rtol, atol = case.rtol, case.atol
    if expected.dtype.itemsize == 2 and expected.dtype.kind != "i":
        finite = np.abs(expected.astype(np.float64))[np.isfinite(expected.astype(np.float64))]
        atol = float(ml_dtypes.finfo(expected.dtype).eps) * (finite.max() if finite.size else 0)
    try:
        np.testing.assert_allclose(ours.astype(np.float64), expected.astype(np.float64), rtol=rtol, atol=atol)
    except AssertionError as error:
        return " ".join(str(error).split())[:300]
    return ""


def run_stateless(case, bin_dir, directory):
    model, artifact = directory / "model.onnx", directory / "model.hlx"
    onnx.save(case.model, model)
    tool(bin_dir, "helix-compile", model, "--stateless", "-o", artifact)
    np.savez(directory / "in.npz", **case.inputs)
    tool(bin_dir, "helix-run", artifact, "--inputs", directory / "in.npz", "--outputs", directory / "out.npz",
         "--threads", 1)
    with np.load(directory / "out.npz") as arrays:
        got = {name: arrays[name] for name in arrays.files}
    wrong = [f"outputs {sorted(got)} instead of {sorted(case.outputs)}"] if set(got) != set(case.outputs) else []
    for name, expected in case.outputs.items():
        ours = got[name].view(ml_dtypes.bfloat16) if got[name].dtype.kind == "V" else got[name]
        text = difference(ours, expected, case)
        if text or ours.dtype != expected.dtype:
            wrong.append(f"{name} ({ours.dtype}): {text}")
    return "; ".join(wrong)


def run_stateful(case, bin_dir, directory):
    decoder = stateful.decoder(case)
    model, artifact = directory / "model.onnx", directory / "model.hlx"
    onnx.save(decoder.model, model)
    # Blocks of one token, so that the few that a case has lie on all ranks.
    tool(bin_dir, "helix-compile", model, "-o", artifact, "--kvp", 3, "--tpa", 1, "--batch", decoder.batch,
         "--max-context", decoder.context, "--block", 1)
    prompts = directory / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"ids": ids}) + "\n" for ids in decoder.prompts))
    tool(bin_dir, "helix-run", artifact, "--prompts", prompts, "--score", "--outputs", directory / "out.npz")
    wrong = []
    with np.load(directory / "out.npz") as arrays:
        for b, rows in enumerate(decoder.expected):
            for position, expected in rows.items():
                output = next(iter(case.outputs.values()))
                ours = arrays[f"logits_{b}"][position, :expected.size].astype(output.dtype)
                if text := difference(ours, expected.astype(output.dtype), case):
                    wrong.append(f"sequence {b}, position {position}: {text}")
    return "; ".join(wrong[:1])


def attempt(run, case, bin_dir):
    """(passed, wrong or refused; why)"""
    with tempfile.TemporaryDirectory() as directory:
        try:
            wrong = run(case, bin_dir, pathlib.Path(directory))
        except Refused as refusal:
            return "refused", str(refusal)
        except Exception as error:  # a crash, a hang, an output that is no file of arrays
            return "wrong", str(error)
    return ("wrong", wrong) if wrong else ("passed", "")


def report(family, cases, results):
    """Prints the family's line and what did not pass; whether it is as it should be."""
    count = collections.Counter(outcome for outcome, _ in results)
    print(f"{family.label}: {count['passed']} passed, {count['wrong']} wrong, {count['refused']} refused", flush=True)
    for case, (outcome, why) in zip(cases, results):
        if outcome != "passed":
            print(f"  {outcome}: {case.name}: {why}")
    good = count["wrong"] == 0
    if len(cases) < family.cases or count["passed"] < family.passing:
        print(f"  there must be at least {family.cases} cases, and {family.passing} must pass", file=sys.stderr)
        good = False
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="where helix-compile and helix-run are")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="cases whose names match this, without the floors")
    options = parser.parse_args()
    tests = {name: test for name, test in node_tests.load().items() if re.search(options.only, name)}
    good = True
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:

        def run(family, cases, how):
            nonlocal good
            results = list(pool.map(lambda case: attempt(how, case, options.bin.resolve()), cases))
            if options.only:
                family = dataclasses.replace(family, cases=0, passing=0)
            good = report(family, cases, results) and good

        for family in FAMILIES:
            cases = [node_tests.case_of(test) for name, test in sorted(tests.items()) if re.match(family.pattern, name)]
            if cases or not options.only:
                run(family, cases, run_stateless)
            if family.label == "attention":
                run(DECODED, [case for case in cases if stateful.causal(case)], run_stateful)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
