"""`python -m jaxlm.generate`: a prompt, a file of prompts, a conversation; and wrong commands in one line."""

import dataclasses
import io
import json

import jax
import pytest

import jaxlm
from jaxlm import generate
from jaxlm.errors import ConfigError, DataError
from jaxlm.inference import commanded
from jaxlm.inference import generate as inference
from jaxlm.inference.quantize import size
from jaxlm.models import gpt2, init_params, make_model
from jaxlm.text.tokenizers.bytes import Bytes

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model over bytes, with a chat template."""
    tokenizer = Bytes(0, TEMPLATE)
    model = make_model(gpt2.Config(vocab_size=tokenizer.vocab_size, n_positions=128, n_embd=16, n_layer=1, n_head=2))
    path = tmp_path_factory.mktemp("model")
    jaxlm.save(path, model, jax.jit(lambda: init_params(model, jax.random.key(0)))(), tokenizer)
    return str(path)


def said(capsys, *arguments):
    generate.main(list(arguments))
    return capsys.readouterr().out


def test_a_prompt_is_continued_the_same_by_the_same_seed(folder, capsys):
    one, two, other = (said(capsys, folder, "--prompt", "abc", "--max-new-tokens", "12", "--seed", seed) for seed in "112")
    assert one == two != other and one.startswith("abc")


def test_settings_of_the_library_are_settings_of_the_command(folder, capsys):
    model, params = jaxlm.load(folder)
    tokenizer = jaxlm.load_tokenizer(folder)
    for named in ({"num_beams": 3}, {"penalty_alpha": 0.5, "top_k": 4}, {"do_sample": False, "repetition_penalty": 1.5}):
        (want,) = jaxlm.generate_text(model, params, tokenizer, ["abc"], max_new_tokens=8, **named)
        assert said(capsys, folder, "--prompt", "abc", "--max-new-tokens", "8", *(f"{k}={v}" for k, v in named.items())) == f"abc{want}\n"


def test_a_file_is_continued_where_it_ends(folder, tmp_path, capsys):
    rows = [{"prompt": word, "id": i} for i, word in enumerate(["a", "long prompt", "b", "c", "dd"])]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = lambda name: generate.main(
        [folder, "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / name), "--batch-size", "2", "--max-new-tokens", "5"]
    )
    run("whole")
    text = (tmp_path / "whole").read_text()
    assert [{k: row[k] for k in ("prompt", "id")} for row in map(json.loads, text.splitlines())] == rows
    (tmp_path / "half").write_text("".join(text.splitlines(keepends=True)[:3]))
    run("half")
    assert (tmp_path / "half").read_text() == text
    assert "5 of 5 prompts" in capsys.readouterr().err


def test_a_conversation_remembers_itself(folder, capsys, monkeypatch):
    model, params = jaxlm.load(folder)
    tokenizer = jaxlm.load_tokenizer(folder)
    talk = [{"role": "user", "content": "hi"}]
    want = []
    for turn in ("how are you?", None):
        (answer,) = jaxlm.generate_text(model, params, tokenizer, [talk], max_new_tokens=6)
        want.append(answer)
        talk = [*talk, {"role": "assistant", "content": answer}, {"role": "user", "content": turn}]
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\nhow are you?\n"))
    assert said(capsys, folder, "--chat", "--temperature", "0", "--max-new-tokens", "6") == "".join(f"{answer}\n" for answer in want)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "x.jsonl"], "--input and --output go together"),
        (["--input", "x.jsonl", "--output", "y.jsonl", "--samples", "2"], "without --prompt, --chat and --samples"),
        (["num_beams"], "`num_beams` is not of the form name=value"),
        (["num_beam=3"], "did you mean num_beams"),
        (["num_beams=0"], "num_beams=0: it is at least 1"),
        (["num_beams=2", "early_stopping=Never"], "early_stopping=Never: True, False or 'never'"),
        (["--temperature", "0", "--top-k", "5"], "--top-k 5: --temperature 0 draws nothing: leave one of the two out"),
        (["temperature=0", "--top-p", "0.5"], "--top-p 0.5: --temperature 0 draws nothing"),
        (["--temperature", "-1"], "temperature=-1"),
        (["--chat", "--samples", "3"], "--samples 3: a conversation has one answer a turn"),
        (["--chat", "num_return_sequences=2"], "num_return_sequences=2: a conversation has one answer a turn"),
        (["--samples", "0"], "--samples 0: it is at least 1"),
        (["--batch-size", "0"], "--batch-size 0: it is at least 1"),
        (["--batch-size", "-2"], "--batch-size -2: it is at least 1"),
        (["assistant=3"], "assistant=3: no word can be one: leave it out"),
        (["tokenizer=3"], "tokenizer=3: no word can be one"),
        (["logprobs=3"], "logprobs=3: nothing here tells them"),
        (["seed=3"], "seed=3: say it as --seed"),
        (["num_return_sequences=x"], "num_return_sequences='x': this key takes int"),
        (["--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (["--bits", "5"], "argument --bits: invalid choice: 5"),
    ],
)
def test_wrong_commands_get_one_line(folder, arguments, message):
    with pytest.raises(ConfigError, match=message):
        generate.main([folder, *arguments])


def test_several_texts_stand_apart_as_samples_do(folder, capsys):
    named, tokenizer = {"num_beams": 3, "num_return_sequences": 3}, jaxlm.load_tokenizer(folder)
    texts = jaxlm.generate_text(*jaxlm.load(folder), tokenizer, ["abc"], max_new_tokens=8, **named)
    out = said(capsys, folder, "--prompt", "abc", "--max-new-tokens", "8", *(f"{k}={v}" for k, v in named.items()))
    assert out == "\n-----\n".join(f"abc{text}\n" for text in texts) and len(texts) == 3
    drawn = said(capsys, folder, "--prompt", "abc", "--max-new-tokens", "8", "num_return_sequences=2")
    assert drawn.count("\n-----\nabc") == 1
    assert said(capsys, folder, "--prompt", "abc", "--max-new-tokens", "8", "--samples", "2").count("\n-----\nabc") == 1


@pytest.fixture
def lengths(monkeypatch):
    """The most tokens that each call of the model may write."""
    seen, read = [], inference.read_prompts
    monkeypatch.setattr(inference, "read_prompts", lambda *arguments: seen.append(read(*arguments)) or seen[-1])
    return lambda: [most for _, _, most in seen]


@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        ([], 124),  # 128, less the prompt and its end
        (["num_beams=2"], 124),
        (["penalty_alpha=0.5", "top_k=4"], 124),
        (['stop_strings=["zzz"]'], 124),
        (["max_length=14"], 10),
        (["max_length=14", "num_beams=2"], 10),
        (["--max-new-tokens", "3"], 3),
    ],
)
def test_what_is_written_by_default_is_what_there_is_room_for(folder, lengths, arguments, most):
    generate.main([folder, "--prompt", "abc", *arguments])
    assert lengths() == [most]


def test_the_usual_number_caps_no_length_that_was_asked_for(tmp_path, lengths):
    tokenizer = Bytes(0, TEMPLATE)
    model = make_model(gpt2.Config(vocab_size=tokenizer.vocab_size, n_positions=512, n_embd=16, n_layer=1, n_head=2))
    jaxlm.save(tmp_path, model, jax.jit(lambda: init_params(model, jax.random.key(0)))(), tokenizer)
    for more in ([], ["max_length=300"], ["max_length=300", "num_beams=2"]):
        generate.main([str(tmp_path), "--prompt", "abc", f"bad_words_ids=[[{tokenizer.eos_id}]]", *more])
    assert lengths() == [200, 296, 296]


def test_a_prompt_without_room_is_named_before_anything_is_written(folder, tmp_path):
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("a\n" + "b" * 120 + "\n" + "c" * 127 + "\n")
    with pytest.raises(DataError, match="in.txt:3: 128 tokens of prompt and 1 new ones exceed the model's 128"):
        generate.main([folder, "--input", str(source), "--output", str(target), "--batch-size", "1"])
    with pytest.raises(DataError, match="in.txt:2: 121 tokens of prompt and 9 new ones exceed"):
        generate.main([folder, "--input", str(source), "--output", str(target), "--max-new-tokens", "9"])
    assert not target.exists()
    with pytest.raises(ConfigError, match="regex"):
        generate.main([folder, "--input", str(tmp_path / "in.txt"), "--output", str(target), "--max-new-tokens", "0", "regex=("])
    assert not target.exists()


def test_a_file_with_a_long_prompt_is_continued_to_the_same(folder, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("a\nbb\n" + "b" * 120 + "\nc\n")
    run = lambda name, size: generate.main([folder, "--input", str(source), "--output", str(tmp_path / name), "--batch-size", size])
    run("whole", "4")
    whole = (tmp_path / "whole").read_text()
    (tmp_path / "half").write_text("".join(whole.splitlines(keepends=True)[:1]))
    run("half", "2")
    assert (tmp_path / "half").read_text() == whole


@pytest.mark.parametrize("layout", ["unrolled", "stacked"])
def test_weights_and_computation_may_have_fewer_bits(folder, monkeypatch, capsys, layout):
    seen, loaded, show = [], jaxlm.load(folder, dtype="float32"), generate.show

    def load(directory, dtype):
        model, params = jaxlm.load(directory, dtype=dtype)
        if layout == "stacked":
            model, params = model.clone(compute=dataclasses.replace(model.compute, layout="stacked")), jaxlm.stack(params)
        return model, params

    monkeypatch.setattr(generate, "load", load)
    monkeypatch.setattr(generate, "show", lambda parts, *_: seen.append((*parts[:2], show(parts, *_))))
    for more in ([], ["--dtype", "bfloat16"], ["--dtype", "float16", "--bits", "8"], ["--bits", "4"]):
        said(capsys, folder, "--prompt", "abc", "--max-new-tokens", "4", *more)
    assert [model.compute.dtype for model, *_ in seen] == ["float32", "bfloat16", "float16", "float32"]
    assert size(seen[1][1]) * 2 == size(seen[0][1]) == size(loaded[1])
    assert size(seen[2][1]) < size(seen[1][1])
    kinds = [{leaf.dtype.name for leaf in jax.tree.leaves(params)} for _, params, *_ in seen]
    assert "int8" in kinds[2] and "uint4" in kinds[3] and not {"int8", "uint4"} & (kinds[0] | kinds[1])
    assert seen[0][0].compute.layout == layout and seen[2][0].compute.layout == "unrolled"


def test_computation_is_in_what_the_machine_is_fast_in(monkeypatch):
    asked = generate.parse(["x"])
    assert commanded.dtype_of(asked) == "float32" and commanded.dtype_of(generate.parse(["x", "--dtype", "bfloat16"])) == "bfloat16"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert commanded.dtype_of(asked) == "bfloat16"
