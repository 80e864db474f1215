"""Which fixtures come from which public exporter: name -> (architecture, exporter, options of its `export`)."""

# exporter: the file that calls it
EXPORTERS = {"genai": "with_genai", "mobius": "with_mobius", "torch": "with_torch", "optimum": "with_optimum"}

FIXTURES = {
    "llama3-genai": ("llama3", "genai", {}),
    "qwen2-genai": ("qwen2", "genai", {}),
    "qwen3-genai": ("qwen3", "genai", {}),
    "mistral-genai": ("mistral", "genai", {"windowed_kv_cache": False}),
    "phi3-genai": ("phi3", "genai", {}),
    "phi3-long-genai": ("phi3-long", "genai", {}),
    "gemma2-genai": ("gemma2", "genai", {"windowed_kv_cache": False}),
    "gemma3-genai": ("gemma3", "genai", {"windowed_kv_cache": False}),
    "granite-genai": ("granite", "genai", {}),
    "llama3-genai-f16": ("llama3", "genai", {"precision": "f16", "provider": "cuda"}),
    "llama3-genai-f16-mha": ("llama3", "genai", {"precision": "f16"}),
    "llama3-genai-int4": ("llama3", "genai", {"precision": "int4"}),
    "qwen2-genai-int4": ("qwen2", "genai", {"precision": "uint4"}),
    "llama3-mobius": ("llama3", "mobius", {}),
    "llama3-mobius-static": ("llama3", "mobius", {"static": 96}),
    "qwen3-mobius": ("qwen3", "mobius", {}),
    "gpt2-mobius": ("gpt2", "mobius", {}),
}
