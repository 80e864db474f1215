"""Writes the weights of decoder.mlir: normal values, sharp enough for attention to matter, and a rope table."""

import sys

import numpy as np

random = np.random.default_rng(1)
weights = random.normal(0, 0.5, 1016).astype("<f4")
angles = np.outer(np.arange(16), [1.0, 0.1])
weights[416:448], weights[448:480] = np.cos(angles).ravel(), np.sin(angles).ravel()
weights.tofile(sys.argv[1])
