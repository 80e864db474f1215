"""Writes docs/models.md: which architectures of which exporters compile, and what of a model each shows.

Every cell is a fixture that test/e2e/test_public.py holds to ONNX Runtime's logits on its meshes, or to the error of
refused.json.
"""

import collections
import json
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "models.md"

TITLES = {
    "llama3": "Llama 3", "qwen2": "Qwen2.5", "qwen3": "Qwen3", "mistral": "Mistral", "phi3": "Phi-3",
    "phi3-long": "Phi-3, long", "gemma2": "Gemma 2", "gemma3": "Gemma 3", "granite": "Granite", "olmo2": "OLMo 2",
    "gpt2": "GPT-2", "gpt-neox": "GPT-NeoX", "falcon": "Falcon", "bloom": "BLOOM",
}
EXPORTERS = {"genai": "onnxruntime-genai", "mobius": "mobius", "torch": "torch.onnx", "optimum": "optimum"}

# A feature, and what a fixture's description or options say where it has it.
FEATURES = {
    "grouped queries": r"\bGQA\b",
    "one KV head": r"\bMQA\b",
    "as many KV as query heads": r"\bMHA\b",
    "packed QKV": r"packed QKV",
    "packed head by head": r"interleaved packed",
    "biases on QKV": r"QKV (with )?bias",
    "norms of queries and keys": r"QK norm",
    "rope, scaled (Llama 3)": r"llama3 rope",
    "rope, LongRoPE": r"longrope",
    "rope on a part of the head": r"rope on a quarter",
    "two rope tables": r"two rope tables",
    "ALiBi": r"ALiBi",
    "learned positions": r"learned positions",
    "sliding window": r"window of",
    "softcap": r"softcap",
    "LayerNorm": r"LayerNorm",
    "post-norms": r"post-norms",
    "parallel block": r"parallel block",
    "multipliers": r"multipliers|scaled embedding",
    "packed gate and up": r"packed QKV and gate/up",
    "FFN without a gate": r"(?<!gated )\bgelu",
    "tied embeddings": r"\btied\b",
    "weights in f16": r"weights f16",
    "weights in 4 bits": r"weights int4",
    "caches in static buffers": r"static \d+",
    "caches in rings": r"-bounded",
}

INTRODUCTION = """\
# Models that compile

Written by test/models/support.py; `test/e2e/test_public.py` fails if it is not current. A cell names the fixtures of
[test/models](../test/models/README.md) that stand for it: small models with the architecture's every part, written by
the exporter itself. One that is listed compiles, and its logits are ONNX Runtime's to 1e-5 of the largest on (kvp, tpa) =
(1, 1), (2, 1), (4, 1), (3, 1) and, with two KV heads or more, (1, 2), for a ragged batch, prefilled in chunks and decoded
(OLMo 2's norms over all heads allow no tpa above 1, [HLX2010](errors/HLX2010.md)). One that is refused ends in the error
beside it.

An artifact takes neither attention_mask nor position_ids: each sequence of a batch has a length of its own, so the mask
that the model reads is one of ones. Rows that a model takes padded on the left are given without the padding. Whatever
else a model makes of the mask must come out as causal attention, a window of it or a bias per head, or is refused.
"""


def text(name, line):
    """All that is said of a fixture."""
    options = " ".join(f"{key} {value}" for key, value in line["options"].items())
    return f"{name} {line['features']} weights {line['weights']} {options}"


def table(corner, rows, cell):
    lines = [f"| {corner} | " + " | ".join(EXPORTERS.values()) + " |", "|---" * (len(EXPORTERS) + 1) + "|"]
    for row, title in rows:
        lines.append(f"| {title} | " + " | ".join(cell(row, exporter) for exporter in EXPORTERS) + " |")
    return lines


def page():
    listing = {k: v for k, v in json.loads((HERE / "fixtures.json").read_text()).items() if "exporter" in v}
    refused = json.loads((HERE / "refused.json").read_text())
    assert {line["architecture"] for line in listing.values()} == TITLES.keys()

    def show(name):
        return f"{name} ([HLX{refused[name]}](errors/HLX{refused[name]}.md))" if name in refused else name

    of = collections.defaultdict(list)
    for name, line in listing.items():
        of[line["architecture"], line["exporter"]].append(show(name))
        for feature, pattern in FEATURES.items():
            if re.search(pattern, text(name, line)):
                of[feature, line["exporter"]].append(show(name))
    unknown = [feature for feature in FEATURES if not any(key[0] == feature for key in of)]
    assert not unknown, unknown

    def cell(row, exporter):
        return ", ".join(of[row, exporter])

    lines = [INTRODUCTION, "## By architecture\n", *table("architecture", TITLES.items(), cell)]
    lines += ["\n## By feature\n", *table("feature", ((f, f) for f in FEATURES), cell)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
