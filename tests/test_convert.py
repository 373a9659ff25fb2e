"""`python -m jaxlm.convert`: every direction, what it prints, what it refuses."""

import json
from pathlib import Path

import flax.serialization
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm import convert, pretrained
from jaxlm.errors import DataError
from jaxlm.inference.texts import generate_text
from jaxlm.models import gpt2
from jaxlm.pretrained import paths
from jaxlm.text.training import train_tokenizer
from jaxlm.weights import flax_files
from tests.foreign import BERT, config_of, flax_tree, gguf_file, made, tensors_of

GPT2 = gpt2.Config(vocab_size=300, n_positions=16, n_embd=8, n_layer=2, n_head=2)


def gpt2_folder(folder):
    model, params = made(GPT2, "causal-lm")
    jaxlm.save(folder, model, params, train_tokenizer("bpe", ["the cat sat on the mat"] * 5, 300))
    return folder


def same(one, other):
    one, other = paths(one), paths(other)
    assert one.keys() == other.keys() and all(jnp.array_equal(one[path], other[path]) for path in one)


def difference(printed):
    return float(printed.split("largest difference ")[1])


def test_a_folder_becomes_a_run_and_a_folder_again(tmp_path, capsys):
    source = gpt2_folder(tmp_path / "hf")
    convert.main([str(source), str(tmp_path / "run")])
    printed = capsys.readouterr().out
    assert "mapped" in printed and "a run directory" in printed and difference(printed) == 0
    model, params = jaxlm.load(tmp_path / "run")
    same(params, made(GPT2, "causal-lm")[1])
    assert generate_text(model, params, jaxlm.load_tokenizer(tmp_path / "run"), ["the"], max_new_tokens=2)
    convert.main([str(tmp_path / "run"), str(tmp_path / "again")])
    assert difference(capsys.readouterr().out) == 0
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (source / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_a_run_is_cast_where_it_is_asked(tmp_path, capsys):
    convert.main([str(gpt2_folder(tmp_path / "hf")), str(tmp_path / "run")])
    model, params = jaxlm.load(tmp_path / "run", dtype="bfloat16")
    assert model.compute.dtype == "bfloat16" and params["wte"].dtype == jnp.bfloat16


def test_a_flax_folder_becomes_torchs(tmp_path, capsys):
    source = tmp_path / "flax"
    source.mkdir()
    tensors = tensors_of(BERT, "masked-lm") | {
        "cls.predictions.decoder.weight": tensors_of(BERT, "masked-lm")["bert.embeddings.word_embeddings.weight"]
    }
    (source / flax_files.FILE).write_bytes(flax.serialization.msgpack_serialize(flax_tree(tensors)))
    (source / "config.json").write_text(json.dumps(config_of(BERT, "BertForMaskedLM")))
    (source / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\ncat\n##s\n")
    convert.main([str(source), str(tmp_path / "hf")])
    printed = capsys.readouterr().out
    assert "cls.predictions.decoder.weight = bert.embeddings.word_embeddings.weight" in printed and difference(printed) == 0
    same(jaxlm.load(tmp_path / "hf")[1], made(BERT, "masked-lm")[1])
    assert jaxlm.load_tokenizer(tmp_path / "hf").encode("The cats") == [2, 4, 5, 6, 3]


def test_a_gguf_file_becomes_torchs_with_its_tokenizer(tmp_path, capsys):
    convert.main([str(gguf_file(tmp_path / "m.gguf")), str(tmp_path / "hf")])
    assert difference(capsys.readouterr().out) == 0
    assert jaxlm.load_tokenizer(tmp_path / "hf").encode("the") == [29]


def test_a_target_that_is_not_empty_is_refused(tmp_path):
    source = gpt2_folder(tmp_path / "hf")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    for target in (tmp_path / "full", source / "config.json"):
        with pytest.raises(DataError, match="is not empty"):
            convert.main([str(source), str(target)])
    assert Path(tmp_path / "full" / "mine").exists()


def test_a_difference_would_be_seen(tmp_path, capsys, monkeypatch):
    """The comparison looks at the values of both sides."""
    load = pretrained.load

    def damaged(path, task=None, dtype=None):
        model, params = load(path, task, dtype)
        return model, {**params, "wte": params["wte"] + np.float32(0.5)}

    monkeypatch.setattr(pretrained, "load", damaged)
    convert.main([str(gpt2_folder(tmp_path / "hf")), str(tmp_path / "run")])
    assert difference(capsys.readouterr().out) > 0.01
