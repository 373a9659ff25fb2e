"""BART from scratch by denoising, as `run_bart_dlm_flax.py` did: a small one on the source and reference of Python's library.

    python -m jaxlm.train configs/bart_denoising.py
    python -c "import jaxlm; from jaxlm.inference.fill_spans import fill_spans; model, params = jaxlm.load('runs/bart_denoising')
    text = 'If the file <mask>, an error is raised.'
    print(fill_spans(model, params, jaxlm.load_tokenizer('runs/bart_denoising'), text, num_beams=4))"

Sentences change places, and 30 % of the tokens go, in spans of 3 on average, for one mask each; the decoder writes the row as it was.
Texts of yours: data.source='texts/*.txt'. Token masking in place of spans: denoising.density=0 denoising.masked=0.15. BART's own
size: model=bart.SIZES["bart-base"]. Then on labelled pairs: pretrained=runs/bart_denoising in the configs of text-to-text tasks.

Measured on one core of an EPYC with AVX2, float32: 1,200 steps in 27 minutes, 2,675 tokens/s. Validation loss after 200, 400, ... 1,200
steps: 5.768, 4.924, 4.388, 4.053, 3.817, 3.714. The text above becomes 'If the file file, it is an error.' (greedily nothing): it has
learnt to copy and to close a sentence, not yet what files do. Fine-tuned on a twentieth of the summarization pairs (2,479 of them, 1,116
steps), it has on the test pairs ROUGE-1 17.68 (16.64 to 18.75) and ROUGE-L 16.53; the same model, tokenizer and steps from random weights
2.16 (1.85 to 2.50) and 2.16, at a validation loss of 4.83 instead of 4.16:

    python -m jaxlm.train configs/bart_denoising.py pretrained=runs/bart_denoising workdir=runs/bart_summarization task=summarization \\
        data.source=train.tsv.gz data.validation_source=valid.tsv.gz data.test_source=test.tsv.gz \\
        'records.columns=(("source",0),("target",1))' data.fraction=0.05 data.sequence_length=96 data.target_length=32 batch_size=8 \\
        epochs=4 model.dropout=0.1 loss.label_smoothing=0.1 optimizer.learning_rate=1e-3 optimizer.warmup=100
    python -m jaxlm.evaluate runs/bart_summarization --split test
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Optimizer, Run, Tokenizer
from jaxlm.models import bart

LAYERS = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}

config = Run(
    model=bart.Config(
        vocab_size=None, max_position_embeddings=128, d_model=256, **LAYERS, encoder_ffn_dim=512, decoder_ffn_dim=512, dropout=0.0
    ),
    task="denoising",
    workdir="runs/bart_denoising",
    steps=1200,
    batch_size=16,
    data=Data(source="stdlib", sequence_length=128, validation=0.02),
    tokenizer=Tokenizer(kind="bpe", vocab_size=8192),
    optimizer=Optimizer(learning_rate=1e-3, schedule="cosine", end=0.1, warmup=200, b2=0.98, weight_decay=0.01),
    evaluation=Evaluation(every=200),
    checkpoint=Checkpoint(every=200, keep=1),
)
