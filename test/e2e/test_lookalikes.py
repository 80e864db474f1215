"""Decoders that look like ones that are known, and are not: refused with a number, or computed as they are written."""

import re
import sys

import helix
import numpy as np
import pytest
from onnx import TensorProto, helper

sys.path.insert(0, str(helix.ROOT / "test" / "import"))
import forms  # noqa: E402
import test_forms  # noqa: E402


class Mask(forms.Form):
    """A mask of which `sees` says what a query sees."""

    def make_mask(self):
        length = self.node("Gather", self.node("Shape", "attention_mask"), self.scalar(1, np.int64), axis=0)
        tokens = self.node("Gather", self.node("Shape", "input_ids"), self.scalar(1, np.int64), axis=0)
        keys = self.node("Range", self.scalar(0, np.int64), length, self.scalar(1, np.int64))
        queries = self.node("Range", self.node("Sub", length, tokens), length, self.scalar(1, np.int64))
        return self.sees(keys, self.node("Reshape", queries, self.ints(-1, 1)), tokens)

    def hidden(self, seen, value=0.0):
        return self.node("Where", seen, self.scalar(value), self.scalar(float(np.finfo(np.float32).min)))


class Everything(Mask):
    """Keys that are not padding, later ones too."""

    def sees(self, keys, queries, tokens):
        given = self.node("Unsqueeze", "attention_mask", self.ints(1, 2))
        return self.hidden(self.node("Cast", given, to=TensorProto.BOOL))


class NotItself(Mask):
    def sees(self, keys, queries, tokens):
        return self.hidden(self.node("Less", keys, queries))


class FromTheStart(Mask):
    """Causal as if there were no past."""

    def sees(self, keys, queries, tokens):
        rows = self.node("Range", self.scalar(0, np.int64), tokens, self.scalar(1, np.int64))
        return self.hidden(self.node("LessOrEqual", keys, self.node("Unsqueeze", rows, self.ints(1))))


class Ahead(Mask):
    def sees(self, keys, queries, tokens):
        return self.hidden(self.node("Less", keys, self.node("Add", queries, self.scalar(2, np.int64))))


class Chunked(Mask):
    """Causal within chunks of 8 tokens."""

    def sees(self, keys, queries, tokens):
        chunk = self.scalar(8, np.int64)
        same = self.node("Equal", self.node("Div", keys, chunk), self.node("Div", queries, chunk))
        return self.hidden(self.node("And", same, self.node("LessOrEqual", keys, queries)))


class LaterThanTwenty(Mask):
    """Causal, but the first tokens vanish once the sequence is longer than twenty."""

    def sees(self, keys, queries, tokens):
        late = self.node("Greater", queries, self.scalar(20, np.int64))
        first = self.node("Less", keys, self.scalar(4, np.int64))
        gone = self.node("And", late, first)
        seen = self.node("And", self.node("Not", gone), self.node("LessOrEqual", keys, queries))
        return self.hidden(seen)


class Weak(Mask):
    """Later keys count less, but they count."""

    def sees(self, keys, queries, tokens):
        seen = self.node("LessOrEqual", keys, queries)
        return self.node("Where", seen, self.scalar(0.0), self.scalar(-5.0))


class Distance(Mask):
    """Scores fall with the distance, as ALiBi has it."""

    def sees(self, keys, queries, tokens):
        distance = self.node("Cast", self.node("Sub", keys, queries), to=TensorProto.FLOAT)
        return self.node("Add", self.hidden(self.node("LessOrEqual", keys, queries)), distance)


class NoMask(forms.Form):
    def products(self, q, keys, values):
        scores = self.node("MatMul", q, self.node("Transpose", keys, perm=[0, 1, 3, 2]))
        return self.node("MatMul", self.node("Softmax", scores, axis=-1), values)


class NoSoftmax(forms.Form):
    def products(self, q, keys, values):
        scores = self.node("MatMul", q, self.node("Transpose", keys, perm=[0, 1, 3, 2]))
        return self.node("MatMul", self.node("Add", scores, self.mask), values)


