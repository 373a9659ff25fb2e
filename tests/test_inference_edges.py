"""The edges of decoding: what is short, long, empty or wrong; the growing cache; what compiles; meshes; generation_config.json."""

import dataclasses
import functools
import json
import logging

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm import sharding
from jaxlm.config import Mesh
from jaxlm.errors import ConfigError
from jaxlm.inference import loop, prompts
from jaxlm.inference.generate import generate, generate_tokens, settings_for
from jaxlm.inference.settings import Settings, make_settings
from jaxlm.models import gpt2, init_params, llama, make_model, mistral, t5
from jaxlm.text.training import train_tokenizer
from tests.foreign import LLAMA as LLAMA_FILE
from tests.foreign import config_of, tensors_of, write

GPT2 = gpt2.Config(vocab_size=32, n_positions=24, n_embd=16, n_layer=2, n_head=4, initializer_range=0.4)
LLAMA = llama.Config(
    vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=24,
    max_position_embeddings=64, initializer_range=0.4,
)  # fmt: skip
T5 = t5.Config(vocab_size=32, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4)


@functools.cache
def made(config):
    model = make_model(config)
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(1))
    return model, jax.tree.map(lambda leaf: leaf * 2 if leaf.ndim > 1 else leaf, params)


def test_rows_that_pad_a_vocabulary_spell_nothing():
    """A table may have more rows than there are tokens, so that a mesh divides it."""
    tokenizer = train_tokenizer("word", ["a b c d e f"] * 5, 20)
    write = lambda **named: jaxlm.generate_text(*made(GPT2), tokenizer, ["a b"], max_new_tokens=6, **named)
    assert tokenizer.vocab_size < 31 and write(sequence_bias={(31,): 1e4}) == write(sequence_bias={(31,): 1e4}, stop_strings=["z"]) == [""]
    known = tokenizer.encode("c")[0]
    assert write(sequence_bias={(known,): 1e4}) == ["c c c c c c"]


def rows_of(lengths, width=None, right=False):
    """Random rows of these lengths; `right`: with the padding there."""
    width = width or max(lengths)
    tokens, there = np.random.default_rng(5).integers(2, 30, (len(lengths), width)), np.array(lengths)[:, None]
    return tokens, np.arange(width) < there if right else np.arange(width) >= width - there


def write_rows(config, lengths, **named):
    tokens, mask = rows_of(lengths, 8)
    named = {"max_new_tokens": 6, "eos_token_id": 31, "pad_token_id": 0} | named
    return generate_tokens(*made(config), tokens, mask=mask, **named).tolist()


@pytest.mark.parametrize("count", [1, 3, 5, 9])
def test_batches_of_every_size_say_what_their_rows_say(count):
    lengths = [8, 1, 4, 2, 8, 3, 1, 5, 7][:count]
    tokens, mask = rows_of([8, 1, 4, 2, 8, 3, 1, 5, 7])
    together = generate_tokens(*made(GPT2), tokens[:count], mask=mask[:count], max_new_tokens=6)
    assert len(together) == count
    for row in (0, count - 1):
        alone = generate_tokens(*made(GPT2), tokens[row : row + 1][:, 8 - lengths[row] :], max_new_tokens=6)
        assert alone.tolist() == together[row : row + 1].tolist()


@pytest.mark.parametrize("config", [GPT2, LLAMA, T5], ids=lambda config: config.model_type)
def test_padding_may_stand_on_either_side_or_between(config):
    lengths = (5, 2, 1)
    (tokens, left), (_, right) = rows_of(lengths, 6), rows_of(lengths, 6, right=True)
    moved = np.zeros_like(tokens)
    moved[right] = tokens[left]
    between = np.insert(moved, 1, 7, axis=1), np.insert(right, 1, False, axis=1)
    say = lambda tokens, mask: generate_tokens(*made(config), tokens, mask=mask, max_new_tokens=6).tolist()
    assert say(tokens, left) == say(moved, right) == say(*between)


def test_no_new_token_and_one():
    model, params = made(GPT2)
    tokens, mask = rows_of([8, 3])
    none = generate(model, params, tokens, mask=mask, max_new_tokens=0, logprobs=2, do_sample=True, num_return_sequences=2)
    assert none.tokens.shape == (4, 0) and none.lengths.tolist() == [0] * 4
    assert none.logprobs.shape == (4, 0) and none.top_ids.shape == (4, 0, 2)
    one = generate(model, params, tokens, mask=mask, max_new_tokens=1, logprobs=0)
    assert one.tokens.shape == one.entropies.shape == (2, 1) and one.top_ids is None and one.lengths.tolist() == [1, 1]
    assert generate_tokens(model, params, tokens, mask=mask, max_length=8).shape == (2, 0)
    assert generate_tokens(model, params, tokens, mask=mask, max_length=10, max_new_tokens=9).shape == (2, 2)


