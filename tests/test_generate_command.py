"""`python -m jaxlm.generate`: a prompt, a file of prompts, a conversation; and wrong commands in one line."""

import io
import json

import jax
import pytest

import jaxlm
from jaxlm import generate
from jaxlm.errors import ConfigError
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
    ],
)
def test_wrong_commands_get_one_line(folder, arguments, message):
    with pytest.raises(ConfigError, match=message):
        generate.main([folder, *arguments])
