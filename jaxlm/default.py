"""The run of `python -m jaxlm.train` without a config: a small GPT-2 on the Python standard library of this machine.

`python -m jaxlm.train`
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Optimizer, Run, Tokenizer
from jaxlm.models import gpt2

config = Run(
    model=gpt2.Config(vocab_size=None, n_positions=512, n_embd=192, n_layer=4, n_head=3, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0),
    steps=330,
    batch_size=8,
    data=Data(source="stdlib", sequence_length=256, validation=0.03),
    tokenizer=Tokenizer(kind="bpe", vocab_size=4096),
    optimizer=Optimizer(name="muon", learning_rate=6e-3, warmup=20, momentum=0.95),
    evaluation=Evaluation(every=110),
    checkpoint=Checkpoint(every=110),
)