def test_a_row_that_ends_at_once_is_padded_while_others_go_on():
    free = write_rows(GPT2, [8, 3, 5])
    ended = write_rows(GPT2, [8, 3, 5], eos_token_id=free[0][0])
    assert ended[0] == [free[0][0]] + [0] * (len(ended[0]) - 1)
    assert write_rows(GPT2, [8], eos_token_id=[free[0][0], 31]) == [free[0][:1]]  # all rows have ended
    made_here = generate(*made(GPT2), rows_of([8])[0], max_new_tokens=6, eos_token_id=free[0][0], logprobs=1)
    assert made_here.logprobs.shape == (1, 1) and made_here.lengths.tolist() == [1]


def test_rows_that_fill_up_a_bucket_do_not_keep_the_others_waiting():
    """Three rows are computed as four: the fourth counts as ended."""
    tokens = np.repeat(rows_of([8])[0], 3, axis=0)
    first = generate_tokens(*made(GPT2), tokens, max_new_tokens=6)[0, 1]
    assert generate_tokens(*made(GPT2), tokens, max_new_tokens=6, eos_token_id=int(first)).shape[1] <= 2


@pytest.mark.parametrize("config", [GPT2, LLAMA, T5], ids=lambda config: config.model_type)
def test_the_cache_grows_and_says_the_same(config, monkeypatch):
    want = write_rows(config, [8, 3, 5], max_new_tokens=16)
    monkeypatch.setattr(prompts, "BUCKETS", (2, 4, 8))
    monkeypatch.setattr(prompts, "SLOTS", 4)
    sizes = []
    grown = loop.grow
    monkeypatch.setattr(loop, "grow", lambda state, slots, windows: sizes.append(slots) or grown(state, slots, windows))
    assert write_rows(config, [8, 3, 5], max_new_tokens=16) == want
    assert sizes == ([8, 16, 32] if config is T5 else [32])


def test_a_block_on_the_device_says_what_single_steps_say(monkeypatch):
    want = write_rows(GPT2, [8, 3, 5], max_new_tokens=16)
    monkeypatch.setattr(prompts, "SLOTS", 4)
    monkeypatch.setattr(loop, "BLOCK", 5)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert write_rows(GPT2, [8, 3, 5], max_new_tokens=16) == want


@pytest.mark.parametrize("config", [GPT2, T5], ids=lambda config: config.model_type)
def test_a_second_call_in_the_bucket_compiles_nothing(config, caplog):
    named = {"do_sample": True, "top_p": 0.9}
    write_rows(config, [8, 3, 5], seed=1, **named)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        write_rows(config, [2, 1, 7], max_new_tokens=9, seed=2, max_length=11, **named)
        assert not [record.getMessage() for record in caplog.records if "Compiling" in record.getMessage()]
        write_rows(config, [2, 1, 7], seed=2, temperature=0.5, **named)
    assert any("Compiling" in record.getMessage() for record in caplog.records)  # the log would have shown it


FRESH = [dataclasses.replace(config, vocab_size=40) for config in (GPT2, LLAMA, T5)]
WINDOW = mistral.Config(40, 16, 24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, sliding_window=4)


