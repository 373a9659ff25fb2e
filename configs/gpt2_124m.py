"""GPT-2 124M on your own text: bfloat16, half a million tokens a step, AdamW as in nanoGPT.

    python -m jaxlm.train configs/gpt2_124m.py data.source='texts/*.jsonl.gz'

The same line on every host of a pod; mesh.fsdp=N divides parameters and optimizer over N devices of each group.
Memory of one device before you start: `python -m jaxlm.plan configs/gpt2_124m.py batch_size=32 accumulate=1`.
No accelerator has run it yet: no loss and no time are claimed. On 2 CPU cores it is a benchmark
(`python -m jaxlm.bench train`), not a way to train.
"""

from jaxlm.config import Checkpoint, Compute, Data, Evaluation, Optimizer, Run, Tokenizer
from jaxlm.models import gpt2

config = Run(
    model=gpt2.SIZES["gpt2"],
    workdir="runs/gpt2_124m",
    steps=19_000,
    batch_size=512,
    accumulate=16,
    data=Data(source="texts/*.jsonl.gz", sequence_length=1024, validation=0.001),
    tokenizer=Tokenizer(kind="bpe", vocab_size=50257),
    compute=Compute(dtype="bfloat16"),
    optimizer=Optimizer(learning_rate=6e-4, warmup=700),
    evaluation=Evaluation(every=500, batches=200),
    checkpoint=Checkpoint(every=500, keep=3),
)
