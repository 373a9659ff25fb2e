"""Cases of encoders for `parity.py`: every head, every variant switched on somewhere."""

from tests.parity import Case

BERT = {
    "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 37,
    "max_position_embeddings": 40, "layer_norm_eps": 1e-6, "initializer_range": 0.2,
}  # fmt: skip
ROBERTA = {**BERT, "max_position_embeddings": 16, "type_vocab_size": 1, "pad_token_id": 2}  # as long as 12 tokens can be, and one more
TYPED = {**ROBERTA, "type_vocab_size": 2, "pad_token_id": 1}
DISTILBERT = {
    "vocab_size": 61, "dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 37, "max_position_embeddings": 40,
    "initializer_range": 0.2,
}  # fmt: skip
NARROW = {**BERT, "embedding_size": 10}
GROUPS = {**NARROW, "num_hidden_layers": 2, "num_hidden_groups": 2, "inner_group_num": 2}
MODERN = {
    "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 18,
    "max_position_embeddings": 40, "initializer_range": 0.2, "local_attention": 6, "norm_eps": 1e-6, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
}  # fmt: skip
BIASED = {**MODERN, "norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True}
KINDS = {"layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]}
ROTARY = {"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}, "sliding_attention": {"rope_theta": 20.0}}

CASES = [
    Case("bert", "features", BERT),
    Case("bert", "masked-lm", BERT, padding="left"),
    Case("bert", "masked-lm", {**BERT, "tie_word_embeddings": False}, "untied"),
    Case("bert", "pretraining", {**BERT, "hidden_act": "relu"}),
    Case("bert", "next-sentence", BERT),
    Case("bert", "sequence-classification", {**BERT, "num_labels": 5}),
    Case("bert", "token-classification", {**BERT, "num_labels": 3}),
    Case("bert", "question-answering", BERT),
    Case("bert", "multiple-choice", BERT),
    Case("bert", "causal-lm", {**BERT, "is_decoder": True}),
    Case("roberta", "features", ROBERTA),
    Case("roberta", "masked-lm", {**TYPED, "hidden_act": "relu"}, padding="left"),
    Case("roberta", "masked-lm", {**ROBERTA, "tie_word_embeddings": False}, "untied"),
    Case("roberta", "sequence-classification", {**TYPED, "num_labels": 3}),
    Case("roberta", "token-classification", {**ROBERTA, "num_labels": 4}, padding="left"),
    Case("roberta", "question-answering", ROBERTA),
    Case("roberta", "multiple-choice", TYPED),
    Case("roberta", "causal-lm", {**ROBERTA, "is_decoder": True}, padding="left"),
    Case("xlm-roberta", "features", TYPED),
    Case("xlm-roberta", "masked-lm", ROBERTA),
    Case("xlm-roberta", "sequence-classification", ROBERTA),
    Case("xlm-roberta", "token-classification", ROBERTA),
    Case("xlm-roberta", "question-answering", ROBERTA, padding="left"),
    Case("xlm-roberta", "multiple-choice", ROBERTA),
    Case("xlm-roberta", "causal-lm", {**ROBERTA, "is_decoder": True}),
    Case("roberta-prelayernorm", "features", ROBERTA),
    Case("roberta-prelayernorm", "masked-lm", {**TYPED, "hidden_act": "gelu_new"}, padding="left"),
    Case("roberta-prelayernorm", "sequence-classification", {**ROBERTA, "num_labels": 3}),
    Case("roberta-prelayernorm", "token-classification", ROBERTA),
    Case("roberta-prelayernorm", "question-answering", ROBERTA),
    Case("roberta-prelayernorm", "multiple-choice", ROBERTA),
    Case("roberta-prelayernorm", "causal-lm", {**ROBERTA, "is_decoder": True, "tie_word_embeddings": False}, "untied"),
    Case("distilbert", "features", DISTILBERT, padding="left"),
    Case("distilbert", "masked-lm", {**DISTILBERT, "activation": "relu"}),
    Case("distilbert", "masked-lm", {**DISTILBERT, "tie_word_embeddings": False}, "untied", padding="left"),
    Case("distilbert", "sequence-classification", {**DISTILBERT, "num_labels": 3}),
    Case("distilbert", "token-classification", DISTILBERT),
    Case("distilbert", "question-answering", DISTILBERT),
    Case("distilbert", "multiple-choice", DISTILBERT),
    Case("electra", "features", BERT | {"embedding_size": 24}, "wide"),
    Case("electra", "masked-lm", {**NARROW, "hidden_act": "relu"}, padding="left"),
    Case("electra", "masked-lm", {**NARROW, "tie_word_embeddings": False}, "untied"),
    Case("electra", "pretraining", {**NARROW, "hidden_act": "relu"}),
    Case("electra", "sequence-classification", {**NARROW, "num_labels": 3}),
    Case("electra", "token-classification", NARROW),
    Case("electra", "question-answering", NARROW),
    Case("electra", "multiple-choice", {**NARROW, "summary_activation": "tanh"}),
    Case("electra", "causal-lm", {**NARROW, "is_decoder": True}),
    Case("albert", "features", GROUPS, "groups"),
    Case("albert", "masked-lm", NARROW, padding="left"),
    Case("albert", "masked-lm", {**NARROW, "num_hidden_layers": 3, "num_hidden_groups": 2, "tie_word_embeddings": False}, "untied"),
    Case("albert", "pretraining", {**NARROW, "hidden_act": "relu"}),
    Case("albert", "sequence-classification", {**NARROW, "num_labels": 3}),
    Case("albert", "token-classification", NARROW),
    Case("albert", "question-answering", NARROW),
    Case("albert", "multiple-choice", NARROW),
    Case("modernbert", "features", {**MODERN, **KINDS, "rope_parameters": ROTARY}, "scaled", padding="left"),
    Case("modernbert", "masked-lm", BIASED, "biased"),
    Case("modernbert", "masked-lm", {**MODERN, "tie_word_embeddings": False, "decoder_bias": False}, "untied", padding="left"),
    Case("modernbert", "sequence-classification", {**MODERN, "classifier_pooling": "mean", "num_labels": 3}, padding="left"),
    Case("modernbert", "token-classification", {**MODERN, "global_attn_every_n_layers": 2, "global_rope_theta": 99.0}),
    Case("modernbert", "question-answering", {**MODERN, "hidden_activation": "silu", "classifier_activation": "relu"}),
    Case("modernbert", "multiple-choice", MODERN, padding="left"),
]
