"""Overrides, types, nearest names, the way to JSON and back, and what a resumed run may change."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxlm import default
from jaxlm.config import Run, from_dict, load_file, parse, to_dict
from jaxlm.errors import ConfigError
from jaxlm.models import gpt2
from jaxlm.overrides import choose, override
from jaxlm.training.resume import differences

RUN = default.config
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("steps=7", 7),
        ("optimizer.learning_rate=1e-2", 0.01),
        ("optimizer.learning_rate=1", 1.0),
        ("optimizer.name=lion", "lion"),
        ("optimizer.clip=none", None),
        ("optimizer.clip=2", 2.0),
        ("logging.tensorboard=false", False),
        ("logging.wandb=2024", "2024"),
        ("profile.steps=[10,15]", (10, 15)),
        ("data.source=texts/*.txt", "texts/*.txt"),
        ("data.source=[['a.txt', 2], ['b.txt', 1.5]]", (("a.txt", 2), ("b.txt", 1.5))),
        ("workdir=runs/a=b", "runs/a=b"),
        ("model.n_layer=6", 6),
        ("model.tie_word_embeddings=False", False),
        ("mesh.fsdp = 4", 4),
    ],
)
def test_an_override_is_of_the_annotated_type(text, value):
    changed = override(RUN, [text])
    found = changed
    for name in text.split("=")[0].strip().split("."):
        found = getattr(found, name)
    assert found == value and type(found) is type(value)
    assert changed != RUN and dataclasses.is_dataclass(changed)


def test_the_model_of_a_config_file_makes_room_for_a_pretrained_one():
    """As configs/summarization.py with model=none pretrained=DIR, in any order; no other group may be none."""
    arguments = ["model.n_layer=3", "pretrained=somewhere", "model=none", str(ROOT / "configs/shakespeare_char.py")]
    run = parse(arguments, RUN, lambda run: gpt2.Config(n_embd=48))
    assert (run.model.n_embd, run.model.n_layer, run.batch_size) == (48, 3, load_file(arguments[-1]).batch_size)
    with pytest.raises(ConfigError, match="data is a group"):
        parse(["data=none"], RUN)


def test_the_last_override_wins_and_the_rest_stays():
    changed = override(RUN, ["steps=1", "steps=2", "data.validation=0.1"])
    assert changed == dataclasses.replace(RUN, steps=2, data=dataclasses.replace(RUN.data, validation=0.1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepz=1", "unknown key stepz: did you mean steps?"),
        ("optimizer.learning_rat=1", "did you mean optimizer.learning_rate?"),
        ("model.n_layers=2", "did you mean model.n_layer?"),
        ("optimiser.name=adamw", "did you mean optimizer?"),
        ("mesh.zzz=1", "the keys are data, fsdp, tensor"),
        ("steps", "not of the form key=value"),
        ("optimizer=adamw", "optimizer is a group.*optimizer.name="),
        ("steps.more=1", "steps.more: more belongs to no group"),
        ("steps=many", "steps='many': this key takes int"),
        ("steps=1.5", "steps=1.5: this key takes int"),
        ("steps=true", "steps=True: this key takes int"),
        ("logging.tensorboard=1", "this key takes bool"),
        ("steps=none", "this key takes int"),
        ("optimizer.clip=hard", "float or None"),
    ],
)
def test_a_wrong_override_is_one_line_with_the_mend(text, words):
    with pytest.raises(ConfigError, match=words) as error:
        override(RUN, [text])
    assert "\n" not in str(error.value) and error.value.code == 78


def test_choose_names_the_nearest():
    with pytest.raises(ConfigError, match="a.b='blu' is not known: did you mean 'blue'\\? It takes red, blue"):
        choose("a.b", "blu", ["red", "blue"])


def test_json_and_back_is_the_same():
    run = override(RUN, ["profile.steps=[1,2]", "data.source=[['a', 1.0], ['b', 2.0]]", "optimizer.ema=0.99", "loss.chunk=64"])
    for one in (RUN, run):
        assert from_dict(json.loads(json.dumps(to_dict(one))), gpt2.Config) == one


def test_json_with_an_unknown_key_is_refused():
    for path, word in (((), "stepz"), (("model",), "n_layerz"), (("optimizer",), "name_")):
        values = json.loads(json.dumps(to_dict(RUN)))
        place = values
        for name in path:
            place = place[name]
        place[word] = 1
        with pytest.raises(ConfigError, match=word):
            from_dict(values, gpt2.Config)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("model.n_layer=2", "model.n_layer: 4 -> 2"),
        ("optimizer.learning_rate=0.5", f"optimizer.learning_rate: {RUN.optimizer.learning_rate} -> 0.5"),
        ("data.sequence_length=128", "data.sequence_length: 256 -> 128"),
        ("tokenizer.vocab_size=512", "tokenizer.vocab_size: 4096 -> 512"),
        ("batch_size=24", f"batch_size: {RUN.batch_size} -> 24"),
        ("seed=1", "seed: 0 -> 1"),
        ("loss.z_loss=0.1", "loss.z_loss: 0.0 -> 0.1"),
        ("task=masked-lm", "task: 'causal-lm' -> 'masked-lm'"),
    ],
)
def test_what_a_resumed_run_may_not_change(text, row):
    old = json.loads(json.dumps(to_dict(RUN)))
    assert differences(old, to_dict(override(RUN, [text]))) == [row]


def test_what_it_may():
    texts = ["steps=9", "logging.every=3", "mesh.fsdp=2", "compute.layout=stacked", "data.loader=threads", "data.cache=x", "workdir=y"]
    mixture = override(RUN, ["data.source=[['a', 1.0]]"])
    assert differences(json.loads(json.dumps(to_dict(mixture))), to_dict(override(mixture, texts))) == []


def test_a_key_younger_than_the_run_had_its_default():
    old = json.loads(json.dumps(to_dict(RUN)))
    del old["denoising"], old["data"]["batch_tokens"]
    assert differences(old, to_dict(RUN)) == []
    changed = to_dict(override(RUN, ["data.batch_tokens=64", "denoising.span=2.0"]))
    assert differences(old, changed) == ["data.batch_tokens: None -> 64", "denoising.span: 3.0 -> 2.0"]


def test_a_config_file(tmp_path):
    good = tmp_path / "tiny.py"
    good.write_text("from jaxlm.config import Run\nconfig = Run(model=None, steps=3)\n")
    assert load_file(good) == Run(model=None, steps=3)
    for text, words in (("x = 1", "assigns no .*`config`"), ("config = Rum()", "cannot be run as Python"), ("config = (", "cannot be run")):
        bad = tmp_path / "bad.py"
        bad.write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_file(bad)
    with pytest.raises(ConfigError, match="did you mean .*tiny.py"):
        load_file(tmp_path / "tinny.py")


def test_configurations_are_values():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RUN.steps = 3
    assert hash(RUN) == hash(override(RUN, []))
