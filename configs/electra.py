"""ELECTRA: a generator fills masks, a discriminator finds which tokens were replaced; both learn together (Clark et al. 2020).

    python -m jaxlm.train configs/electra.py data.source='texts/*.txt'
    python -m jaxlm.convert runs/electra folder          # the discriminator, as a Hugging Face folder

The sizes are those of ELECTRA-small; the generator has `masking.generator` of its width.
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Masking, Optimizer, Run, Tokenizer
from jaxlm.models import electra

config = Run(
    model=electra.Config(vocab_size=None),
    task="replaced-tokens",
    workdir="runs/electra",
    steps=100_000,
    batch_size=128,
    data=Data(source="texts/*.txt", sequence_length=128, validation=0.01),
    masking=Masking(mask=0.85, random=0.0),
    tokenizer=Tokenizer(kind="wordpiece", vocab_size=30522),
    optimizer=Optimizer(learning_rate=5e-4, schedule="linear", end=0.0, warmup=10_000, b2=0.999, eps=1e-6, weight_decay=0.01),
    evaluation=Evaluation(every=5000),
    checkpoint=Checkpoint(every=5000, keep=1),
)
