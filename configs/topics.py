"""Topics of news: a small BERT fine-tuned on Reuters R8 (published split), or the same size from scratch.

    python -m jaxlm.train configs/topics.py pretrained=minilm data.source=train.tsv data.test_source=test.tsv
    python -m jaxlm.evaluate runs/topics --split test --calibrate

Files are label TAB text. A tenth of the training texts is held out; texts of more than 128 tokens are cut.

Measured (MiniLM, 6 layers of 384; compute.dtype=bfloat16; 2 cores of a Xeon, 30 minutes beside other work): accuracy 0.9735 on the
2,189 test texts, macro F1 0.935, calibration error 0.009.
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Optimizer, Records, Run

config = Run(
    task="sequence-classification",
    pretrained="minilm",
    workdir="runs/topics",
    epochs=2,
    batch_size=8,
    data=Data(source="train.tsv", test_source="test.tsv", validation=0.1, sequence_length=128),
    records=Records(columns=(("label", 0), ("text", 1))),
    optimizer=Optimizer(learning_rate=1e-4, schedule="linear", end=0.0, warmup=50, b2=0.999, weight_decay=0.01),
    evaluation=Evaluation(every=100),
    checkpoint=Checkpoint(every=250, keep=1),
)
