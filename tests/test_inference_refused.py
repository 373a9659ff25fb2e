"""Arguments of decoding that would do nothing, or end deep inside, are refused in one line with the mend."""

import functools

import jax
import pytest

import jaxlm
from jaxlm.errors import ConfigError
from jaxlm.inference.generate import generate, generate_tokens, stream_tokens
from jaxlm.inference.settings import Settings, make_settings
from jaxlm.inference.texts import stream_text
from jaxlm.models import bart, bert, gpt2, init_params, make_model
from jaxlm.text.tokenizers.bytes import Bytes

GPT2 = gpt2.Config(vocab_size=300, n_positions=24, n_embd=16, n_layer=1, n_head=2)
BERT = bert.Config(32, 16, 2, 2, 24, max_position_embeddings=24)
BART = {"vocab_size": 32, "d_model": 16, "max_position_embeddings": 24, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_layers": 1}
BART |= {"decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "eos_token_id": None, "decoder_start_token_id": 2}
BART = bart.Config(**BART)


@functools.cache
def made(config, task=None):
    model = make_model(config, task=task)
    return model, jax.jit(lambda: init_params(model, jax.random.key(0)))()


def refused(said, call, *arguments, **named):
    with pytest.raises(ConfigError, match=said) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("early", ["Never", 1, "yes"])
def test_early_stopping_is_true_false_or_never(early):
    refused("early_stopping=.*: True, False or 'never'", make_settings, {"num_beams": 2, "early_stopping": early})
    refused("early_stopping=.*: True, False or 'never'", Settings, num_beams=2, early_stopping=early)
    assert [make_settings({"num_beams": 2, "early_stopping": known}).early_stopping for known in (True, False, "never")]
    refused("early_stopping=never: is of beam search", make_settings, {"early_stopping": "never"})


IDLE = [
    ({"max_matching_ngram_size": 3}, "max_matching_ngram_size=3: is of guesses from the text: set prompt_lookup_num_tokens"),
    ({"decoder_start_token_id": 0}, "decoder_start_token_id is what a decoder over an encoder reads first, and gpt2 has no encoder"),
    ({"prompt_lookup_num_tokens": 24}, "prompt_lookup_num_tokens=24: the model reads 24 tokens, guesses among them: guess fewer"),
    ({"num_assistant_tokens": 24, "assistant": "same"}, "num_assistant_tokens=24: the model reads 24 tokens"),
    ({"assistant": "model"}, r"assistant is a GPT2, no pair: give assistant=\(model, params\)"),
    ({"assistant": 3}, "assistant is a int, no pair"),
    ({"logprobs": 301}, "logprobs=301: there are 300 tokens: ask for fewer alternatives"),
]


@pytest.mark.parametrize(("named", "said"), IDLE, ids=lambda part: next(iter(part)) if isinstance(part, dict) else "")
def test_what_does_nothing_or_cannot_be_is_one_line(named, said):
    others = {"same": made(GPT2), "model": made(GPT2)[0]}
    named = named | {name: others.get(value, value) for name, value in named.items() if name == "assistant"}
    refused(said, generate, *made(GPT2), [[1, 2]], **named)


def test_as_many_guesses_as_can_be_read_are_taken():
    plain = generate_tokens(*made(GPT2), [[1, 2]]).tolist()
    assert plain == generate_tokens(*made(GPT2), [[1, 2]], prompt_lookup_num_tokens=23, max_matching_ngram_size=1).tolist()
    assert plain == generate_tokens(*made(GPT2), [[1, 2]], assistant=made(GPT2), num_assistant_tokens=23).tolist()


def test_log_probabilities_are_refused_where_nobody_would_be_told():
    parts, said = (*made(GPT2), Bytes(0, None)), "logprobs=2: only .* tells them"
    refused(said, jaxlm.generate_text, *parts, ["a"], logprobs=2)
    refused(said, lambda: list(stream_text(*parts, "a", logprobs=2)))
    refused(said, generate_tokens, *made(GPT2), [[1]], logprobs=2)
    refused(said, lambda: list(stream_tokens(*made(GPT2), [[1]], logprobs=2)))
    assert generate(*made(GPT2), [[1]], logprobs=2, max_new_tokens=1).top_ids.shape == (1, 1, 2)


def test_a_stream_is_one_text():
    parts = (*made(GPT2), Bytes(0, None))
    refused("num_return_sequences=2: a stream is one text", lambda: list(stream_text(*parts, "a", do_sample=True, num_return_sequences=2)))
    assert list(stream_text(*parts, "a", num_return_sequences=1, max_new_tokens=1))


NO_WRITERS = [
    (BERT, "masked-lm", "this bert sees what comes after a token, and writes no text: .*fill_mask fills its masks"),
    (
        bert.Config(32, 16, 2, 2, 24, is_decoder=True),
        "masked-lm",
        "a bert of task='masked-lm' writes no text: load it with task='causal-lm'",
    ),
    (GPT2, "features", "a gpt2 of task='features' writes no text: load it with task='causal-lm'"),
    (BART, "features", "a bart of task='features' writes no text: load it with task='seq2seq-lm'"),
]


@pytest.mark.parametrize(("config", "task", "said"), NO_WRITERS, ids=lambda part: part if part in ("masked-lm", "features") else "")
def test_models_that_write_nothing_say_so(config, task, said):
    refused(said, generate_tokens, make_model(config, task=task), {}, [[1, 2]])


@pytest.mark.parametrize(
    ("prompts", "said"),
    [("abc", r"prompts are one text: give a list of them, \[text\]"), ([3], "a prompt is a int: give a text, or a list of messages")],
)
def test_prompts_are_a_list_of_texts_or_conversations(prompts, said):
    refused(said, jaxlm.generate_text, *made(GPT2), Bytes(0, None), prompts, max_new_tokens=1)


def test_a_conversation_in_the_place_of_the_list_is_refused():
    refused("a prompt is a dict", jaxlm.generate_text, *made(GPT2), Bytes(0, None), [{"role": "user", "content": "hi"}])


def test_the_room_of_a_decoder_over_an_encoder_is_told_as_it_is():
    run = lambda **named: generate_tokens(*made(BART), [[5, 6, 7]], **named)
    refused("^25 new tokens exceed the decoder's 24 positions: lower max_new_tokens$", run, max_new_tokens=25)
    refused("^29 new tokens exceed the decoder's 24 positions: lower max_length$", run, max_length=30)
    assert run(max_new_tokens=24).shape == run(max_length=25).shape == run().shape == (1, 24)
