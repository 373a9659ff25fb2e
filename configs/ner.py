"""Named entities on CoNLL 2003, as `run_flax_ner.py` did it: out of TFDS, or files with a word and its tag a line.

    python -m jaxlm.train configs/ner.py pretrained=bert-base-cased
    python -m jaxlm.train configs/ner.py pretrained=bert-base-cased data.source=train.conll data.validation_source=valid.conll

Entity-level precision, recall and F1 as conlleval and seqeval count them; `records.scheme=bilou` for those tags.
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Optimizer, Records, Run

config = Run(
    task="token-classification",
    pretrained="bert-base-cased",
    workdir="runs/ner",
    epochs=3,
    batch_size=16,
    data=Data(source="tfds:conll2003", validation_source="tfds:conll2003@dev", test_source="tfds:conll2003@test", sequence_length=128),
    records=Records(scheme="bio"),
    optimizer=Optimizer(learning_rate=5e-5, schedule="linear", end=0.0, warmup=100, b2=0.999, weight_decay=0.01),
    evaluation=Evaluation(every=500, best="f1"),
    checkpoint=Checkpoint(every=500, keep=1),
)
