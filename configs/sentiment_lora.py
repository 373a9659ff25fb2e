"""Sentiment as in configs/sentiment.py, by low-rank updates of the attention's matrices: the small BERT itself stays as it was.

    python -m jaxlm.train configs/sentiment_lora.py pretrained=minilm
    python -m jaxlm.convert runs/sentiment_lora merged          # a Hugging Face folder with the updates merged in

`tuning.lora_targets` names the matrices, by path or a part of it; the classifier, which the pretrained model lacks, is trained as it is.
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Optimizer, Records, Run, Tuning

config = Run(
    task="sequence-classification",
    pretrained="minilm",
    workdir="runs/sentiment_lora",
    epochs=3,
    batch_size=16,
    data=Data(source="train.tsv", validation_source="valid.tsv", test_source="test.tsv", sequence_length=64),
    records=Records(columns=(("label", 0), ("text", 1))),
    tuning=Tuning(lora_rank=16, lora_alpha=32.0, lora_targets=("q", "k", "v", "o", "up", "down")),
    optimizer=Optimizer(learning_rate=4e-4, schedule="linear", end=0.0, warmup=100, b2=0.999, weight_decay=0.0),
    evaluation=Evaluation(every=100, best="accuracy"),
    checkpoint=Checkpoint(every=250, keep=1),
)
