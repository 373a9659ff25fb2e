"""Masked language modelling from scratch, as `run_mlm_flax.py` did: a small BERT and its own WordPiece on a text of yours.

    python -m jaxlm.train configs/mlm.py data.source='texts/*.txt'
    echo "the [MASK] statement is used" | python -m jaxlm.predict runs/mlm

Python's own reference, 0.46 MB that is on every machine, as files of texts:

    mkdir -p texts
    python -c "import pathlib, pydoc_data.topics as t; [pathlib.Path(f'texts/{k}.txt').write_text(v) for k, v in t.topics.items()]"

Measured on it (whole words masked, 101,000 tokens to learn from, 2,000 steps, bfloat16, 33 minutes on 2 cores of a Xeon beside other
work): perplexity 146.6 on the held-out texts, where frequencies alone have 457.6; accuracy 0.206; still falling. Again on 2 cores of an
EPYC beside other work, float32, 33 minutes: 146.7 and 0.207. It is little text, and so its first five for ten masks are mostly frequent
words; near the subject (attribute, class, instance, object, function, statement) are those where the text around says what it is about:

    the for [MASK] is used to iterate over the elements of a sequence      the  is  ,  .  of
    the [MASK] statement specifies exception handlers and cleanup code
        for a group of statements                                          "  the  .  statement  ,
    the while statement is used for repeated execution as long as an
        [MASK] is true                                                     "  the  ,  is  statement
    a function definition defines a user-defined [MASK] object             -  the  a  .  is
    if the optional [MASK] is present, it is evaluated                     the  "  is  ,  .
    the value is [MASK] to the name                                        the  is  attribute  object  ,
    an empty list evaluates to [MASK]                                      the  ,  .  "  a
    called when the attribute lookup has not found the [MASK]              the  class  attribute  .  instance
    the following [MASK] are supported by all sequence types               .  the  of  ,  -
    the syntax [MASK] the same as for function calls                       the  function  "  .  is

For pairs of texts beside it: task=next-sentence, or task=sentence-order (ALBERT). ELECTRA: configs/electra.py.
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Masking, Optimizer, Run, Tokenizer
from jaxlm.models import bert

config = Run(
    model=bert.Config(
        vocab_size=None, hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=768, max_position_embeddings=128
    ),
    task="masked-lm",
    workdir="runs/mlm",
    steps=2000,
    batch_size=16,
    data=Data(source="texts/*.txt", sequence_length=128, validation=0.1),
    masking=Masking(whole_words=True),
    tokenizer=Tokenizer(kind="wordpiece", vocab_size=4096),
    optimizer=Optimizer(learning_rate=1e-3, schedule="linear", end=0.0, warmup=200, b2=0.98, weight_decay=0.01),
    evaluation=Evaluation(every=500),
    checkpoint=Checkpoint(every=500, keep=1),
)
