"""Question answering on SQuAD's format, with questions that have no answer (what `run_qa_flax.py` did).

    python -m jaxlm.train configs/squad.py pretrained=minilm data.source=train-v2.0.json data.test_source=dev-v2.0.json
    python -m jaxlm.evaluate runs/squad --split test --calibrate        # the null threshold, from held-out training questions
    printf 'Who wrote it?\\tIt was written by Ada.\\n' | python -m jaxlm.predict runs/squad

Out of TFDS: data.source=tfds:squad/v2 data.test_source=tfds:squad/v2@validation. For SQuAD 1.1: records.unanswerable=false.
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Optimizer, Records, Run

config = Run(
    task="question-answering",
    pretrained="minilm",
    workdir="runs/squad",
    epochs=3,
    batch_size=8,
    data=Data(source="train-v2.0.json", test_source="dev-v2.0.json", validation=0.1, sequence_length=256),
    records=Records(unanswerable=True, stride=64),
    optimizer=Optimizer(learning_rate=1e-4, schedule="linear", end=0.0, warmup=50, b2=0.999, weight_decay=0.01),
    evaluation=Evaluation(every=500, best="best_f1"),
    checkpoint=Checkpoint(every=500, keep=1),
)
