"""check_constants.py DIRECTORY PLAIN NAME=STORED...: the tensor STORED of DIRECTORY/w.safetensors is NAME of PLAIN."""

import json
import sys

import numpy as np
import onnx

directory, plain, *pairs = sys.argv[1:]
model = onnx.load(f"{plain}/model.onnx")
expected = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
content = open(f"{directory}/w.safetensors", "rb").read()
start = 8 + int.from_bytes(content[:8], "little")
header = json.loads(content[8:start])
assert pairs
for pair in pairs:
    name, key = pair.split("=")
    begin, end = header[key]["data_offsets"]
    stored = np.frombuffer(content[start + begin : start + end], np.float32).reshape(header[key]["shape"])
    np.testing.assert_array_equal(stored, expected[name], err_msg=pair)
