"""BART from scratch by denoising, as `run_bart_dlm_flax.py` did: a small one on the source and reference of Python's library.

    python -m jaxlm.train configs/bart_denoising.py
    python -c "import jaxlm; from jaxlm.inference.fill_spans import fill_spans; model, params = jaxlm.load('runs/bart_denoising')
    print(fill_spans(model, params, jaxlm.load_tokenizer('runs/bart_denoising'), 'If the file <mask>, an error is raised.'))"

Sentences change places, and 30 % of the tokens go, in spans of 3 on average, for one mask each; the decoder writes the row as it was.
Texts of yours: data.source='texts/*.txt'. Token masking in place of spans: denoising.density=0 denoising.masked=0.15. BART's own
size: model=bart.SIZES["bart-base"]. Then on labelled pairs: pretrained=runs/bart_denoising in the configs of text-to-text tasks.
"""

from jaxlm.config import Checkpoint, Data, Denoising, Evaluation, Optimizer, Run, Tokenizer
from jaxlm.models import bart

LAYERS = {"encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4}

config = Run(
    model=bart.Config(
        vocab_size=None, max_position_embeddings=256, d_model=256, **LAYERS, encoder_ffn_dim=1024, decoder_ffn_dim=1024, dropout=0.0
    ),
    task="denoising",
    workdir="runs/bart_denoising",
    steps=6000,
    batch_size=16,
    data=Data(source="stdlib", sequence_length=256, validation=0.02),
    denoising=Denoising(density=0.3),
    tokenizer=Tokenizer(kind="bpe", vocab_size=8192),
    optimizer=Optimizer(learning_rate=1e-3, schedule="cosine", end=0.1, warmup=500, b2=0.98, weight_decay=0.01),
    evaluation=Evaluation(every=500),
    checkpoint=Checkpoint(every=500, keep=1),
)
