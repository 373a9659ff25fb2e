"""Summarization from scratch: a small encoder-decoder learns one-line synopses of Debian's package descriptions.

    python -m jaxlm.train configs/summarization.py data.source=train.tsv.gz data.validation_source=valid.tsv.gz data.test_source=test.tsv.gz
    python -m jaxlm.evaluate runs/summarization --split test --num-beams 4

A line is a text, a tab and its summary. Sets of TFDS are known, as in data.source=tfds:cnn_dailymail data.validation_source=\\
tfds:cnn_dailymail@validation 'records.columns=()' with data.sequence_length=512 data.target_length=128. To start from a model that was
pretrained, here or elsewhere, as `run_summarization_flax.py` did: model=none pretrained=runs/t5_span, or a T5's or BART's folder
(records.prefix='summarize: ' for a T5).

Measured on one core of an EPYC with AVX2, float32, on the 1,089 test pairs: ROUGE-1 40.20 with 4 beams (38.71 to 41.75), ROUGE-2 20.47,
ROUGE-L 37.74, in 96 s; greedily 37.89, 18.50 and 35.69 in 45 s. The first sentence of a description has ROUGE-1 29.2. 3,798 steps, 3 times
through 49,574 pairs, a third of them cut to 96 tokens, in 1 hour 53 minutes beside other work, at 1,860 tokens/s. Validation ROUGE-1 of 200
summaries, greedy, after 600, 1,200, 1,800, 2,400, 3,000, 3,600 and 3,798 steps: 14.9, 26.1, 30.3, 34.3, 37.2, 38.0, 38.7. Of the first test
pairs:

    ref.  Binding for the OpenGL Utility Toolkit
    ours  Haskell binding for the OpenGL toolkit
    ref.  syntax highlighting of source code snippets in an html page
    ours  CSS module for syntax highlighting
    ref.  vine Python promises documentation
    ours  promise implementation for Python (Documentation)
    ref.  Process monitoring daemon
    ours  Apache miscellaneous unlocker
    ref.  Haskell desktop notifications
    ours  Haskell library for using the desktop notifications
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
    epochs=3,
    data=Data(
        source="train.tsv.gz",
        validation_source="valid.tsv.gz",
        test_source="test.tsv.gz",
        sequence_length=96,
        target_length=32,
        packing="buckets",
        batch_tokens=4096,
    ),
    records=Records(columns=(("source", 0), ("target", 1))),
    tokenizer=Tokenizer(kind="unigram", vocab_size=8000),
    loss=Loss(label_smoothing=0.1),
    optimizer=Optimizer(learning_rate=1e-3, schedule="cosine", end=0.02, warmup=400, b2=0.98, eps=1e-9, weight_decay=0.01),
    evaluation=Evaluation(every=600, generate=200, best="rougeL"),
    checkpoint=Checkpoint(every=300, keep=3),
)
