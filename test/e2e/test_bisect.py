"""--bisect names the first node that differs from a reference."""

import re

import helix
import numpy as np
import onnx
import pytest

MADE = {}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("bisect")


def reference(fixture, scratch):
    """The values of a fixture's nodes by ONNX Runtime, for one sequence of 12."""
    if fixture not in MADE:
        ids = ",".join(map(str, np.random.default_rng(1).integers(0, helix.LISTING[fixture]["vocab"], 12)))
        out = scratch / f"{fixture}.npz"
        helix.script("scripts/intermediates.py", helix.model(fixture), "--prompt-ids", ids, "--head-dim",
                     helix.LISTING[fixture]["head_dim"], "-o", out)
        MADE[fixture] = out
    return MADE[fixture]


def bisect(model, ref, *flags):
    return helix.tool("helix-compile", model, "--bisect", ref, *flags, check=False)


def altered(fixture, folder, change):
    """A copy of a fixture after `change(model)`, which holds its weights."""
    folder.mkdir()
    model = onnx.load(helix.model(fixture))
    change(model)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    return folder / "model.onnx"


def first(done):
    """The node that is named."""
    found = re.search(r"HLX5040: (imported graph|on the mesh): node '([^']+)'", done.stderr)
    assert found and done.returncode == 1, done.stdout + done.stderr
    return found[1], found[2]


@pytest.mark.parametrize("fixture", ["llama3-genai", "gemma2-genai", "gemma3-torch23", "qwen3-mobius", "mistral-torch18",
                                     "gpt2-mobius"])
def test_agrees(fixture, scratch):
    done = bisect(helix.model(fixture), reference(fixture, scratch), "--kvp", 2, "--tpa", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    compared = [int(n) for n in re.findall(r"all (\d+) values agree", done.stdout)]
    # Of the imported graph, on the mesh, and there after fusion: what reductions give.
    assert len(compared) == 3 and compared[0] >= 25 and compared[1] >= 8 and compared[2] >= 1, done.stdout


def users(model, name):
    return [node for node in model.graph.node if name in node.input]


@pytest.mark.parametrize("fixture", ["llama3-genai", "gemma3-torch23"])
def test_a_wrong_weight(fixture, scratch, tmp_path):
    """One weight after the other is altered; each time the node that reads it is named, or what it became part of."""
    model = onnx.load(helix.model(fixture))
    matrices = [t.name for t in model.graph.initializer if len(t.dims) == 2 and "cache" not in t.name and "embed" not in t.name]
    assert len(matrices) >= 5
    for i, name in enumerate(matrices):
        def change(copy):
            tensor = next(t for t in copy.graph.initializer if t.name == name)
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[:, 1] *= -1.5
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))

        done = bisect(altered(fixture, tmp_path / str(i), change), reference(fixture, scratch))
        level, node = first(done)
        assert level == "imported graph"
        assert node in [user.name for user in users(model, name)], f"{name}: {done.stderr}"


def test_a_wrong_op(scratch, tmp_path):
    """A product that became a sum, a norm with another epsilon, attention with another scale."""
    fixture = "llama3-genai"
    model = onnx.load(helix.model(fixture))
    products = [node.name for node in model.graph.node if node.op_type == "Mul" and "/layers.1/" in node.name]
    attention = [node.name for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    norms = [node.name for node in model.graph.node if node.op_type == "SkipSimplifiedLayerNormalization"]

    def sum_of(name):
        def change(copy):
            next(n for n in copy.graph.node if n.name == name).op_type = "Add"
        return change

    def attribute(name, key, value):
        def change(copy):
            node = next(n for n in copy.graph.node if n.name == name)
            kept = [a for a in node.attribute if a.name != key]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute(key, value)])
        return change

    cases = [(products[-1], sum_of(products[-1])), (attention[1], attribute(attention[1], "scale", 0.3)),
             (norms[1], attribute(norms[1], "epsilon", 0.5))]
    for i, (name, change) in enumerate(cases):
        done = bisect(altered(fixture, tmp_path / str(i), change), reference(fixture, scratch))
        assert first(done) == ("imported graph", name), done.stderr


def test_a_wrong_shard(scratch):
    """Bugs of the sharded run are found on the mesh, at the first attention or product behind which a value is whole."""
    ref = reference("llama3-genai", scratch)
    for mutant in ("unweighted-merge", "local-rope"):
        done = bisect(helix.model("llama3-genai"), ref, "--kvp", 2, "--tpa", 2, "--block", 4, "--bisect-mutant", mutant)
        level, node = first(done)
        assert level == "on the mesh" and "/layers.0/" in node, done.stderr


def test_what_is_no_reference(scratch, tmp_path):
    model = helix.model("llama3-genai")
    with np.load(reference("llama3-genai", scratch)) as good:
        arrays = dict(good)

    def refused(number, **changes):
        path = tmp_path / "changed.npz"
        np.savez(path, **{k: v for k, v in {**arrays, **changes}.items() if v is not None})
        done = bisect(model, path)
        assert done.returncode == 1 and f"HLX{number}" in done.stderr, done.stderr

    refused(5041, input_ids=None)
    refused(5041, input_ids=np.arange(3))
    refused(5041, input_ids=np.array([[1, 2.5, 3]]))
    refused(5041, input_ids=np.array([[1, -2, 3]]))
    refused(5041, input_ids=np.array([[1, 10**6, 3]]))
    np.savez(tmp_path / "alone.npz", input_ids=arrays["input_ids"])
    assert "HLX5041" in bisect(model, tmp_path / "alone.npz").stderr
    refused(5040, logits=arrays["logits"][:, :3])
    assert "HLX5022" in bisect(model, tmp_path / "none.npz").stderr
    (tmp_path / "text.npz").write_text("no zip")
    assert "HLX5022" in bisect(model, tmp_path / "text.npz").stderr
    whole = (tmp_path / "changed.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    assert "HLX5022" in bisect(model, tmp_path / "cut.npz").stderr
    ids = np.full_like(arrays["input_ids"], 10**6)
    assert bisect(model, _saved(tmp_path / "ids.npz", arrays, ids)).returncode == 1
    assert "HLX5030" in bisect(helix.MODELS / "checkpoints" / "llama3", tmp_path / "ids.npz").stderr


def _saved(path, arrays, ids):
    np.savez(path, **{**arrays, "input_ids": ids})
    return path