@pytest.mark.parametrize("config", [*FRESH, WINDOW], ids=lambda config: config.model_type)
def test_the_step_is_compiled_once_beside_the_reading_of_prompts(config, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        generate(*made(config), rows_of([8, 3, 5])[0], max_new_tokens=6, logprobs=2)
    said = [record.getMessage() for record in caplog.records if "jit(advance)" in record.getMessage()]
    # What another thread compiles is not logged here: with shapes unlike those of the call, this one would lower and compile again.
    assert [words.split()[0] for words in said] == ["Compiling", "Finished"] and "Finished jaxpr to MLIR" in said[1]


def test_the_whole_context_and_no_more():
    model, params = made(GPT2)
    full = np.ones((1, 24), int)
    assert generate_tokens(model, params, full, max_new_tokens=0).shape == (1, 0)
    assert generate_tokens(model, params, full[:, :23]).shape == (1, 1)
    assert generate_tokens(model, params, full[:, :1], max_new_tokens=23).shape == (1, 23)
    for tokens, named, said in [
        (full, {}, "24 tokens of prompt and 1 new ones exceed the model's 24: cut one of them"),
        (full, {"max_new_tokens": 1}, "24 tokens of prompt and 1 new ones exceed"),
        (np.ones((1, 25), int), {"max_new_tokens": 0}, "25 tokens of prompt and 0 new ones exceed"),
        (full, {"max_length": 5}, "max_length=5 is less than the 24 tokens of prompt"),
    ]:
        with pytest.raises(ConfigError, match=said):
            generate_tokens(model, params, tokens, **named)


BAD_ROWS = [
    (np.zeros((0, 3), int), None, "an empty prompt"),
    ([[1, 2]], [[False, False]], "an empty prompt"),
    ([1, 2, 3], None, r"tokens \[3\] and mask \[3\]: both are \[rows, length\]"),
    ([[1, 2, 3]], [[True, True]], r"tokens \[1, 3\] and mask \[1, 2\]"),
    ([[1, 2], [3]], None, "rows of unlike lengths: fill them up"),
    ([[1.5, 2.0]], None, "tokens are float64: ids are integers"),
    ([[2**40]], None, "outside the vocabulary of 32"),
]


@pytest.mark.parametrize(("tokens", "mask", "said"), BAD_ROWS)
def test_rows_that_are_none_are_refused(tokens, mask, said):
    with pytest.raises(ConfigError, match=said) as caught:
        generate_tokens(*made(GPT2), tokens, mask=mask, max_new_tokens=2)
    assert "\n" not in str(caught.value)


WRONG = [
    ({"max_new_tokens": -1}, "max_new_tokens=-1: it is at least 0"),
    ({"max_new_tokens": 2.5}, "max_new_tokens=2.5: this key takes int"),
    ({"temperature": "hot"}, "temperature='hot': this key takes float"),
    ({"do_sample": 1}, "do_sample=1: this key takes bool"),
    ({"repetition_penalty": 0}, "repetition_penalty=0.0: a positive number"),
    ({"frequency_penalty": float("nan")}, "frequency_penalty=nan: it is a finite number"),
    ({"top_k": 0, "do_sample": True}, "top_k=0: at least one token must remain; leave it out"),
    ({"top_p": 1.5, "do_sample": True}, "top_p=1.5: a share"),
    ({"temperature": 0.7}, "temperature=0.7: nothing is drawn: set do_sample=True"),
    ({"top_k": 5}, "top_k=5: nothing is drawn"),
    ({"top_p": 0.5}, "top_p=0.5: nothing is drawn"),
    ({"length_penalty": 2.0}, "length_penalty=2.0: is of beam search: set num_beams"),
    ({"early_stopping": True}, "early_stopping=True: is of beam search"),
    ({"num_return_sequences": 2}, "num_return_sequences=2: more than there are"),
    ({"min_new_tokens": 5, "max_new_tokens": 4}, "min_new_tokens=5: more than max_new_tokens"),
    ({"min_length": 9, "max_length": 8}, "min_length=9: more than max_length"),
    ({"eos_token_id": -1}, "eos_token_id=.-1,.: ids of tokens, from 0 on"),
    ({"eos_token_id": "</s>"}, "eos_token_id=.*ids of tokens"),
    ({"pad_token_id": -100}, "pad_token_id=-100: the id of a token"),
    ({"bad_words_ids": [3]}, "bad_words_ids=.*sequences of ids"),
    ({"bad_words_ids": [[]]}, "bad_words_ids=.*none of them empty"),
    ({"bad_words_ids": [[1, 32]]}, "bad_words_ids holds 32, outside the vocabulary of 32"),
    ({"sequence_bias": {(40,): 1.0}}, "sequence_bias holds 40, outside"),
    ({"sequence_bias": {(4,): "much"}}, "sequence_bias=.*it takes"),
    ({"logit_bias": {"4": 1.0}}, "logit_bias=.*{id: a number}"),
    ({"logit_bias": {4: float("inf")}}, "logit_bias=.*{id: a number}"),
    ({"suppress_tokens": [1, 99]}, "suppress_tokens holds 99, outside"),
    ({"forced_eos_token_id": 77}, "forced_eos_token_id holds 77, outside"),
    ({"stop_strings": ""}, "stop_strings=.*none of them empty"),
    ({"seed": -1}, "seed=-1: from 0"),
    ({"seed": [1, 2], "do_sample": True}, "2 seeds for 1 rows"),
    ({"encoder_repetition_penalty": 1.5}, "looks at an encoder's text, and gpt2 has no encoder"),
    ({"cache_dtype": "int3"}, "cache_dtype=int3: int8"),
]


@pytest.mark.parametrize(("named", "said"), WRONG, ids=lambda part: str(part)[:40] if isinstance(part, dict) else "")
def test_numbers_out_of_range_and_contradictions_are_one_line(named, said):
    with pytest.raises(ConfigError, match=said) as caught:
        generate_tokens(*made(GPT2), [[1, 2]], **named)
    assert "\n" not in str(caught.value)


def test_every_argument_of_transformers_works_or_is_refused_by_name():
    from transformers import GenerationConfig

    known = {field.name for field in dataclasses.fields(Settings)}
    theirs = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    assert {"max_new_tokens", "num_beams", "typical_p", "no_repeat_ngram_size", "sequence_bias"} <= theirs & known
    for name in theirs - known:
        with pytest.raises(ConfigError, match=f"^{name} is not supported: "):
            generate_tokens(*made(GPT2), [[1, 2]], **{name: 1})


def test_arrays_and_lists_are_as_good_as_numbers_and_tuples():
    named = {"eos_token_id": np.int64(3), "bad_words_ids": [np.array([1, 2]), [3]], "temperature": np.float32(0.5), "seed": np.arange(2)}
    named |= {"suppress_tokens": np.array([4]), "sequence_bias": [[[1, 2], 3]], "logit_bias": {np.int32(7): 1}, "do_sample": np.True_}
    settings = make_settings(named)
    assert settings.eos_token_id == (3,) and settings.bad_words_ids == ((1, 2), (3,)) and settings.seed == (0, 1)
    assert settings.sequence_bias == (((1, 2), 3.0),) and settings.logit_bias == ((7, 1.0),) and hash(settings)


@pytest.mark.parametrize("config", [LLAMA, T5], ids=lambda config: config.model_type)
def test_a_mesh_changes_no_token(config):
    model, params = made(config)
    tokens, mask = rows_of([8, 3, 5])
    hows = ({"repetition_penalty": 1.3}, {"do_sample": True, "top_k": 9, "seed": 3}, {"do_sample": True, "seed": [4, 5, 6]})
    named = {"max_new_tokens": 6, "mask": mask, "logprobs": 2}
    want = [generate(model, params, tokens, **named, **how) for how in hows]
    mesh = sharding.make_mesh(Mesh(data=2, fsdp=2, tensor=2))
    with sharding.use(mesh):
        like = jax.eval_shape(lambda: init_params(model, jax.random.key(1), rows=4))
        lay = lambda leaf, abstract: jax.device_put(np.asarray(leaf), jax.NamedSharding(mesh, abstract.sharding.spec))
        placed = jax.tree.map(lay, params, like)
        assert not all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(placed))
        got = [generate(model, placed, tokens, **named, **how) for how in hows]
    for one, other in zip(want, got, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


def folder_with(folder, config, generation):
    """A Llama with a generation_config.json."""
    write(folder, config_of(LLAMA_FILE, "LlamaForCausalLM") | {"num_key_value_heads": 2} | config, tensors_of(LLAMA_FILE, "causal-lm"))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def test_the_ids_of_generation_config_are_defaults_and_its_methods_are_not(tmp_path):
    said = {
        "eos_token_id": [5, 6],
        "pad_token_id": 3,
        "suppress_tokens": [1],
        "no_repeat_ngram_size": 3,
        "do_sample": True,
        "min_length": 9,
    }
    folder = folder_with(tmp_path / "a", {"pad_token_id": 2, "bos_token_id": 1}, said)
    model, params = jaxlm.load(folder)
    settings = settings_for(model, {})
    assert (settings.eos_token_id, settings.pad_token_id, settings.suppress_tokens) == ((5, 6), 3, (1,))
    assert settings == make_settings({"eos_token_id": [5, 6], "pad_token_id": 3, "suppress_tokens": [1]})
    assert settings_for(model, {"eos_token_id": 7}).eos_token_id == (7,)
    jaxlm.save(tmp_path / "b", model, params)
    before, after = (json.loads((tmp_path / side / "config.json").read_text()) for side in "ab")
    assert {key: after[key] for key in before} == before and "eos_token_id" not in after
    kept = json.loads((tmp_path / "b" / "generation_config.json").read_text())
    assert kept == {"eos_token_id": [5, 6], "pad_token_id": 3, "suppress_tokens": [1]}
    assert settings_for(jaxlm.load(tmp_path / "b")[0], {}) == settings


def test_without_generation_config_nothing_is_added(tmp_path):
    folder = folder_with(tmp_path, {}, {})
    assert "generation_config" not in jaxlm.load(folder)[0].config.extra
    (folder / "generation_config.json").unlink()
    assert "generation_config" not in jaxlm.load(folder)[0].config.extra
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(jaxlm.errors.DataError, match="generation_config.json is no readable JSON"):
        jaxlm.load(folder)
