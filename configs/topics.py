"""Topics of news: a small BERT fine-tuned on Reuters R8 (published split), or the same size from scratch.

    python -m jaxlm.train configs/topics.py pretrained=minilm data.source=train.tsv data.test_source=test.tsv
    python -m jaxlm.evaluate runs/topics --split test --calibrate

Files are label TAB text. A tenth of the training texts is held out; texts of more than 256 tokens are cut.
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Optimizer, Records, Run

config = Run(
    task="sequence-classification",
    pretrained="minilm",
    workdir="runs/topics",
    epochs=3,
    batch_size=8,
    data=Data(source="train.tsv", test_source="test.tsv", validation=0.1, sequence_length=256),
    records=Records(columns=(("label", 0), ("text", 1))),
    optimizer=Optimizer(learning_rate=1e-4, schedule="linear", end=0.0, warmup=50, b2=0.999, weight_decay=0.01),
    evaluation=Evaluation(every=100),
    checkpoint=Checkpoint(every=250, keep=1),
)
