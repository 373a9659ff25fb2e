"""The adapter to the LM Evaluation Harness beside the harness's own adapter of transformers, on small random models."""

import functools
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from jaxlm import harness
from jaxlm.errors import ConfigError, DataError
from jaxlm.harness_model import JaxLM
from jaxlm.inference import score
from jaxlm.inference.generate import generate_tokens
from jaxlm.inference.score import score_tokens

WORDS = "the cat sat on the mat and the dog ran to a red house, where it was 12 o'clock. Q: what? A: a cat!\n\n"
CONTEXT = 64
PAIRS = [
    ("the cat sat on", " the mat"), ("the cat sat on", " the"), ("the dog ran to ", "a red house"), ("", "where it was"), ("", " the"),
    ("the cat sat on the mat and the dog ran to a red house, " * 6, "where it was 12 o'clock."), ("Q: what? A:", " a cat! cät 猫"),
    ("a\n\n", "b"),
]  # fmt: skip


def write_tokenizer(folder, end):
    """Byte-level BPE of a few hundred tokens; `end`: the template, as in "<s> $A"."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    names = ["<pad>", "</s>"] + ["<s>"] * ("<s>" in end)
    letters = pre_tokenizers.ByteLevel.alphabet()
    engine.train_from_iterator([WORDS], trainers.BpeTrainer(vocab_size=300, special_tokens=names, initial_alphabet=letters))
    engine.post_processor = processors.TemplateProcessing(single=end, special_tokens=[(name, i) for i, name in enumerate(names)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=engine, pad_token="<pad>", bos_token="<s>" if "<s>" in end else None, eos_token="</s>"
    ).save_pretrained(folder)


@functools.cache
def torch_config(kind):
    import transformers

    ids = {"vocab_size": 384 if kind == "byt5" else 300, "pad_token_id": 0, "eos_token_id": 1}
    if kind == "gpt2":
        return transformers.GPT2Config(**ids, bos_token_id=1, n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=2)
    if kind == "llama":
        return transformers.LlamaConfig(
            **ids, bos_token_id=2, max_position_embeddings=CONTEXT, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, intermediate_size=24,
        )  # fmt: skip
    return transformers.T5Config(
        **ids, decoder_start_token_id=0, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, n_positions=CONTEXT
    )


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """kind -> a folder as transformers writes it."""

    @functools.cache
    def write(kind):
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        torch.manual_seed(1)
        folder, config = tmp_path_factory.mktemp(kind), torch_config(kind)
        causal = kind in ("gpt2", "llama")
        model = (transformers.AutoModelForCausalLM if causal else transformers.AutoModelForSeq2SeqLM).from_config(config)
        with torch.no_grad():
            for tensor in model.parameters():
                tensor += 0.3 * torch.randn_like(tensor)
        model.save_pretrained(folder)
        if kind == "byt5":
            transformers.ByT5Tokenizer().save_pretrained(folder)
        else:
            write_tokenizer(folder, {"gpt2": "$A", "llama": "<s> $A", "t5": "$A </s>"}[kind])
        return str(folder)

    return write


@pytest.fixture(scope="module")
def both(folder_of):
    """kind -> (our adapter, the harness's own)."""

    @functools.cache
    def make(kind):
        from lm_eval.models.huggingface import HFLM

        backend = "causal" if kind in ("gpt2", "llama") else "seq2seq"
        theirs = HFLM(pretrained=folder_of(kind), device="cpu", batch_size=2, backend=backend, max_length=CONTEXT)
        return JaxLM(pretrained=folder_of(kind), batch_size=4, max_length=CONTEXT), theirs

    return make


def requests(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, given, number) for number, given in enumerate(arguments)]


def near(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "byt5"])
def test_log_likelihoods_are_those_of_the_harness(both, kind):
    """Near duplicates, spaces between the two texts, no context, a context that is too long, letters of several bytes."""
    pairs = PAIRS + ([("<s>the cat", " sat")] if kind == "llama" else [])
    ours, theirs = (adapter.loglikelihood(requests("loglikelihood", *pairs), disable_tqdm=True) for adapter in both(kind))
    near([total for total, _ in ours], [total for total, _ in theirs])
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_what_the_model_would_say_is_greedy(both, kind):
    """The continuations are what each adapter generates; the random ones above are greedy nowhere."""
    ours, theirs = both(kind)
    context = ours.tok_encode("the cat")
    said = generate_tokens(ours.model, ours.params, np.array([context]), max_new_tokens=3, eos_token_id=())[0].tolist()
    ids = [(("", ""), context, said), (("", ""), context, said[:2] + [said[2] ^ 1]), (("", ""), context, [said[0] ^ 1] + said[1:])]
    found, wanted = ours._loglikelihood_tokens(ids, disable_tqdm=True), theirs._loglikelihood_tokens(ids, disable_tqdm=True)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted] == [True, False, False]
    near([total for total, _ in found], [total for total, _ in wanted])


def test_a_context_of_spaces_counts_as_none(both):
    """Its spaces go to the continuation, and nothing is left of it; the harness's own adapter stops here."""
    ours, _ = both("gpt2")
    found = ours.loglikelihood(requests("loglikelihood", (" ", "x"), ("", " x")), disable_tqdm=True)
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
def test_whole_texts_are_scored_in_windows(both, kind):
    texts = [(WORDS * 3,), ("the cat",), (WORDS,)]
    ours, theirs = (adapter.loglikelihood_rolling(requests("loglikelihood_rolling", *texts), disable_tqdm=True) for adapter in both(kind))
    near(ours, theirs)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "byt5"])
