"""Compiles a small Llama for kvp 2 x tpa 2, decodes on four ranks in one process, compares with ONNX Runtime.

    make demo
    python examples/demo.py --bin build/release/bin
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODEL = ROOT / "test" / "models" / "llama-tiny" / "model.onnx"
PROMPT = [17, 4, 99, 201, 56, 3]
TOKENS = 24


def onnx_logits(ids):
    """Logits [tokens, vocabulary] of a sequence by ONNX Runtime, in one pass without a past."""
    session = onnxruntime.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
    feeds = {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
    for given in session.get_inputs():
        if given.name.startswith("past_key_values"):
            feeds[given.name] = np.zeros((1, given.shape[1], 0, 16), np.float32)
    return session.run(["logits"], feeds)[0][0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="directory of the tools")
    tools = parser.parse_args().bin.resolve()

    def run(scratch, name, *args):
        command = [str(tools / name), *map(str, args)]
        print("$", name, " ".join(command[1:]).replace(f"{ROOT}/", ""), flush=True)
        done = subprocess.run(command, cwd=scratch, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(done.returncode)
        return done.stdout

    with tempfile.TemporaryDirectory() as directory:
        scratch = pathlib.Path(directory)
        artifact, prompts, scores = "llama.hlx", "prompts.jsonl", "scores.npz"
        run(scratch, "helix-compile", MODEL, "-o", artifact, "--kvp", 2, "--tpa", 2, "--max-context", 128)
        prompt = ",".join(map(str, PROMPT))
        tokens = run(scratch, "helix-run", artifact, "--prompt-ids", prompt, "--tokens", TOKENS)
        print("tokens:", tokens, end="", flush=True)

        ids = PROMPT + [int(token) for token in tokens.split()]
        (scratch / prompts).write_text(json.dumps({"ids": ids}) + "\n")
        nll = run(scratch, "helix-run", artifact, "--prompts", prompts, "--score", "--outputs", scores)
        ours, reference = np.load(scratch / scores)["logits_0"], onnx_logits(ids)
        print(f"mean negative log-likelihood: {float(nll):.4f} nats per token")
        print(f"largest difference of a logit from ONNX Runtime: {np.abs(ours - reference).max():.2g} "
              f"(largest logit {np.abs(reference).max():.3g})")


if __name__ == "__main__":
    main()
