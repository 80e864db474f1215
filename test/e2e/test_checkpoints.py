"""Hugging Face checkpoints: the logits of transformers on every mesh, and what configurations of other versions say."""

import json
import shutil
import sys

import helix
import numpy as np
import pytest

sys.path.insert(0, str(helix.ROOT / "test" / "import"))
import forms  # noqa: E402

FOLDER = helix.MODELS / "checkpoints"
CHECKPOINTS = sorted(path.name for path in FOLDER.iterdir())
MESHES = [(1, 1), (2, 1), (1, 2), (4, 1), (3, 1)]
# Longrope turns to other tables beyond 64 tokens.
CONTEXT = {"phi3-long": 64}


def expected(name):
    """The sequences and their logits by transformers."""
    with np.load(FOLDER / name / "expected.npz") as arrays:
        count = len(arrays.files) // 2
        return [arrays[f"ids_{i}"] for i in range(count)], [arrays[f"logits_{i}"] for i in range(count)]


def config(name):
    return json.loads((FOLDER / name / "config.json").read_text())


def copy(name, folder, **changes):
    """A checkpoint with other fields in its configuration; None takes one away."""
    shutil.copytree(FOLDER / name, folder)
    fields = {**config(name), **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))
    return folder


def logits(checkpoint, prompts, out, kvp, tpa, batch, context, dtype="f32"):
    helix.tool("helix-compile", checkpoint, "-o", out, *helix.options(kvp, tpa, batch, dtype, context=context))
    return helix.score(out, prompts, out.with_suffix(".npz"))


def test_all_are_here():
    assert {"llama3", "qwen2", "qwen3", "mistral", "phi3", "gemma2", "gemma3"} <= set(CHECKPOINTS)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_agrees_with_transformers(name, tmp_path):
    ids, reference = expected(name)
    prompts = helix.write_prompts(tmp_path / "prompts.jsonl", ids)
    for kvp, tpa in MESHES:
        ours = logits(FOLDER / name, prompts, tmp_path / f"{kvp}x{tpa}.hlx", kvp, tpa, len(ids), CONTEXT.get(name, 96))
        assert helix.error(ours, reference) <= 1e-5, f"kvp {kvp}, tpa {tpa}"


@pytest.mark.parametrize("name", ["qwen2", "gemma3"])
def test_bf16(name, tmp_path):
    """Weights, as they are stored, and caches in bf16: as close to the interpreter as models from ONNX must be."""
    ids, reference = expected(name)
    prompts = helix.write_prompts(tmp_path / "prompts.jsonl", ids)
    module = tmp_path / "module.mlir"
    helix.tool("helix-translate", "--import-huggingface", FOLDER / name, "--batch", len(ids), "--max-context", 96, "--block", 4,
               "--prefill-chunk", 16, "--all-logits", "--weight-dtype", "bf16", "--kv-dtype", "bf16", "-o", module,
               "--inline-weights", tmp_path / "tables.safetensors")
    exact = helix.interpret(module, FOLDER / name, prompts, tmp_path / "exact.npz")
    assert helix.error(exact, reference) <= 5e-2  # the caches' rounding, and nothing else
    by_mesh = [logits(FOLDER / name, prompts, tmp_path / f"{kvp}.hlx", kvp, 1, len(ids), 96, "bf16") for kvp in (1, 4)]
    for ours in by_mesh:
        assert helix.error(ours, exact) <= 1e-2
        assert helix.error(ours, by_mesh[0]) <= 2e-3


def without_scaling(name):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": config(name)["rope_parameters"]["rope_theta"]}}


# Fields whose loss changes the logits much more than rounding does, so that the tests above can see it.
MATTERS = {
    "llama3": [without_scaling("llama3"), {"rms_norm_eps": 0.01}],
    "llama-bias": [without_scaling("llama-bias"), {"hidden_act": "gelu_pytorch_tanh"}],
    "qwen2-yarn": [without_scaling("qwen2-yarn"), {"use_sliding_window": False, "layer_types": None},
                   {"sliding_window": 25}, {"layer_types": ["sliding_attention", "full_attention"]}],
    "mistral": [{"sliding_window": 23}],
    "phi3-partial": [without_scaling("phi3-partial")],
    "phi3-long": [without_scaling("phi3-long"), {"max_position_embeddings": 128}],
    "gemma2": [{"attn_logit_softcapping": 9.0}, {"final_logit_softcapping": 16.0}, {"query_pre_attn_scalar": 17},
               {"layer_types": ["full_attention", "sliding_attention"]}],
    "gemma3": [{"layer_types": ["full_attention", "sliding_attention"]}, {"sliding_window": 23},
               {"rope_parameters": {kind: {"rope_type": "default", "rope_theta": 10000.0}
                                    for kind in ("full_attention", "sliding_attention")}}],
}


