"""The decoders of the fixtures from public exporters: small, random, with sharpened attention, one per architecture.

Everything comes from a transformers configuration; nothing is fetched. `make` gives a model whose weights are drawn as
export.py says: every part of the network matters to the logits, and each layer's attention is sharpened until its
normalised entropy is ENTROPY. Windows are shorter and thresholds lower than the 96 tokens of the tests, so that they
matter too.

The file runs with the transformers 5 of requirements.txt and with the 4.57 that optimum needs.
"""

import copy

import torch
import transformers

SEED = 20250707
ENTROPY = 0.55  # the most that tests rely on is 0.6
LENGTH = 96  # tokens of the sequences that fixtures are measured on
FIRST = 8  # entropy is averaged from this position on
ROPE_IN_ONE_PLACE = transformers.__version__ >= "5"

# The sizes of most of them.
COMMON = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 160,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LOCAL_AND_GLOBAL = ["sliding_attention", "full_attention"]

# name: class, arguments of its configuration beside COMMON (None takes a common one away), what it is there for.
ARCHITECTURES = {
    "llama3": ("Llama", {"rope_parameters": LLAMA3_ROPE}, "GQA, llama3 rope scaling"),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}, "GQA, QKV bias, tied embedding"),
    "qwen3": ("Qwen3", {}, "GQA, QK norm per head"),
    "mistral": ("Mistral", {"sliding_window": 24, "layer_types": ["sliding_attention"] * 2}, "GQA, sliding window of 24"),
    "phi3": ("Phi3", {"original_max_position_embeddings": 256}, "GQA, packed QKV and gate/up"),
    "phi3-long": (
        "Phi3",
        {
            "original_max_position_embeddings": 64,
            "rope_parameters": {
                "rope_type": "longrope",
                "type": "longrope",
                "rope_theta": 10000.0,
                "original_max_position_embeddings": 64,
                "short_factor": [1.0 + 0.02 * i for i in range(8)],
                "long_factor": [1.0 + 0.5 * i for i in range(8)],
            },
        },
        "GQA, packed QKV and gate/up, longrope: other tables beyond 64 tokens",
    ),
    "gemma2": (
        "Gemma2",
        {
            "tie_word_embeddings": True,
            "attn_logit_softcapping": 8.0,
            "final_logit_softcapping": 15.0,
            "query_pre_attn_scalar": 16,
            "sliding_window": 24,
            "layer_types": LOCAL_AND_GLOBAL,
        },
        "GQA, softcaps on attention and logits, post-norms, scaled embedding, alternating window of 24, gated gelu (tanh), tied",
    ),
    "gemma3": (
        "Gemma3",
        {
            "tie_word_embeddings": True,
            "query_pre_attn_scalar": 16,
            "sliding_window": 24,
            "layer_types": LOCAL_AND_GLOBAL,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
            },
        },
        "GQA, QK norm, post-norms, scaled embedding, alternating window of 24 with two rope tables, gated gelu (tanh), tied",
    ),
    "granite": (
        "Granite",
        {
            "embedding_multiplier": 6.0,
            "attention_multiplier": 0.125,
            "residual_multiplier": 0.375,
            "logits_scaling": 0.5,
        },
        "GQA, multipliers on embedding, scores, residuals and logits",
    ),
    "olmo2": ("Olmo2", {}, "GQA, QK norm over the whole projection, post-norms only"),
    "gpt-neox": (
        "GPTNeoX",
        {"num_key_value_heads": None, "rms_norm_eps": None, "head_dim": None, "rotary_pct": 0.25},
        "MHA, interleaved packed QKV with bias, parallel block with two LayerNorms, rope on a quarter of the head, gelu",
    ),
    "falcon": (
        "Falcon",
        {"rms_norm_eps": None, "intermediate_size": None, "head_dim": None, "num_key_value_heads": None,
         "multi_query": True, "parallel_attn": True, "new_decoder_architecture": False, "alibi": False, "bias": False,
         "ffn_hidden_size": 96, "tie_word_embeddings": True},
        "MQA, packed QKV, parallel block with one LayerNorm, gelu, tied",
    ),
    "bloom": (
        "Bloom",
        {"rms_norm_eps": None, "intermediate_size": None, "head_dim": None, "num_key_value_heads": None,
         "max_position_embeddings": None, "tie_word_embeddings": True},
        "MHA, interleaved packed QKV with bias, ALiBi, LayerNorm (of the embedding too), gelu (tanh), tied",
    ),
    "gpt2": (
        "GPT2",
        {"rms_norm_eps": None, "head_dim": None, "num_key_value_heads": None, "intermediate_size": None, "n_inner": 96,
         "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "tie_word_embeddings": True},
        "MHA, packed QKV with bias, LayerNorm, learned positions, gelu (tanh), tied",
    ),
}


def make_config(name):
    kind, extra, _ = ARCHITECTURES[name]
    arguments = {key: value for key, value in {**COMMON, **extra}.items() if value is not None}
    config_name = "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config"
    if not ROPE_IN_ONE_PLACE and "rope_parameters" in arguments:
        raise SystemExit(f"{name}: transformers {transformers.__version__} has no rope_parameters")
    config = getattr(transformers, config_name)(**arguments)
    config.architectures = ["GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"]
    return config


def is_norm(name):
    return "norm" in name or ".ln_" in name


