"""Writes a decoder whose attention has all that GroupQueryAttention offers and the importer takes: argv[1]/model.onnx."""

import sys

import decoder
import numpy as np

model = decoder.Decoder()
model.set("a", softcap=30.0, local_window_size=128, qk_norm_epsilon=0.5, q_norm_epsilon=0.25)
model.weights["sinks"] = np.array([1, 2], np.float32)
model.weights["q_norm"] = np.array([1, 2, 3, 4], np.float32)
model.weights["k_norm"] = np.array([5, 6, 7, 8], np.float32)
model["a"].input[11:] = ["sinks", "", "", "q_norm", "k_norm"]
decoder.write(sys.argv[1], *model.model())
