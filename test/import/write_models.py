"""Writes the small models of one group of tests: write_models.py GROUP DIRECTORY makes DIRECTORY/<case>/model.onnx."""

import os
import sys

# Each registers its groups of cases.
import constant_models  # noqa: F401
import good_models  # noqa: F401
import graph_models  # noqa: F401
import length_models  # noqa: F401
import operand_models  # noqa: F401
import structure_models  # noqa: F401
from cases import GROUPS
from decoder import Decoder, write


def main(group, directory):
    for function in GROUPS[group]:
        decoder = Decoder(packed=function.__name__ != "no_rope")
        written = function(decoder) or decoder.model()
        write(os.path.join(directory, function.__name__), *written)


if __name__ == "__main__":
    main(*sys.argv[1:])
