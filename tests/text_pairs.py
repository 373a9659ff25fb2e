"""Small pairs of texts, and config files that learn them, for tests of whole runs."""

import json
import random

CONFIG = """
from jaxlm.config import Checkpoint, Data, Evaluation, Logging, Optimizer, Run, Tokenizer
from jaxlm.models import bart, marian, t5, transformer

SIDES = dict(
    vocab_size=None, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
    encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=32,
)
MODELS = dict(
    transformer=transformer.Config(**SIDES), marian=marian.Config(**SIDES), bart=bart.Config(**SIDES),
    t5=t5.Config(vocab_size=None, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2),
)
config = Run(
    model=MODELS[{model!r}], task="translation", workdir={workdir!r}, epochs=6, batch_size=8,
    data=Data(source={source!r}, validation=0.0, sequence_length=16, target_length=12, loader="threads", cache={cache!r}),
    tokenizer=Tokenizer(kind="word", vocab_size=40), optimizer=Optimizer(learning_rate=1e-2, warmup=5),
    evaluation=Evaluation(every=20), checkpoint=Checkpoint(every=5), logging=Logging(every=1, tensorboard=False),
)
"""
WORDS = "the a cat dog sat on mat and ran over hill".split()


def pairs(count=60):
    """A list of words, and the same in capitals, the last first."""
    draw = random.Random(0)
    rows = [[draw.choice(WORDS) for _ in range(draw.randrange(1, 7))] for _ in range(count)]
    return [(" ".join(row), " ".join(reversed(row)).upper()) for row in rows]


def write(path, rows):
    path.write_text("".join(json.dumps({"source": source, "target": target}) + "\n" for source, target in rows))
    return str(path)


def written(folder):
    """The folder, with a config file a family beside the pairs."""
    source = write(folder / "pairs.jsonl", pairs())
    for model in ("transformer", "marian", "bart", "t5"):
        text = CONFIG.format(model=model, workdir=str(folder / model), source=source, cache=str(folder / "cache"))
        (folder / f"{model}.py").write_text(text)
    return folder
