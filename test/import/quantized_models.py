"""Writes decoders with weights of a few bits to DIR/NAME/model.onnx: one that is taken, and ones that are refused."""

import os
import sys

import numpy as np
import quantised
from onnx import helper, numpy_helper


def product(model):
    return next(node for node in model.graph.node if node.op_type == "MatMulNBits")


def table(model):
    return next(node for node in model.graph.node if node.op_type == "GatherBlockQuantized")


def set_attribute(node, name, value):
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend(kept + [helper.make_attribute(name, value)])


def replace(model, node, operand, array):
    name = f"{node.input[operand] if len(node.input) > operand else 'operand'}_other"
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    while len(node.input) <= operand:
        node.input.append("")
    node.input[operand] = name


def rewrite(model, node, operand, change):
    array = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == node.input[operand])
    replace(model, node, operand, change(array))


def int8_codes(model):
    rewrite(model, product(model), 1, lambda codes: codes.view(np.int8))


def long_blocks(model):
    node, block = product(model), 1 << 17
    set_attribute(node, "block_size", block)
    replace(model, node, 1, np.zeros((32, 1, block // 2), np.uint8))
    replace(model, node, 2, np.ones((32, 1), np.float32))
    replace(model, node, 3, np.zeros((32, 1), np.uint8))


CHANGES = {
    "good": lambda m: set_attribute(product(m), "accuracy_level", 4),
    "three_bits": lambda m: set_attribute(product(m), "bits", 3),
    "prepacked": lambda m: set_attribute(product(m), "weight_prepacked", 1),
    "odd_block": lambda m: set_attribute(product(m), "block_size", 1),
    "other_k": lambda m: set_attribute(product(m), "K", 48),
    "no_k": lambda m: set_attribute(product(m), "K", 0),
    "g_idx": lambda m: replace(m, product(m), 4, np.zeros(32, np.int32)),
    "signed_codes": int8_codes,
    "long_blocks": long_blocks,
    "few_codes": lambda m: rewrite(m, product(m), 1, lambda codes: codes[:-1]),
    "few_scales": lambda m: rewrite(m, product(m), 2, lambda scales: scales[:, :-1]),
    "few_zeros": lambda m: rewrite(m, product(m), 3, lambda zeros: zeros[:-1]),
    "activations_as_codes": lambda m: product(m).input.__setitem__(1, product(m).input[0]),
    "wide_bias": lambda m: replace(m, product(m), 5, np.zeros(7, np.float32)),
    "columns": lambda m: set_attribute(table(m), "quantize_axis", 0),
    "table_bits": lambda m: set_attribute(table(m), "bits", 5),
    "table_of_f32": lambda m: rewrite(m, table(m), 0, lambda codes: codes.astype(np.float32)),
    "table_few_scales": lambda m: rewrite(m, table(m), 2, lambda scales: scales[:-1]),
}


def main(directory):
    for name, change in CHANGES.items():
        model = quantised.Quantised(zero="packed", table=("UINT8", 4, 16, "packed")).model()
        change(model)
        os.makedirs(f"{directory}/{name}")
        with open(f"{directory}/{name}/model.onnx", "wb") as out:
            out.write(model.SerializeToString())


if __name__ == "__main__":
    main(sys.argv[1])