def test_generated_texts_are_those_of_the_harness(both, kind):
    """Several lengths, a context that is cut on the left, stop strings of what is really said, two settings at once."""
    ours, theirs = both(kind)
    free = {"until": [], "max_gen_toks": 20}
    starts = ["the cat", "Q: what? A:", WORDS * 4, "the dog ran to a red house, where it was"]
    first = ours.generate_until(requests("generate_until", *[(start, free) for start in starts]), disable_tqdm=True)
    number, stop = next((i, found.group()) for i, text in enumerate(first) if (found := re.search("(?<=.)[^\ufffd]{1,2}", text)))
    stop = {"until": [stop, "never said"], "max_gen_toks": 18, "do_sample": False}
    asked = [(start, settings) for settings in (free, stop) for start in starts]
    # With an encoder, the harness's own adapter adds the length of the context to max_gen_toks.
    longest = lambda settings: {"max_length": settings["max_gen_toks"] + 1} if theirs.backend == "seq2seq" else {}
    told = [(start, settings | longest(settings)) for start, settings in asked]
    found = ours.generate_until(requests("generate_until", *asked), disable_tqdm=True)
    assert found == theirs.generate_until(requests("generate_until", *told), disable_tqdm=True)
    assert found[: len(starts)] == first and len(set(first)) > 1 and 0 < len(found[4 + number]) < len(first[number])


TASK = {
    "task": "cats", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{question}}\nA:",
    "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}  # fmt: skip
ROWS = [{"question": f"Q: what {i}?", "choices": ["a cat", "the dog", "12 o'clock", "it"], "answer": i % 4} for i in range(8)]


def test_a_task_end_to_end(folder_of, tmp_path, monkeypatch):
    """simple_evaluate by the names `jaxlm` and `hf`, on a file of one's own, without a network."""
    import datasets
    import lm_eval

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # it asks the machine for seconds
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    data = {"data_files": {"test": str(tmp_path / "rows.jsonl")}}
    results = {}
    for name, more in (("jaxlm", ""), ("hf", ",device=cpu")):
        found = lm_eval.simple_evaluate(
            model=name, model_args=f"pretrained={folder_of('gpt2')}{more}", tasks=[{**TASK, "dataset_kwargs": data}], num_fewshot=1,
            batch_size=4, bootstrap_iters=0, task_manager=lm_eval.tasks.TaskManager(include_defaults=False),
        )  # fmt: skip
        results[name] = found["results"]["cats"], [row["filtered_resps"] for row in found["samples"]["cats"]]
    assert results["jaxlm"][0] == results["hf"][0]
    scores = [[[total for total, _ in row] for row in results[name][1]] for name in ("jaxlm", "hf")]
    near(*map(np.array, scores))


def test_the_command_registers_the_model_and_hands_over(monkeypatch):
    from lm_eval.api.registry import get_model

    seen = []
    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", lambda: seen.append((sys.argv[1:], get_model("jaxlm"))))
    monkeypatch.setattr(sys, "argv", ["harness"])
    for words in (["--tasks", "piqa"], ["run", "--model", "hf"], ["--model=hf", "--tasks", "piqa"], ["ls", "tasks"]):
        harness.main(words)
    assert [words for words, _ in seen] == [
        ["run", "--tasks", "piqa", "--model", "jaxlm"], ["run", "--model", "hf"], ["run", "--model=hf", "--tasks", "piqa"], ["ls", "tasks"],
    ]  # fmt: skip
    assert seen[0][1] is JaxLM


def test_without_the_harness_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.__main__", None)
    with pytest.raises(ConfigError, match=r'pip install "jaxlm\[harness\]"'):
        harness.main([])


@pytest.mark.slow
def test_the_command_line_of_the_harness(folder_of, tmp_path):
    """In a process of its own, as a user would: the harness's command line, and a task from a YAML file."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    task = TASK | {"dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}}}
    (tmp_path / "cats.yaml").write_text(json.dumps(task))  # JSON is YAML
    words = ["--model_args", f"pretrained={folder_of('gpt2')}", "--tasks", "cats", "--include_path", str(tmp_path), "--limit", "4"]
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-m", "jaxlm.harness", *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "|cats " in done.stdout and "jaxlm ({'pretrained'" in done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "no model: give --model_args pretrained=DIR"),
        ({"pretrained": "x", "max_lenght": 3}, "did you mean 'max_length'"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message):
        JaxLM(**arguments)


def test_what_cannot_be_done_is_refused(folder_of, both):
    ours, _ = both("gpt2")
    for settings, message in [
        ({"do_sample": True, "temperature": 0.7}, "decodes greedily"),
        ({"max_gen_toks": 64}, "leaves no room"),
        ({"num_beams": 4}, "'num_beams' is not known"),
    ]:
        with pytest.raises(ConfigError, match=message):
            ours.generate_until(requests("generate_until", ("the cat", settings)))
    with pytest.raises(ConfigError, match="max_length=65 exceeds the model's 64 positions"):
        JaxLM(pretrained=folder_of("gpt2"), max_length=65)
    for pair, message in [
        (([], [1]), "no context"),
        (([1], []), "no continuation"),
        (([1], [2] * 9), "9 tokens"),
        (([1], [300]), "outside"),
    ]:
        with pytest.raises(DataError, match=message):
            list(score_tokens(ours.model, ours.params, [pair], length=8))


def test_a_batch_needs_one_program(both):
    """Lengths that share a bucket share the program, and a last batch that is not full has the shape of the others."""
    ours, _ = both("gpt2")
    before = score._score._cache_size()
    list(score_tokens(ours.model, ours.params, [(range(1, 2 + n), [5] * (1 + n % 3)) for n in range(7)], length=33, batch_size=5))
    assert score._score._cache_size() == before + 1
