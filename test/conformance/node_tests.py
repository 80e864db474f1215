"""The node tests of the onnx package: models of one node, inputs, and the outputs that they must give."""

import dataclasses
import pathlib
import warnings

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests


@dataclasses.dataclass
class Case:
    name: str
    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    rtol: float
    atol: float


def named(values, arrays):
    """The arrays of a list of values by name."""
    return {value.name: np.asarray(array) for value, array in zip(values, arrays)}


def case_of(test):
    """Packages from 1.23 on generate a case; older ones carry files."""
    if test.model is not None:
        (inputs, outputs), = test.data_sets
        model = test.model
    else:
        model = onnx.load(pathlib.Path(test.model_dir) / "model.onnx")
        data = pathlib.Path(test.model_dir) / "test_data_set_0"
        inputs, outputs = ([numpy_helper.to_array(onnx.load_tensor(data / f"{side}_{i}.pb")) for i in range(len(values))]
                           for side, values in (("input", model.graph.input), ("output", model.graph.output)))
    return Case(test.name, model, named(model.graph.input, inputs), named(model.graph.output, outputs), test.rtol,
                test.atol)


def load():
    """All node tests that are not a function's expansion, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other ops, whose data overflow on purpose
        tests = load_model_tests(kind="node")
    return {test.name: test for test in tests if "expanded" not in test.name}
