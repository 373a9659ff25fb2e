"""Cases of encoders for `parity.py`: every head, every variant switched on somewhere."""

from tests.parity import Case

BERT = {
    "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 37,
    "max_position_embeddings": 40, "layer_norm_eps": 1e-6, "initializer_range": 0.2,
}  # fmt: skip

CASES = [
    Case("bert", "features", BERT),
    Case("bert", "masked-lm", BERT, padding="left"),
    Case("bert", "pretraining", {**BERT, "hidden_act": "relu"}),
    Case("bert", "next-sentence", BERT),
    Case("bert", "sequence-classification", {**BERT, "num_labels": 5}),
    Case("bert", "token-classification", {**BERT, "num_labels": 3}),
    Case("bert", "question-answering", BERT),
    Case("bert", "multiple-choice", BERT),
    Case("bert", "causal-lm", {**BERT, "is_decoder": True}),
]
