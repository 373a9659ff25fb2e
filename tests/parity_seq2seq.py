"""Cases of encoder-decoders for `parity.py`: every head, every variant switched on somewhere."""

from tests.parity import Case

T5 = {
    "vocab_size": 61, "d_model": 24, "d_kv": 6, "d_ff": 37, "num_layers": 2, "num_heads": 3, "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 10, "layer_norm_epsilon": 1e-4,
}  # fmt: skip
GATED = {**T5, "feed_forward_proj": "gated-gelu", "num_decoder_layers": 3, "d_kv": 10, "relative_attention_max_distance": 7}
BART = {
    "vocab_size": 61, "d_model": 24, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 3, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 37, "decoder_ffn_dim": 31, "max_position_embeddings": 40, "init_std": 0.2,
}  # fmt: skip
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
SINUSOIDS = {**BART, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}

CASES = [
    Case("t5", "seq2seq-lm", T5),
    Case("t5", "seq2seq-lm", {**GATED, "tie_word_embeddings": False}, "1.1", padding="left", own_head=True),
    Case("t5", "seq2seq-lm", {**GATED, "feed_forward_proj": "gated-silu", "tie_word_embeddings": False}, "tied, not scaled"),
    Case("t5", "features", GATED, padding="left"),
    Case("mt5", "seq2seq-lm", GATED, own_head=True),
    Case("mt5", "features", {**T5, "feed_forward_proj": "relu"}),
    Case("bart", "seq2seq-lm", {**BART, **ENDS, "scale_embedding": True}),
    Case("bart", "features", {**BART, **ENDS}, padding="none"),
    Case("bart", "sequence-classification", {**BART, **ENDS, "num_labels": 5}),
    Case("bart", "question-answering", {**BART, **ENDS, "scale_embedding": True}),
    Case("mbart", "seq2seq-lm", {**BART, **ENDS, "scale_embedding": True}),
    Case("mbart", "sequence-classification", {**BART, **ENDS, "num_labels": 4}),
    Case("mbart", "question-answering", {**BART, **ENDS}),
    Case("mbart", "features", {**BART, **ENDS, "activation_function": "relu"}),
    Case("marian", "seq2seq-lm", {**SINUSOIDS, "scale_embedding": True, "activation_function": "swish"}),
    Case("marian", "seq2seq-lm", {**SINUSOIDS, "share_encoder_decoder_embeddings": False, "decoder_vocab_size": 47}, "two tables"),
    Case("marian", "features", {**SINUSOIDS, "d_model": 36}),
    Case("pegasus", "seq2seq-lm", {**SINUSOIDS, "scale_embedding": True, "activation_function": "relu"}),
    Case("pegasus", "features", {**SINUSOIDS, "decoder_layers": 2}),
]
