"""GPT-2 124M on web text: jsonl in, cleaned, without duplicates, then trained.

    python -m jaxlm.prepare configs/web_text.py data.source='web/*.jsonl.zst'      # on all cores; prints the data card
    python -m jaxlm.train configs/web_text.py data.source='web/*.jsonl.zst'        # finds what was prepared

The steps are those of C4 and Gopher with their published thresholds (`jaxlm/text/clean.py` lists all). Leave out what your
text has not: "html" for plain text, "c4" and "gopher" for anything but prose. Add ("decontaminate", {"path": "evaluation/*.jsonl"}) to
keep out what you will evaluate on. For a corpus that one machine is too small for:
`--runner FlinkRunner --flink_master=...` and further flags of Apache Beam. No accelerator has run the training: no loss is
claimed. What preparing costs is in the README.
"""

from jaxlm.config import Checkpoint, Compute, Data, Evaluation, Optimizer, Run, Tokenizer
from jaxlm.models import gpt2

config = Run(
    model=gpt2.SIZES["gpt2"],
    workdir="runs/web_text",
    steps=19_000,
    batch_size=512,
    accumulate=16,
    data=Data(
        source="web/*.jsonl.zst",
        clean=(
            "html",
            "unicode",
            "controls",
            "whitespace",
            ("language", {"keep": ("en",)}),
            "c4",
            "gopher",
            "pii",
            "exact_duplicates",
            ("near_duplicates", {"threshold": 0.8}),
        ),
        sequence_length=1024,
        validation=0.001,
    ),
    tokenizer=Tokenizer(kind="bpe", vocab_size=50257),
    compute=Compute(dtype="bfloat16"),
    optimizer=Optimizer(learning_rate=6e-4, warmup=700),
    evaluation=Evaluation(every=500, batches=200),
    checkpoint=Checkpoint(every=500, keep=3),
)
