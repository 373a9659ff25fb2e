"""Translation from scratch: the Transformer of 2017, small, on Multi30k's 29,000 pairs of English and German captions.

    python -m jaxlm.train configs/translation.py data.source=train.en.gz::train.de.gz \\
        data.validation_source=val.en.gz::val.de.gz data.test_source=test_2017_flickr.en.gz::test_2017_flickr.de.gz
    python -m jaxlm.evaluate runs/translation --split test --num-beams 5 --output outputs.jsonl

Sentence n of one file belongs to sentence n of the other; a tsv or jsonl with the columns source and target, or a set of TFDS such as
tfds:ted_hrlr_translate/pt_to_en, will do as well. One byte-level BPE is learnt from both languages, rows hold several pairs each that
do not see one another, and 200 validation sentences are translated at each evaluation: the best checkpoint is the one with the highest
BLEU. The mean of the last five, which are kept, is often better:

    python -m jaxlm.convert runs/translation averaged --average 5 --run
    python -m jaxlm.evaluate averaged --split test --num-beams 5
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Loss, Optimizer, Records, Run, Tokenizer
from jaxlm.models import transformer

config = Run(
    model=transformer.Config(
        vocab_size=None,
        d_model=256,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        norm="pre",
        max_position_embeddings=128,
        dropout=0.2,
    ),
    task="translation",
    workdir="runs/translation",
    epochs=20,
    data=Data(
        source="train.en.gz::train.de.gz",
        validation_source="val.en.gz::val.de.gz",
        test_source="test_2017_flickr.en.gz::test_2017_flickr.de.gz",
        sequence_length=64,
        target_length=64,
    ),
    batch_size=32,
    records=Records(source_language="en", target_language="de"),
    tokenizer=Tokenizer(kind="bpe", vocab_size=8000),
    loss=Loss(label_smoothing=0.1),
    optimizer=Optimizer(learning_rate=2e-3, schedule="cosine", end=0.02, warmup=400, b2=0.98, eps=1e-9, weight_decay=0.01),
    evaluation=Evaluation(every=500, generate=200, best="bleu"),
    checkpoint=Checkpoint(every=500, keep=5),
)
