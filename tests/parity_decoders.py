"""Cases of decoders for `parity.py`: every head, every variant switched on somewhere."""

from tests.parity import Case

GPT2 = {"vocab_size": 61, "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 3, "initializer_range": 0.2, "layer_norm_epsilon": 1e-4}
LLAMA = {
    "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 40, "rms_norm_eps": 1e-4, "initializer_range": 0.2,
}  # fmt: skip
LABELS = {"num_labels": 5, "pad_token_id": 0}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "beta_fast": 4, "truncate": False}
BIASED = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "num_key_value_heads": None}
WINDOWS = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}
EXPERTS = {"num_local_experts": 5, "num_experts_per_tok": 2}
NEOX = {key: value for key, value in LLAMA.items() if key not in ("num_key_value_heads", "rms_norm_eps")} | {"layer_norm_eps": 1e-4}
OPT = {
    "vocab_size": 61, "hidden_size": 24, "ffn_dim": 37, "num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": 40,
    "init_std": 0.2,
}  # fmt: skip
NARROW = {"word_embed_proj_dim": 14, "do_layer_norm_before": False}
GEMMA = {**LLAMA, "num_hidden_layers": 3, "head_dim": 10, "sliding_window": 4, "query_pre_attn_scalar": 7, "pad_token_id": None}
CAPS = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
}

CASES = [
    Case("gpt2", "causal-lm", GPT2),
    Case("gpt2", "causal-lm", {**GPT2, "tie_word_embeddings": False, "n_inner": 31}, "untied", padding="left"),
    Case("gpt2", "features", {**GPT2, "activation_function": "relu"}),
    Case("gpt2", "sequence-classification", {**GPT2, **LABELS}),
    Case("llama", "causal-lm", {**LLAMA, "rope_scaling": LLAMA3, "rope_theta": 100.0}, "llama3", padding="left"),
    Case("llama", "causal-lm", {**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}, **BIASED}, "tied linear biases"),
    Case("llama", "causal-lm", {**LLAMA, "rope_scaling": YARN, "head_dim": 10}, "yarn head_dim"),
    Case("llama", "features", {**LLAMA, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 8}, "dynamic"),
    Case("llama", "sequence-classification", {**LLAMA, **LABELS}),
    Case("mistral", "causal-lm", {**LLAMA, "sliding_window": None}, "no window"),
    Case("mistral", "causal-lm", {**LLAMA, "sliding_window": 4, "head_dim": 10, "rope_theta": 50.0}, "window", padding="left"),
    Case("mistral", "features", {**LLAMA, "tie_word_embeddings": True, "sliding_window": 4}, "tied"),
    Case("mistral", "sequence-classification", {**LLAMA, **LABELS, "sliding_window": 5}),
    Case("mixtral", "causal-lm", {**LLAMA, **EXPERTS}, padding="left"),
    Case("mixtral", "features", {**LLAMA, **EXPERTS, "num_experts_per_tok": 3, "sliding_window": 4}, "three window"),
    Case("mixtral", "sequence-classification", {**LLAMA, **LABELS, **EXPERTS, "num_experts_per_tok": 1}, "one"),
    Case("qwen2", "causal-lm", {**LLAMA, **WINDOWS, "rope_theta": 50.0}, "windows above", padding="left"),
    Case("qwen2", "features", {**LLAMA, **WINDOWS, "layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
    Case("qwen2", "sequence-classification", {**LLAMA, **LABELS, "tie_word_embeddings": True}),
    Case("qwen3", "causal-lm", {**LLAMA, **WINDOWS, "head_dim": 10, "attention_bias": True}, "windows biases", padding="left"),
    Case("qwen3", "features", {**LLAMA, "head_dim": 8, "tie_word_embeddings": True, "rope_scaling": YARN}, "yarn tied"),
    Case("qwen3", "sequence-classification", {**LLAMA, **LABELS, "head_dim": 6}),
    Case("gpt_neox", "causal-lm", {**NEOX, "rotary_pct": 0.7, "rotary_emb_base": 50}, "parallel", padding="left"),
    Case("gpt_neox", "causal-lm", {**NEOX, "use_parallel_residual": False, "attention_bias": False, "tie_word_embeddings": True}, "tied"),
    Case("gpt_neox", "features", {**NEOX, "rope_scaling": {"rope_type": "linear", "factor": 3.0}, "hidden_act": "gelu_fast"}, "linear"),
    Case("gpt_neox", "sequence-classification", {**NEOX, **LABELS, "rotary_pct": 1.0}),
    Case("opt", "causal-lm", OPT, "pre-norm", padding="left"),
    Case("opt", "causal-lm", {**OPT, **NARROW, "tie_word_embeddings": False}, "post-norm narrow untied"),
    Case("opt", "features", {**OPT, "_remove_final_layer_norm": True, "enable_bias": False, "activation_function": "gelu"}, "no last norm"),
    Case("opt", "sequence-classification", {**OPT, **NARROW, **LABELS, "do_layer_norm_before": True}, "narrow"),
    Case("gemma2", "causal-lm", {**GEMMA, **CAPS}, "caps windows", padding="left"),
    Case("gemma2", "causal-lm", {**GEMMA, "attention_bias": True, "tie_word_embeddings": False, "final_logit_softcapping": None}, "untied"),
    Case(
        "gemma2", "features", {**GEMMA, **CAPS, "layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}, "layer_types"
    ),
    Case("gemma2", "sequence-classification", {**GEMMA, **CAPS, **LABELS}),
    Case("gemma3_text", "causal-lm", {**GEMMA, "rope_parameters": ROPES, "sliding_window_pattern": 2}, "two bases", padding="left"),
    Case("gemma3_text", "causal-lm", {**GEMMA, **CAPS, "attn_logit_softcapping": None, "tie_word_embeddings": False}, "cap untied"),
    Case(
        "gemma3_text", "features", {**GEMMA, "rope_theta": 300.0, "rope_local_base_freq": 30.0, "layer_types": ["full_attention"] * 3}, "v4"
    ),
    Case("gemma3_text", "sequence-classification", {**GEMMA, **LABELS, "sliding_window_pattern": 3}),
]
