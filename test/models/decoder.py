"""The Llama decoder written out in a few lines of torch, in any precision.

It is what fixtures are measured with: it returns the attention weights beside the logits, and in float64 it is the
reference for ONNX Runtime's error. Hugging Face's own modules cannot be that reference, as their norms compute in
float32 whatever the model's type.
"""

import torch


def decode(model, ids, dtype=torch.float64):
    """Runs one sequence through a LlamaForCausalLM's weights with full causal attention.

    `ids`: int64 [T]. Returns logits [T, vocab] and per layer the attention weights [heads, T, T], both of type
    `dtype`. cos and sin come from the model in float32, as an exported model stores them, and are then widened.
    """
    config = model.config
    weights = {name: weight.to(dtype) for name, weight in model.state_dict().items()}
    tokens, group = len(ids), config.num_attention_heads // config.num_key_value_heads
    cos, sin = (table[0].to(dtype) for table in model.model.rotary_emb(torch.zeros(1), torch.arange(tokens)[None]))
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()

    def norm(x, name):
        return x * (x.square().mean(-1, keepdim=True) + config.rms_norm_eps).rsqrt() * weights[name + ".weight"]

    def heads(x, name):
        return (x @ weights[name + ".weight"].T).view(tokens, -1, config.head_dim).transpose(0, 1)

    def rotate(x):
        low, high = x.chunk(2, -1)
        return x * cos + torch.cat([-high, low], -1) * sin

    x = weights["model.embed_tokens.weight"][ids]
    attention = []
    for layer in range(config.num_hidden_layers):
        name = f"model.layers.{layer}."
        y = norm(x, name + "input_layernorm")
        q, k, v = (heads(y, f"{name}self_attn.{part}_proj") for part in "qkv")
        k, v = rotate(k).repeat_interleave(group, 0), v.repeat_interleave(group, 0)
        scores = rotate(q) @ k.transpose(1, 2) * config.head_dim**-0.5
        attention.append(scores.masked_fill(~causal, -torch.inf).softmax(-1))
        y = (attention[-1] @ v).transpose(0, 1).reshape(tokens, -1)
        x = x + y @ weights[name + "self_attn.o_proj.weight"].T
        y = norm(x, name + "post_attention_layernorm")
        gate, up = (y @ weights[f"{name}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        x = x + torch.nn.functional.silu(gate) * up @ weights[name + "mlp.down_proj.weight"].T
    return norm(x, "model.norm") @ weights["lm_head.weight"].T, attention


def normalised_entropy(attention, first=8):
    """Mean over heads and over positions from `first` of H(weights) / log(visible tokens): 1 uniform, 0 one-hot.

    `attention`: [heads, T, T], rows are positions, row i sees tokens 0..i.
    """
    visible = torch.arange(attention.shape[-1], dtype=attention.dtype) + 1
    entropy = -torch.special.xlogy(attention, attention).sum(-1)
    return (entropy[:, first:] / visible[first:].log()).mean().item()
