"""T5 from scratch by span corruption, as `run_t5_mlm_flax.py` did: a small one on the source and reference of Python's library.

    python -m jaxlm.train configs/t5_span.py
    python -c "import jaxlm; from jaxlm.inference.fill_spans import fill_spans; model, params = jaxlm.load('runs/t5_span')
    text = 'The name argument is a string. It returns a list <extra_id_0> strings, one for each file in the directory.'
    print(fill_spans(model, params, jaxlm.load_tokenizer('runs/t5_span'), text, num_beams=4))"

Rows are cut so long that they have exactly data.sequence_length tokens once noised: of 141 come 128, and 29 for the decoder. Texts of
yours: data.source='texts/*.txt'. The prefix-LM variant: denoising.prefix=true. T5's own sizes: model=t5.SIZES["t5-small"]. Then on
labelled pairs: pretrained=runs/t5_span in the configs of text-to-text tasks.

T5 has embeddings of size 1 beside queries of size 1/128: Adafactor moves each by a share of its own size, as T5 was trained. Adam, which
moves all alike, stood at a validation loss of 5.156 after 2,000 steps at 2e-3 (Adafactor: 4.340).

Measured on one core of an EPYC with AVX2, float32: 6,000 steps in 64 minutes, 4,000 tokens/s. Validation loss after 500, 1,000, 2,000, ...
6,000 steps: 4.936, 4.570, 4.340, 4.207, 4.109, 4.043, 4.002. The text above becomes 'The name argument is a string. It returns a list. If
the file is a list of strings, one for each file in the directory.', and greedily 'class Name: def __init__(self, name, value): self.name =
name self.<extra_id_0> = value' is filled with 'name': it looks at its source, and knows what may stand there, not yet what it means.

Fine-tuned on a twentieth of the summarization pairs (2,479 of them, 1,136 steps), it has on the test pairs ROUGE-1 15.16 (14.21 to 16.10)
and ROUGE-L 14.29, loss 3.95; the same model, tokenizer and steps from random weights 13.61 (12.62 to 14.71), 12.92 and 4.47 (paired:
p = 0.002 for both; ROUGE-2 is 3.6 of both):

    python -m jaxlm.train configs/t5_span.py pretrained=runs/t5_span workdir=runs/t5_summarization task=summarization \\
        data.source=train.tsv.gz data.validation_source=valid.tsv.gz data.test_source=test.tsv.gz \\
        'records.columns=(("source",0),("target",1))' data.fraction=0.05 data.sequence_length=96 data.target_length=32 batch_size=8 \\
        epochs=4 model.dropout_rate=0.1 loss.label_smoothing=0.1 optimizer.learning_rate=1e-2 optimizer.warmup=100
    python -m jaxlm.evaluate runs/t5_summarization --split test
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Optimizer, Run, Tokenizer
from jaxlm.models import t5

config = Run(
    model=t5.Config(
        vocab_size=None, d_model=256, d_kv=64, d_ff=512, num_layers=2, num_heads=4, dropout_rate=0.0, feed_forward_proj="gated-gelu"
    ),
    task="span-corruption",
    workdir="runs/t5_span",
    steps=6000,
    batch_size=16,
    data=Data(source="stdlib", sequence_length=128, validation=0.02),
    tokenizer=Tokenizer(kind="unigram", vocab_size=8192),
    optimizer=Optimizer(
        name="adafactor", multiply_by_parameter_scale=True, learning_rate=2e-2, schedule="cosine", end=0.1, warmup=200, weight_decay=0.0
    ),
    evaluation=Evaluation(every=500),
    checkpoint=Checkpoint(every=250, keep=1),
)
