"""GLUE, as `run_flax_glue.py` did it: a BERT fine-tuned on one of its tasks, out of TFDS.

    python -m jaxlm.train configs/glue.py data.source=tfds:glue/sst2 data.validation_source=tfds:glue/sst2@validation

The columns and labels of all ten are known (`jaxlm/data/known.py`); mnli's validation splits are validation_matched and
validation_mismatched. For stsb, a number: records.kind=regression. The metrics are accuracy, F1 and Matthews' correlation, or Pearson's
and Spearman's.
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Optimizer, Records, Run

config = Run(
    task="sequence-classification",
    pretrained="bert-base-uncased",
    workdir="runs/glue",
    epochs=3,
    batch_size=32,
    data=Data(source="tfds:glue/mrpc", validation_source="tfds:glue/mrpc@validation", sequence_length=128),
    records=Records(),
    optimizer=Optimizer(learning_rate=2e-5, schedule="linear", end=0.0, warmup=100, b2=0.999, weight_decay=0.01),
    evaluation=Evaluation(every=500),
    checkpoint=Checkpoint(every=500, keep=1),
)
