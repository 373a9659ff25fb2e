"""Summarization from scratch: a small encoder-decoder learns one-line synopses of Debian's package descriptions.

    python -m jaxlm.train configs/summarization.py data.source=train.tsv.gz data.validation_source=valid.tsv.gz data.test_source=test.tsv.gz
    python -m jaxlm.evaluate runs/summarization --split test --num-beams 4

A line is a text, a tab and its summary. Sets of TFDS are known, as in data.source=tfds:cnn_dailymail data.validation_source=\\
tfds:cnn_dailymail@validation 'records.columns=()' with data.sequence_length=512 data.target_length=128. To start from a model that was
pretrained, here or elsewhere, as `run_summarization_flax.py` did: model=none pretrained=runs/t5_span, or a T5's or BART's folder
(records.prefix='summarize: ' for a T5).
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Loss, Optimizer, Records, Run, Tokenizer
from jaxlm.models import transformer

config = Run(
    model=transformer.Config(
        vocab_size=None,
        d_model=256,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        norm="pre",
        max_position_embeddings=512,
        dropout=0.1,
    ),
    task="summarization",
    workdir="runs/summarization",
    epochs=10,
    data=Data(
        source="train.tsv.gz",
        validation_source="valid.tsv.gz",
        test_source="test.tsv.gz",
        sequence_length=160,
        target_length=32,
    ),
    batch_size=42,
    records=Records(columns=(("source", 0), ("target", 1))),
    tokenizer=Tokenizer(kind="unigram", vocab_size=8000),
    loss=Loss(label_smoothing=0.1),
    optimizer=Optimizer(learning_rate=1e-3, schedule="cosine", end=0.02, warmup=400, b2=0.98, eps=1e-9, weight_decay=0.01),
    evaluation=Evaluation(every=1000, generate=200, best="rougeL"),
    checkpoint=Checkpoint(every=1000, keep=3),
)
