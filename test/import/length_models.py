"""Lengths that do not follow from the attention mask, and integers that go astray."""

import numpy as np
from onnx import TensorProto

from cases import case


@case("lengths")
def total_as_seqlens(d):
    d["seqlens"].input[0] = "row_sums"


@case("lengths")
def seqlens_by_shape(d):
    d.node("Shape", ["attention_mask"], ["rows"], at="seqlens64", start=1)
    d["seqlens64"].input[0] = "rows"


@case("lengths")
def constant_total(d):
    d.constant("hundred", np.array(100, np.int64), at="total")
    d["total"].input[0] = "hundred"


@case("lengths")
def squared(d):
    d.node("Mul", ["row_sums", "row_sums"], ["square"], at="seqlens64")


@case("lengths")
def halved(d):
    d.node("Div", ["row_sums", "one"], ["half"], at="seqlens64")


@case("lengths")
def batch_axis(d):
    d.constant("zeros", np.array([0], np.int64), at="row_sums")
    d["row_sums"].input[1] = "zeros"


@case("lengths")
def sum_all(d):
    del d["row_sums"].input[1]


@case("lengths")
def overflow(d):
    d.constant("large", np.array([2**62], np.int64), at="seqlens64")
    d.node("Mul", ["large", "large"], ["larger"], at="seqlens64")


@case("lengths")
def narrow(d):
    d.constant("large", np.array([2**40], np.int64), at="seqlens64")
    d.node("Cast", ["large"], ["narrowed"], at="seqlens64", to=TensorProto.INT32)


@case("lengths")
def zero_divisor(d):
    d.constant("zero", np.array([0], np.int64), at="seqlens64")
    d.node("Div", ["one", "zero"], ["infinite"], at="seqlens64")


@case("lengths")
def gather_out(d):
    d.constant("two", np.array(2, np.int64), at="total64")
    d["total64"].input[1] = "two"


@case("lengths")
def doubling(d):
    """Concat of a value with itself, 60 times."""
    last = "one"
    for i in range(60):
        d.node("Concat", [last, last], [f"c{i}"], at="seqlens64", axis=0)
        last = f"c{i}"


@case("lengths")
def outer(d):
    """A column plus a row of 300 numbers each."""
    d.constant("row", np.ones((1, 300), np.int64), at="seqlens64")
    d.constant("column", np.ones((300, 1), np.int64), at="seqlens64")
    d.node("Add", ["row", "column"], ["table"], at="seqlens64")


@case("lengths")
def deep(d):
    last = "one"
    d.constant("zero", np.array(0, np.int64), at="seqlens64")
    for i in range(9):
        d.node("Unsqueeze", [last, "zero"], [f"u{i}"], at="seqlens64")
        last = f"u{i}"


@case("lengths")
def bad_squeeze(d):
    d.constant("five", np.array([5], np.int64), at="seqlens64")
    d.node("Squeeze", ["one", "five"], ["squeezed"], at="seqlens64")


@case("lengths")
def unbroadcastable(d):
    d.constant("three", np.ones(3, np.int64), at="seqlens64")
    d.node("Add", ["three", "mask_shape"], ["five"], at="total64")


@case("lengths")
def unknown_width(d):
    d.node("Shape", ["past.0.key"], ["past_shape"])
    d.node("Add", ["past_shape", "one"], ["sizes"])
