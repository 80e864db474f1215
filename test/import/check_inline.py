"""check_inline.py MODULE MODEL_DIRECTORY: reads the safetensors file that a module names, by its header and by the
module's own offsets, and compares both with what write_models.py put in (`inline_gate`)."""

import json
import os
import re
import sys

import numpy as np

EXPECTED = {
    "norm0": np.arange(8, dtype=np.float32),
    "gate": np.arange(96, dtype=np.float32).reshape(8, 12),
    "up": np.full((8, 12), 0x3F80, np.uint16),
}
DTYPES = {"F32": np.float32, "BF16": np.uint16}

module = open(sys.argv[1]).read()
pattern = r'helix.weight "(\w+)" \{file = "([^"]*safetensors)", length = (\d+) : i64, offset = (\d+)'
weights = {name: (file, int(length), int(offset)) for name, file, length, offset in re.findall(pattern, module)}
assert weights.keys() == EXPECTED.keys(), weights
(file,) = {place[0] for place in weights.values()}
content = open(os.path.join(sys.argv[2], file), "rb").read()
start = 8 + int.from_bytes(content[:8], "little")
header = json.loads(content[8:start])
assert start % 8 == 0 and header.keys() == EXPECTED.keys(), header
for name, expected in EXPECTED.items():
    entry = header[name]
    begin, end = entry["data_offsets"]
    assert entry["shape"] == list(expected.shape) and DTYPES[entry["dtype"]] == expected.dtype, entry
    assert content[start + begin : start + end] == expected.tobytes(), name
    _, length, offset = weights[name]
    assert content[offset : offset + length] == expected.tobytes(), name
