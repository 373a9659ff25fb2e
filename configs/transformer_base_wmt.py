"""The Transformer base of 2017 on WMT 2014, English to German, as in Vaswani et al. 2017, section 5.

    python -m jaxlm.train configs/transformer_base_wmt.py
    python -m jaxlm.convert runs/transformer_base_wmt averaged --average 5 --run
    python -m jaxlm.evaluate averaged --split test --num-beams 4

Out of TFDS (tfds build wmt14_translate/de-en first). The paper's 25,000 source and 25,000 target tokens a batch are 50,000 together,
padding counted; 100,000 steps on eight GPUs took its authors 12 hours. The learning rate peaks at 512 ** -0.5 * 4000 ** -0.5. On
less memory: accumulate=4. It has not been run here: the paper reports 27.3 BLEU (tokenized) with the mean of five checkpoints.
"""

from jaxlm.config import Checkpoint, Compute, Data, Evaluation, Loss, Optimizer, Records, Run, Tokenizer
from jaxlm.models import transformer

config = Run(
    model=transformer.Config(vocab_size=None),
    task="translation",
    workdir="runs/transformer_base_wmt",
    steps=100_000,
    data=Data(
        source="tfds:wmt14_translate/de-en",
        validation_source="tfds:wmt14_translate/de-en@validation",
        test_source="tfds:wmt14_translate/de-en@test",
        sequence_length=256,
        target_length=256,
        packing="buckets",
        batch_tokens=50_000,
    ),
    records=Records(source_language="en", target_language="de", ratio=9.0, skip=True),
    tokenizer=Tokenizer(kind="bpe", vocab_size=37_000),
    compute=Compute(dtype="bfloat16"),
    loss=Loss(label_smoothing=0.1),
    optimizer=Optimizer(learning_rate=7e-4, schedule="inverse_sqrt", warmup=4000, b1=0.9, b2=0.98, eps=1e-9, weight_decay=0.0, clip=None),
    evaluation=Evaluation(every=5000, generate=500, num_beams=4, best="bleu"),
    checkpoint=Checkpoint(every=1500, keep=5),
)
