"""Question answering on SQuAD's format, with questions that have no answer (what `run_qa_flax.py` did).

    python -m jaxlm.train configs/squad.py pretrained=minilm data.source=train-v2.0.json data.test_source=dev-v2.0.json
    python -m jaxlm.evaluate runs/squad --split test --calibrate        # the null threshold, from held-out training questions
    python -m jaxlm.evaluate runs/squad --split test records.null_threshold=none        # always an answer
    printf 'Who wrote it?\\tIt was written by Ada.\\n' | python -m jaxlm.predict runs/squad

Out of TFDS: data.source=tfds:squad/v2 data.test_source=tfds:squad/v2@validation. For SQuAD 1.1:
records.unanswerable=false evaluation.best=f1.

Measured on little data: MiniLM (6 layers of 384, bfloat16, 2 cores of a Xeon) on 564 questions about two articles (12 epochs, learning
rate 2e-4, a checkpoint every 50 steps), tested on 324 about a third, of which 144 have no answer. Always an answer: F1 24.0 on those that
have one; the sentence that shares most words with the question gets 13.6, its longest run of other words 14.4. With null threshold 0:
exact 45.1, F1 46.8, where "no answer" every time gets 44.4; at the best threshold in hindsight 47.8 and 48.6. The threshold that 62 held-
out questions give is "never answer", 44.4: so few teach where answers stand, but not when there is one.
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
