"""Writes README.md: which fixtures there are, and which ops with which attributes the exporters wrote in them."""

import collections
import json
import pathlib

import onnx
from onnx import helper

HERE = pathlib.Path(__file__).resolve().parent

INTRODUCTION = """\
# Model fixtures

Written by overview.py from the files themselves; `test/e2e/test_public.py` fails if it is not current.

Small decoders with random weights and sharpened attention (normalised entropy at most 0.6), so that a broken cache, mask
or merge shows in the logits. `scripts/fixtures.sh [NAME...]` writes them anew, from transformers configurations alone:
export.py the Llama models of the exactness tests (genai model builder, f32) and the trained `needle`, export_public.py
those of other architectures and exporters. Versions are pinned in requirements.txt and requirements-optimum.txt.
checkpoints.py those of Hugging Face in checkpoints/, as transformers saves them, each with the logits that it must give.
fixtures.json lists what was measured; `error` below is ONNX Runtime's distance from the PyTorch model, max|a - b| /
max|b| over the logits, with arithmetic in f32 on the weights as stored.

## What to know of the exporters

- **genai** (onnxruntime-genai's model builder). Opset 22 and com.microsoft; every initializer external; caches grow.
  f32 and int4 for the CPU, and f16 for CUDA (`llama3-genai-f16`), use GroupQueryAttention with the rope fused, except
  where norms stand between: then Q, K and V are split first. f16 for the CPU (`-mha`) has RotaryEmbedding, repeated KV
  heads and MultiHeadAttention (`unidirectional` 0) with an additive mask built from attention_mask. int4 is symmetric
  (`llama3-genai-int4`, 8 is zero) or has zero points (`qwen2-genai-int4`).
- Its layers with a sliding window get **bounded caches** by default (`gemma2-genai-bounded`; `sliding_window_cache` 1,
  past and present are equally long); `windowed_kv_cache=False` gives growing ones.
- It ignores Mistral's `sliding_window` unless the configuration has `layer_types` too, as here.
- Longrope (`phi3-long-genai`) is an `If` on the length, with the tables as Constants in its branches.
- **mobius** (mobius-onnx). Opset 24; standard Attention (3-D operands, `is_causal` 1, a boolean mask from attention_mask,
  past and present), RotaryEmbedding, RMSNormalization; com.microsoft's Skip ops come with a function body each. Static
  caches: TensorScatter, and Attention with `nonpad_kv_seqlen`.
- **torch** (torch.onnx, dynamo). Opset 23 has Attention (4-D, `is_causal` 0), RotaryEmbedding and RMSNormalization; below
  all of it is decomposed. Masks are built from positions and attention_mask with Range, comparisons, And and GatherND;
  KV heads are repeated by Expand and Reshape; rotary tables are computed from position_ids by Cos and Sin. Stack traces
  in its node metadata were removed, nothing else.
- **optimum** (optimum-onnx, TorchScript). Opset 18, decomposed, constants as nodes, weights inside the protobuf.

## What is missing, and why

- genai has no Falcon, GPT-NeoX, GPT-2, OLMo 2 or BLOOM. Its Qwen3 for CUDA in f16 gives GroupQueryAttention the weights
  of the QK norm, which ONNX Runtime does not run on the CPU, so there is no reference for it.
- mobius drops a uniform sliding window (Mistral) outside CUDA and DirectML, with a warning.
- transformers has no sdpa for Gemma 2, so torch.onnx has nothing to turn into Attention. Falcon's ALiBi multiplies in
  bf16, which ONNX Runtime does not do on the CPU; BLOOM stands for ALiBi.
- optimum 2.1 needs transformers below 4.58, which has no `rope_parameters`: Llama 3's and Gemma 3's rope are left out.

## Fixtures
"""


def nodes_of(graph):
    """The nodes of a graph and of its subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes_of(attribute.g)


def op_name(node):
    return node.op_type if not node.domain else f"{node.domain}.{node.op_type}"


def shown(attribute):
    """name value, with tensors and graphs left out."""
    value = helper.get_attribute_value(attribute)
    if attribute.type in (onnx.AttributeProto.TENSOR, onnx.AttributeProto.GRAPH):
        return attribute.name
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, float):
        value = f"{value:g}"
    return f"{attribute.name} {value}" if not isinstance(value, list) else f"{attribute.name} {list(value)}"


def inputs(graph):
    """The graph's inputs beside input_ids, caches as one."""
    names = [value.name for value in graph.input if value.name != "input_ids"]
    kinds = ["static caches" if n.split(".")[0].endswith("_cache") else "caches" if "." in n else n for n in names]
    return ", ".join(dict.fromkeys(kinds))


def overview():
    listing = json.loads((HERE / "fixtures.json").read_text())
    lines = [INTRODUCTION]
    lines += ["| fixture | what is in it | opset | weights | inputs | kB | error |", "|---|---|---|---|---|---|---|"]
    models = {}
    for name, line in listing.items():
        size = sum(path.stat().st_size for path in (HERE / name).glob("model.onnx*")) / 1000
        models[name] = onnx.load(HERE / name / "model.onnx", load_external_data=False)
        opset = next(o.version for o in models[name].opset_import if o.domain in ("", "ai.onnx"))
        features = line.get("features", f"Llama, {line['heads']} query and {line['kv_heads']} KV heads of {line['head_dim']}")
        lines.append(
            f"| {name} | {features} | {opset} | {line.get('weights', 'f32')} | {inputs(models[name].graph)} "
            f"| {size:.0f} | {line['ort_error']:.1e} |"
        )
    exporters = dict.fromkeys(line["exporter"] for line in listing.values() if "exporter" in line)
    for exporter in exporters:
        names = [name for name, line in listing.items() if line.get("exporter") == exporter]
        lines += table(exporter, {name: models[name] for name in names})
    return "\n".join(lines) + "\n"


def table(exporter, models):
    """Ops by fixture of one exporter, how often each; then the attributes that they have."""
    counts = {name: collections.Counter(map(op_name, nodes_of(m.graph))) for name, m in models.items()}
    ops = sorted(set().union(*counts.values()), key=lambda op: op.split(".")[-1])
    short = {name: name.replace(f"-{exporter}", " ", 1).replace(" -", " ").strip() for name in models}
    lines = [f"\n## Ops: {exporter}\n", "| op | " + " | ".join(short.values()) + " |", "|---" * (len(models) + 1) + "|"]
    for op in ops:
        lines.append(f"| {op} | " + " | ".join(str(counts[name][op] or "") for name in models) + " |")
    functions = sorted({f"{f.domain}.{f.name}" for m in models.values() for f in m.functions})
    if functions:
        lines.append("\nModel-local functions: " + ", ".join(functions) + ".")
    lines.append("\nAttributes, each set that occurs:\n")
    for op in ops:
        sets = collections.defaultdict(dict)
        for name, model in models.items():
            for node in nodes_of(model.graph):
                if op_name(node) == op and node.attribute:
                    sets["; ".join(sorted(map(shown, node.attribute)))][short[name]] = None
        for text, where in sorted(sets.items()):
            who = "all" if len(where) == len(models) else ", ".join(where)
            lines.append(f"- {op}: {text} ({who})")
    return lines


if __name__ == "__main__":
    (HERE / "README.md").write_text(overview())
