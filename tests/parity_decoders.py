"""Cases of decoders for `parity.py`: every head, every variant switched on somewhere."""

from tests.parity import Case

GPT2 = {"vocab_size": 61, "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 3, "initializer_range": 0.2, "layer_norm_epsilon": 1e-4}

CASES = [
    Case("gpt2", "causal-lm", GPT2),
    Case("gpt2", "causal-lm", {**GPT2, "tie_word_embeddings": False, "n_inner": 31}, "untied", padding="left"),
    Case("gpt2", "features", {**GPT2, "activation_function": "relu"}),
    Case("gpt2", "sequence-classification", {**GPT2, "num_labels": 5, "pad_token_id": 0}),
]