class SoftmaxOverQueries(forms.Form):
    def products(self, q, keys, values):
        scores = self.node("MatMul", q, self.node("Transpose", keys, perm=[0, 1, 3, 2]))
        return self.node("MatMul", self.node("Softmax", self.node("Add", scores, self.mask), axis=2), values)


class ScaleAfterMask(forms.Form):
    def products(self, q, keys, values):
        scores = self.node("MatMul", q, self.node("Transpose", keys, perm=[0, 1, 3, 2]))
        scores = self.node("Mul", self.node("Add", scores, self.mask), self.scalar(0.5))
        return self.node("MatMul", self.node("Softmax", scores, axis=-1), values)


class HeadsInterleaved(forms.Form):
    """Query head h reads KV head h mod 2 instead of h / 2."""

    def repeat(self, x):
        shape = [self.node("Shape", x, start=d, end=d + 1) for d in range(4)]
        x = self.node("Unsqueeze", x, self.ints(1))
        x = self.node("Expand", x, self.node("Concat", shape[0], self.ints(2), *shape[1:], axis=0))
        return self.node("Reshape", x, self.node("Concat", shape[0], self.ints(forms.HEADS), *shape[2:], axis=0))


class TwoAngles(forms.Form):
    """The second element of a pair turns by another angle."""

    def tables(self):
        rows = super().tables()
        self.weights["cos"][:, forms.DIM // 2:] *= 0.5
        return rows


class HalfTurned(forms.Form):
    """The halves are not swapped."""

    def rotate(self, x, heads):
        cos, sin = self.table
        return self.node("Add", self.node("Mul", self.node("Neg", x), sin), self.node("Mul", x, cos))


class NormOverTokens(forms.Form):
    def norm(self, x, name):
        weight = self.weight(name, forms.HIDDEN, scale=0.3, around=1)
        mean = self.node("ReduceMean", self.node("Pow", x, self.scalar(2.0)), self.ints(1))
        root = self.node("Sqrt", self.node("Add", mean, self.scalar(1e-3)))
        return self.node("Mul", weight, self.node("Div", x, root))


class NormOfAnother(forms.Form):
    def norm(self, x, name):
        weight = self.weight(name, forms.HIDDEN, scale=0.3, around=1)
        twice = self.node("Add", x, x)
        mean = self.node("ReduceMean", self.node("Mul", twice, twice), self.ints(-1))
        root = self.node("Sqrt", self.node("Add", mean, self.scalar(1e-3)))
        return self.node("Mul", weight, self.node("Div", x, root))


class MeanOfHalf(forms.Form):
    """A mean of squares that is used as it is."""

    def norm(self, x, name):
        mean = self.node("ReduceMean", self.node("Pow", x, self.scalar(2.0)), self.ints(-1))
        return self.node("Mul", x, mean)


class FirstRow(forms.Form):
    """Every token's angles are those of the first position."""

    def tables(self):
        zero = self.node("Mul", "position_ids", self.scalar(0, np.int64))
        rows = super().tables()
        for node in self.nodes:
            if node.op_type == "Gather" and node.input[1] == "position_ids":
                node.input[1] = zero
        return rows


class ByLength(forms.Form):
    """Angles that shrink with the length of the sequence, so that they change while it grows."""

    def tables(self):
        length = self.node("Gather", self.node("Shape", "attention_mask"), self.scalar(1, np.int64), axis=0)
        factor = self.node("Div", self.scalar(1.0), self.node("Cast", length, to=TensorProto.FLOAT))
        return tuple(self.node("Mul", row, factor) for row in super().tables())


class BySize(forms.Form):
    """Activations that shrink with the size of the call: `axis` 0, its sequences, or 1, its tokens."""

    axis = 1

    def norm(self, x, name):
        size = self.node("Gather", self.node("Shape", "input_ids"), self.scalar(self.axis, np.int64), axis=0)
        return super().norm(self.node("Div", x, self.node("Cast", size, to=TensorProto.FLOAT)), name)


class BySequences(BySize):
    axis = 0


class AnglesBySize(forms.Form):
    """A rotation whose angles depend on the number of tokens in the call."""

    def tables(self):
        tokens = self.node("Gather", self.node("Shape", "input_ids"), self.scalar(1, np.int64), axis=0)
        factor = self.node("Cast", tokens, to=TensorProto.FLOAT)
        return tuple(self.node("Mul", row, factor) for row in super().tables())


class WindowBySize(Mask):
    """A window of as many tokens as the call has, and five more."""

    def sees(self, keys, queries, tokens):
        first = self.node("Sub", queries, self.node("Add", tokens, self.scalar(5, np.int64)))
        return self.hidden(self.node("And", self.node("Greater", keys, first), self.node("LessOrEqual", keys, queries)))


class BranchBySize(forms.Form):
    """Another activation where a call has one token."""

    def node(self, op, *inputs, **rest):
        if op != "Sigmoid":
            return super().node(op, *inputs, **rest)
        tokens = self.node("Gather", self.node("Shape", "input_ids"), self.scalar(1, np.int64), axis=0)
        branches = {f"{which}_branch": helper.make_graph(
            [helper.make_node(activation, list(inputs), [which])], which, [], [self.info(which, TensorProto.FLOAT, None)])
            for which, activation in (("then", "Tanh"), ("else", "Sigmoid"))}
        return super().node("If", self.node("Equal", tokens, self.scalar(1, np.int64)), **branches)


class CapOfZero(forms.Form):
    """Scores that are all zero behind their tanh; a cap of 0 stands for none elsewhere."""

    def node(self, op, *inputs, **rest):
        if op == "Softmax":
            scores, mask = self.nodes[-1].input
            self.nodes.pop()
            capped = self.node("Mul", self.node("Tanh", scores), self.scalar(0.0))
            inputs = [self.node("Add", capped, mask)]
        return super().node(op, *inputs, **rest)


class KeysAsValues(forms.Form):
    """Each layer's keys go out in the place of its values."""

    def model(self):
        model = super().model()
        presents = [output for output in model.graph.output if output.name != "logits"]
        for key, value in zip(presents[::2], presents[1::2]):
            key.name, value.name = value.name, key.name
        return model


REFUSED = {
    BySize: 1068, BySequences: 1068, AnglesBySize: 1068, WindowBySize: 1068, BranchBySize: 1068, CapOfZero: 1065,
    KeysAsValues: 1017,
    FirstRow: 1062, ByLength: 1062,
    Everything: 1063, NotItself: 1063, FromTheStart: 1063, Ahead: 1063, LaterThanTwenty: 1063, Weak: 1063,
    Distance: 1062, NoMask: 1063, Chunked: 1063, NoSoftmax: 1065, SoftmaxOverQueries: 1010, ScaleAfterMask: 1065,
    HeadsInterleaved: 1064, TwoAngles: 1066, HalfTurned: 1066, NormOverTokens: 1067, NormOfAnother: 1067,
    MeanOfHalf: 1067,
}


@pytest.mark.parametrize("form", REFUSED, ids=lambda form: form.__name__)
@pytest.mark.parametrize("flags", [[], ["--prefill-chunk", 8]], ids=["decode", "prefill"])
def test_refused(form, flags, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(form().model().SerializeToString())
    done = helix.tool("helix-compile", path, "-o", tmp_path / "model.hlx", "--max-context", 48, *flags, check=False)
    assert done.returncode != 0, "it compiles"
    assert re.findall(r"HLX(\d{4})", done.stderr) == [str(REFUSED[form])], done.stderr


class OtherGate(forms.Form):
    """A gate with another activation: not SwiGLU, and computed as it is."""

    def node(self, op, *inputs, **rest):
        return super().node("Tanh" if op == "Sigmoid" else op, *inputs, **rest)


class Backwards(forms.Form):
    """A rotation the other way round."""

    def tables(self):
        rows = super().tables()
        self.weights["sin"] *= -1
        return rows


@pytest.mark.parametrize("form", [OtherGate, Backwards], ids=lambda form: form.__name__)
def test_as_written(form, tmp_path, monkeypatch):
    monkeypatch.setattr(forms, "Form", lambda: form())
    monkeypatch.setitem(forms.FORMS, "it", {})
    test_forms.test_agrees_with_onnx_runtime("it", tmp_path)
