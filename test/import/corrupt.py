"""corrupt.py MODEL DIRECTORY CASES: truncates and flips bytes of a model in many places. helix-translate must either
import it or say why not: no crash, no hang, no message without a number."""

import os
import random
import re
import shutil
import subprocess
import sys

SEED = 1


def corrupted(original, case, generator):
    if case % 4 == 0:
        return original[: generator.randrange(len(original))]
    content = bytearray(original)
    for _ in range(1 if case % 4 == 1 else 8):
        place = generator.randrange(len(content))
        content[place] = generator.choice([content[place] ^ 1 << generator.randrange(8), 0, 0xFF])
    if case % 4 == 3:
        start = generator.randrange(len(content))
        content[start:start] = content[start : start + generator.randrange(64)]
    return bytes(content)


def main(model, directory, cases):
    original = open(model, "rb").read()
    os.makedirs(directory, exist_ok=True)
    shutil.copy(model + ".data", directory)
    path = os.path.join(directory, os.path.basename(model))
    generator = random.Random(SEED)
    imported = 0
    for case in range(int(cases)):
        with open(path, "wb") as file:
            file.write(corrupted(original, case, generator))
        run = subprocess.run(["helix-translate", "--import-onnx", path, "--prefill-chunk", "4", "-o", os.devnull],
                             capture_output=True, timeout=20)
        imported += run.returncode == 0
        refused = run.returncode == 1 and re.match(rb"helix-translate: error: HLX10\d\d: ", run.stderr)
        assert run.returncode == 0 or refused, (case, run)
    print(f"{imported} of {cases} imported")


if __name__ == "__main__":
    main(*sys.argv[1:])