@torch.no_grad()
def randomise(model, generator):
    """Draws weights such that every part of the model matters to the logits."""
    tied = model.config.tie_word_embeddings
    head = model.get_output_embeddings().weight
    table = model.get_input_embeddings().weight
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if is_norm(name):
            # Gemma's norms multiply by one more than their weight.
            centre = 0.0 if name.endswith("bias") or model.config.model_type.startswith("gemma") else 1.0
            weight.copy_(centre + 0.25 * noise)
        elif name.endswith("bias"):
            weight.copy_(0.5 * noise)
        elif weight is head:
            weight.copy_(noise * (3 / weight.shape[1] ** 0.5))
        elif weight is table or "wpe" in name:
            weight.copy_(noise)
        else:
            transposed = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))  # GPT-2's are [in, out]
            weight.copy_(noise / weight.shape[0 if transposed else 1] ** 0.5)
    assert not tied or head is table


def layers(model):
    """The decoder layers of any of the architectures."""
    body = model.base_model
    return body.layers if hasattr(body, "layers") else body.h


def heads_and_width(config):
    """Query heads, KV heads and the width of one."""
    heads = config.num_attention_heads
    kv_heads = 1 if getattr(config, "multi_query", False) else getattr(config, "num_key_value_heads", None) or heads
    return heads, kv_heads, getattr(config, "head_dim", None) or config.hidden_size // heads


def query_and_key(model, layer):
    """Views of the parameters that scale a layer's scores: [(view, what is added to it before use)]."""
    config = model.config
    attention = next(m for n, m in layer.named_children() if n in ("self_attn", "attention", "self_attention", "attn"))
    heads, kv_heads, width = heads_and_width(config)
    if hasattr(attention, "q_norm"):
        offset = 1.0 if config.model_type.startswith("gemma") else 0.0
        return [(attention.q_norm.weight, offset), (attention.k_norm.weight, offset)]
    if hasattr(attention, "q_proj"):
        parameters = [*attention.q_proj.parameters(), *attention.k_proj.parameters()]
        return [(p, 0.0) for p in parameters]
    if hasattr(attention, "qkv_proj"):
        return [(attention.qkv_proj.weight[: (heads + kv_heads) * width], 0.0)]
    if hasattr(attention, "c_attn"):
        return [(p[..., : 2 * heads * width], 0.0) for p in attention.c_attn.parameters()]
    parameters = attention.query_key_value.parameters()
    if kv_heads == 1:
        return [(p[: (heads + 1) * width], 0.0) for p in parameters]
    return [(p.view(heads, 3, width, *p.shape[1:])[:, :2], 0.0) for p in parameters]


def windows(config):
    """The sliding window of each layer, None for full attention."""
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None) or [None] * config.num_hidden_layers
    return [window if kind in ("sliding_attention", None) else None for kind in types]


@torch.no_grad()
def entropies(model, sequences):
    """Normalised attention entropy of each layer, averaged over sequences, heads and positions from FIRST on."""
    attentions = model(sequences, output_attentions=True, use_cache=False).attentions
    result = []
    for attention, window in zip(attentions, windows(model.config), strict=True):
        visible = torch.arange(attention.shape[-1]) + 1
        visible = visible if window is None else visible.clamp(max=window)
        assert ((attention > 0).sum(-1) <= visible).all(), "attention beyond the window"
        entropy = -torch.special.xlogy(attention.double(), attention.double()).sum(-1)
        result.append((entropy[..., FIRST:] / visible[FIRST:].double().log()).mean().item())
    return result


@torch.no_grad()
def sharpen(model, sequences):
    """Scales each layer's queries and keys up, first layer first, until its attention has entropy ENTROPY."""
    for index, layer in enumerate(layers(model)):
        views = query_and_key(model, layer)
        original = [view.clone() + offset for view, offset in views]

        def entropy(scale):
            for (view, offset), start in zip(views, original):
                view.copy_(start * scale - offset)
            return entropies(model, sequences)[index]

        # With a softcap entropy grows again where the cap is reached, so the first crossing is looked for in steps.
        high = 1.0  # never blunter than it was
        while entropy(high) > ENTROPY:
            high *= 1.1
            if high > 16:
                raise SystemExit(f"layer {index} cannot be sharpened")
        low = high / 1.1
        for _ in range(12 if high > 1 else 0):
            scale = (low + high) / 2
            low, high = (low, scale) if entropy(scale) < ENTROPY else (scale, high)
        entropy(high)


def build(config, attention):
    """An untrained model of the configuration in float32 with that implementation of attention, eager or sdpa."""
    return transformers.AutoModelForCausalLM.from_config(
        copy.deepcopy(config), attn_implementation=attention, dtype=torch.float32
    ).eval()


def make(name):
    """A sharpened model of the architecture, and the sequences that it was sharpened on, int64 [4, LENGTH].

    Its attention is eager, the implementation that returns the weights; `twin` gives the same model with another.
    """
    generator = torch.Generator().manual_seed(SEED)
    model = build(make_config(name), "eager")
    randomise(model, generator)
    sequences = torch.randint(model.config.vocab_size, (4, LENGTH), generator=generator)
    sharpen(model, sequences)
    return model, sequences


def twin(model, attention):
    """The same model with another implementation of attention."""
    other = build(model.config, attention)
    other.load_state_dict(model.state_dict())
    return other