@pytest.mark.parametrize("name", MATTERS)
def test_what_is_compared_can_fail(name, tmp_path):
    ids, reference = expected(name)
    prompts = helix.write_prompts(tmp_path / "prompts.jsonl", ids)
    for i, changes in enumerate(MATTERS[name]):
        folder = copy(name, tmp_path / str(i), **changes)
        ours = logits(folder, prompts, tmp_path / f"{i}.hlx", 1, 1, len(ids), CONTEXT.get(name, 96))
        assert helix.error(ours, reference) >= 1e-4, changes


def test_equals_the_onnx_export(tmp_path):
    """The checkpoint and the ONNX fixture of one model give the same logits, to rounding."""
    ids, _ = expected("llama3")
    prompts = helix.write_prompts(tmp_path / "prompts.jsonl", ids)
    ours = logits(FOLDER / "llama3", prompts, tmp_path / "checkpoint.hlx", 2, 1, len(ids), 96)
    onnx = [helix.onnx_logits("llama3-genai", row) for row in ids]
    assert helix.error(ours, onnx) <= 1e-5


def older(name):
    """The configuration as transformers 4 wrote it."""
    fields = config(name)
    rope = fields.pop("rope_parameters")
    fields["torch_dtype"] = fields.pop("dtype")
    fields["rope_parameters"] = fields["dtype"] = None
    if name == "gemma3":
        fields["rope_theta"] = rope["full_attention"]["rope_theta"]
        fields["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        fields["layer_types"] = None
        fields["sliding_window_pattern"] = 2
        return fields
    fields["rope_theta"] = rope.pop("rope_theta")
    if rope.pop("partial_rotary_factor", 1) != 1:
        fields["partial_rotary_factor"] = 0.75
    if rope.get("rope_type") == "longrope":
        rope = {"type": "su", "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}
    fields["rope_scaling"] = rope if rope.get("rope_type") != "default" else None
    if name in ("gemma2", "mistral"):
        fields["layer_types"] = None  # these follow
    return fields


@pytest.mark.parametrize("name", ["llama3", "phi3-long", "phi3-partial", "gemma2", "gemma3", "mistral"])
def test_older_configurations(name, tmp_path):
    """What transformers 4 wrote gives the same module, and the same tables."""
    folder = copy(name, tmp_path / name, **older(name))
    texts = []
    for checkpoint in (FOLDER / name, folder):
        tables = tmp_path / f"tables-{len(texts)}"
        tables.mkdir()
        module = helix.tool("helix-translate", "--import-huggingface", checkpoint, "--max-context", 64,
                            "--inline-weights", tables / "tables.safetensors").stdout
        lines = [line.replace(f"tables-{len(texts)}", "tables").split("file = ")[0] for line in module.splitlines()]
        texts.append(("\n".join(lines), (tables / "tables.safetensors").read_bytes()))
    assert texts[0] == texts[1]


def test_a_model_cache(tmp_path):
    """A directory of links into a store, as the hub's cache has them; the artifact beside it finds its weights."""
    store, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    store.mkdir()
    snapshot.mkdir(parents=True)
    for path in (FOLDER / "qwen2").iterdir():
        shutil.copy(path, store / f"{path.name}-blob")
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}-blob")
    ids, reference = expected("qwen2")
    prompts = helix.write_prompts(tmp_path / "prompts.jsonl", ids)
    ours = logits(snapshot, prompts, tmp_path / "model.hlx", 1, 1, len(ids), 96)
    assert helix.error(ours, reference) <= 1e-5


def test_beside_its_own_weights(tmp_path):
    """DIR/model.hlx and its tables leave DIR/model.safetensors alone, also where the model is an ONNX one beside it."""
    folder = copy("llama3", tmp_path / "llama3")
    before = (folder / "model.safetensors").read_bytes()
    helix.tool("helix-compile", folder, "-o", folder / "model.hlx")
    assert (folder / "model.safetensors").read_bytes() == before
    tables = (folder / "model.tables.safetensors").read_bytes()
    # What fails after the import leaves all as it was.
    names = sorted(path.name for path in folder.iterdir())
    done = helix.tool("helix-compile", folder, "-o", folder / "model.hlx", "--max-context", 32, "--tpa", 3, check=False)
    assert done.returncode != 0 and "HLX2" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "model.tables.safetensors").read_bytes() == tables
    (folder / "model.onnx").write_bytes(forms.Form(rope="computed").model().SerializeToString())
    helix.tool("helix-compile", folder / "model.onnx", "-o", folder / "model.hlx", "--max-context", 32)
    assert (folder / "model.safetensors").read_bytes() == before
    helix.tool("helix-compile", f"{folder}/", "--kvp", 2)
    assert (tmp_path / "llama3.hlx").exists()
