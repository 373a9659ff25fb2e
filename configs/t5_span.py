"""T5 from scratch by span corruption, as `run_t5_mlm_flax.py` did: a small one on the source and reference of Python's library.

    python -m jaxlm.train configs/t5_span.py
    python -c "import jaxlm; from jaxlm.inference.fill_spans import fill_spans; model, params = jaxlm.load('runs/t5_span')
    print(fill_spans(model, params, jaxlm.load_tokenizer('runs/t5_span'), 'If the file <extra_id_0>, an error is raised.'))"

Rows are cut so long that they have exactly data.sequence_length tokens once noised: of 284 come 256, and 58 for the decoder. Texts of
yours: data.source='texts/*.txt'. The prefix-LM variant: denoising.prefix=true. T5's own sizes: model=t5.SIZES["t5-small"]. Then on
labelled pairs: pretrained=runs/t5_span in the configs of text-to-text tasks.
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
