"""corrupt_checkpoint.py CHECKPOINT DIRECTORY CASES: truncates and flips bytes of a checkpoint's configuration, index and
headers. helix-translate must either import it or say why not: no crash, no hang, no message without a number."""

import os
import pathlib
import random
import re
import shutil
import subprocess
import sys

from corrupt import SEED, corrupted


def main(checkpoint, directory, cases):
    folder = pathlib.Path(directory) / "model"
    generator = random.Random(SEED)
    imported = 0
    for case in range(int(cases)):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(checkpoint, folder)
        path = generator.choice(sorted(p for p in folder.iterdir() if p.name != "expected.npz"))
        content = path.read_bytes()
        # Of a file with tensors the header alone, and what it says of its own length.
        end = 8 + int.from_bytes(content[:8], "little") if path.suffix == ".safetensors" else len(content)
        path.write_bytes(corrupted(content[:end], case, generator) + content[end:])
        run = subprocess.run(["helix-translate", "--import-huggingface", str(folder), "--max-context", "16", "-o", os.devnull,
                              "--inline-weights", str(pathlib.Path(directory) / "tables.safetensors")],
                             capture_output=True, timeout=20)
        imported += run.returncode == 0
        refused = run.returncode == 1 and re.match(rb"helix-translate: error: HLX1[01]\d\d: ", run.stderr)
        assert run.returncode == 0 or refused, (case, run)
    print(f"{imported} of {cases} imported")


if __name__ == "__main__":
    main(*sys.argv[1:])
