"""Parts of speech: a small BERT tags the Brown corpus, the first part of each tag, several sentences in a row.

    sed -E 's#/([^ /+-]+)[+-][^ /]*( |$)#/\\1\\2#g' brown/train.txt > train.txt        # of at-hl and nn+bez the first part; so of test.txt
    python -m jaxlm.train configs/tagging.py pretrained=minilm data.source=train.txt data.test_source=test.txt
    python -m jaxlm.evaluate runs/tagging --split test
    echo "The cat sat on the mat ." | python -m jaxlm.predict runs/tagging

A sentence a line, word/tag by blanks. For CoNLL's columns see configs/ner.py.

Measured (MiniLM, 6 layers of 384; 106 tags; compute.dtype=bfloat16; 2 cores of a Xeon, 29 minutes beside other work): accuracy 0.9746
on 115,380 words of the test sentences, where the most frequent tag of each word gets 0.9017; calibration error 0.007.
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Optimizer, Records, Run

config = Run(
    task="token-classification",
    pretrained="minilm",
    workdir="runs/tagging",
    epochs=1,
    batch_size=8,
    data=Data(source="train.txt", test_source="test.txt", validation=0.02, sequence_length=128),
    records=Records(columns=(("tagged", "line"),)),
    optimizer=Optimizer(learning_rate=1e-4, schedule="linear", end=0.0, warmup=100, b2=0.999, weight_decay=0.01),
    evaluation=Evaluation(every=500),
    checkpoint=Checkpoint(every=500, keep=1),
)
