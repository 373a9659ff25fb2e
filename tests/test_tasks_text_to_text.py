"""Pairs as examples and as batches: special tokens, languages, what is cut and what is refused; the loss, packed and beside torch's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import torch_model
from parity_seq2seq import BART, ENDS, SINUSOIDS, T5, Case

import jaxlm
from jaxlm.config import Data, Loss, Records, Run
from jaxlm.data.example_batches import ExampleBatches, plan
from jaxlm.data.examples import in_memory
from jaxlm.data.pair_rows import PairShape
from jaxlm.errors import ConfigError, DataError
from jaxlm.models import init_params, make_model, mbart, t5, transformer
from jaxlm.ops.special_ids import of_tokenizer, said, start_id
from jaxlm.tasks import pair_sides, text_to_text
from jaxlm.tasks.pair_sides import Unfit, make_sides, with_special_ids
from jaxlm.text.sides import Sides, load_sides
from jaxlm.text.tokenizers import fast
from jaxlm.text.training import train_tokenizer

WORDS = "a b c d e f g h".split()
RUN = Run(task="translation", data=Data(sequence_length=8, target_length=6))
TINY = transformer.Config(
    vocab_size=16, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
    encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=64,
)  # fmt: skip


def words(template, controls=("<pad>", "</s>")):
    """A tokenizer of single words, by tokenizers' own template around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    names = [*controls, "[UNK]", *WORDS]
    engine = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    engine.add_special_tokens(list(controls))
    if template:
        special = [(name, names.index(name)) for name in template.split() if name in controls]
        engine.post_processor = processors.TemplateProcessing(single=template, pair=f"{template} $B", special_tokens=special)
    return fast.finish(engine, "</s>" if "</s>" in controls else None, "<pad>" if "<pad>" in controls else None, unk="[UNK]")


ENDED, BARE = words("$A </s>"), words(None)
AROUND = words("<s> $A </s>", ("<s>", "<pad>", "</s>"))
MBART = words("$A </s> en_XX", ("<s>", "<pad>", "</s>", "en_XX", "de_DE", "fr_XX"))
MBART50 = words("en_XX $A </s>", ("<s>", "<pad>", "</s>", "en_XX", "de_DE", "fr_XX"))
MARIAN = words("$A </s>", ("<pad>", "</s>", ">>deu<<", ">>fra<<"))


def example(source, target, tokenizer=ENDED, **options):
    run = dataclasses.replace(RUN, records=Records(**options))
    record = {"source": source} if target is None else {"source": source, "target": target}
    return text_to_text.features(record, make_sides(tokenizer, tokenizer.as_target(), run), run.records, 8)[0]


def spelled(ids, tokenizer):
    return " ".join(tokenizer.piece(int(i)) for i in ids)


@pytest.mark.parametrize(
    "tokenizer, source, target",
    [(ENDED, "a b </s>", "c </s>"), (BARE, "a b", "c </s>"), (AROUND, "<s> a b </s>", "<s> c </s>")],
    ids=["with an end", "without", "around"],
)
def test_a_target_ends_once_and_a_source_as_the_template_says(tokenizer, source, target):
    made = example("a b", "c", tokenizer)
    assert (spelled(made["tokens"], tokenizer), spelled(made["targets"], tokenizer)) == (source, target)
    assert made["about"] == {"id": None, "source": "a b", "target": "c"} and made["cut"] == 0


def test_both_sides_are_cut_counted_and_still_end():
    long = " ".join(WORDS)
    made = example(long, long, prefix="h h ")
    assert spelled(made["tokens"], ENDED) == "h h a b c d e </s>" and made["about"]["source"] == long
    assert spelled(made["targets"], ENDED) == "a b c d e </s>" and made["cut"] == 3 + 3
    assert spelled(example(long, long, BARE)["targets"], BARE) == "a b c d e </s>"


def test_a_source_alone_is_to_be_predicted_and_has_no_weight():
    made = in_memory([(0, example("a b", None)), (1, example("a", "b c"))])
    rows = ExampleBatches(made, plan(made, "padded", 8, None, PairShape(6)), 2, None).rows(0, 0, 2)
    assert rows["weights"].sum(1).tolist() == [0, 3] and made.about(0)["target"] is None


WRONG = {
    "an empty target": (("a b", " "), {}, "an empty target"),
    "an empty source": (("", "a"), {}, "an empty source"),
    "no source": ((None, "a"), {}, "an empty source"),
    "a number": ((3, "a"), {}, "the source is 3, no text"),
    "an absurd ratio": (("a b c d", "a"), {"ratio": 3.0}, "sides of 1 and 4 tokens"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_pair_is_said(name):
    (source, target), options, word = WRONG[name]
    with pytest.raises(DataError, match=word) as found:
        example(source, target, **options)
    assert "\n" not in str(found.value) and isinstance(found.value, Unfit) == (name != "a number")


def test_a_ratio_that_is_just_allowed_stays():
    """Of the texts as they are: special tokens, a prefix, and what is cut change nothing."""
    assert example("a b c", "a", ratio=3.0)["cut"] == 0
    for tokenizer in (ENDED, BARE, AROUND):
        assert example("a b c", "a", tokenizer, ratio=3.0, prefix="h h h ")["cut"] < 3
        for source, target in (("a b c d", "a"), ("a", "a b c d"), (" ".join(WORDS), "a b"), ("a", " ".join(WORDS))):
            with pytest.raises(Unfit, match="tokens: mend"):
                example(source, target, tokenizer, ratio=3.0, prefix="h ")


def test_of_several_targets_the_first_is_learned_and_all_are_references():
    for several in (["b c", "d", "b c"], {"text": ["b c", "d", "b c"], "answer_start": [1, 5, 1]}):
        made = example("a", several)
        assert spelled(made["targets"], ENDED) == "b c </s>" and made["about"]["target"] == ["b c", "d"]
    assert example("a", {"text": ["b", "b"]})["about"]["target"] == "b"
    for nothing in ([], {"text": []}):
        with pytest.raises(Unfit, match="without an answer") as found:
            example("a", nothing)
        assert found.value.kind == "without an answer"
    with pytest.raises(Unfit, match="an empty target"):
        example("a", ["b", " "])
    for wrong in ([3], {"start": 1}, 7):
        with pytest.raises(DataError, match="the target is .*, no text"):
            example("a", wrong)


@pytest.mark.parametrize(
    "tokenizer, options, source, target",
    [
        (MBART, {"target_language": "de_DE"}, "a </s> en_XX", "b </s> de_DE"),
        (MBART, {"source_language": "fr_XX", "target_language": "en_XX"}, "a </s> fr_XX", "b </s> en_XX"),
        (MBART50, {"source_language": "fr_XX", "target_language": "de_DE"}, "fr_XX a </s>", "de_DE b </s>"),
        (MARIAN, {"source_language": "en", "target_language": "fra"}, ">>fra<< a </s>", "b </s>"),
        (ENDED, {"source_language": "en", "target_language": "de"}, "a </s>", "b </s>"),
    ],
)
def test_languages_stand_where_their_tokenizer_has_them(tokenizer, options, source, target):
    made = example("a", "b", tokenizer, **options)
    assert (spelled(made["tokens"], tokenizer), spelled(made["targets"], tokenizer)) == (source, target)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"target_language": "de"}, "records.target_language='de' is no language of this tokenizer: set records.target_language=de_DE"),
        ({"target_language": "de_DE", "source_language": "klingon"}, "records.source_language='klingon'"),
        ({}, "records.target_language is missing"),
    ],
)
def test_an_unknown_language_is_refused_with_those_near(options, words):
    with pytest.raises(ConfigError, match=words):
        example("a", "b", MBART, **options)


def test_a_tokenizer_without_an_end_is_refused_with_the_mend():
    with pytest.raises(ConfigError, match=r"no token that ends a text: set tokenizer.kind"):
        example("a", "b", train_tokenizer("char", ["a b"], 0))


def test_a_fresh_model_begins_and_ends_as_its_tokenizer_does():
    """T5's and Marian's padding, else a begin, else the end; what fits already stays."""
    ids = lambda config: [said(config, f"{name}_token_id") for name in ("decoder_start", "eos", "pad")]
    assert ids(of_tokenizer(TINY, ENDED)) == [0, 1, 0] and start_id(of_tokenizer(TINY, ENDED)) == 0
    assert ids(of_tokenizer(TINY, words(None, ("</s>",)))) == [0, 0, 0]
    assert ids(of_tokenizer(TINY, words(None, ("<s>", "</s>")))) == [0, 1, 1]
    assert ids(of_tokenizer(mbart.Config(), AROUND)) == [1, 2, 1]
    fits = mbart.Config(decoder_start_token_id=2, eos_token_id=2)
    assert of_tokenizer(fits, AROUND) is fits
    spoken = dataclasses.replace(t5.Config(), extra=t5.Frozen(generation_config=t5.Frozen(eos_token_id=7)))
    assert ids(of_tokenizer(spoken, ENDED)) == [0, 1, 0]


def test_the_language_that_ends_a_target_begins_the_decoder_and_one_that_begins_it_is_forced():
    run = dataclasses.replace(RUN, records=Records(target_language="fr_XX"))
    made = lambda tokenizer: with_special_ids(mbart.Config(), tokenizer, False, make_sides(tokenizer, tokenizer, run))
    assert start_id(made(MBART)) == 5 and said(made(MBART), "forced_bos_token_id") is None
    assert said(made(MBART50), "forced_bos_token_id") == 5 and said(made(MBART50), "decoder_start_token_id") is None


def test_two_tokenizers_are_asked_as_one(tmp_path):
    both = Sides(ENDED, AROUND)
    assert both.encode("a") == ENDED.encode("a") and both.eos_id == 1 and both.as_target() is AROUND and ENDED.as_target() is ENDED
    assert len({one.digest for one in (ENDED, AROUND, both, Sides(AROUND, ENDED), Sides(ENDED, ENDED))}) == 5
    made = example("a", "b", both)
    assert spelled(made["tokens"], ENDED) == "a </s>" and spelled(made["targets"], AROUND) == "<s> b </s>"
    ENDED.save(tmp_path / "tokenizer")
    assert not isinstance(load_sides(tmp_path), Sides)
    AROUND.save(tmp_path / "target_tokenizer")
    assert load_sides(tmp_path).target.encode("b") == AROUND.encode("b")
    assert jaxlm.load_tokenizer(tmp_path / "target_tokenizer").encode("b") == AROUND.encode("b")


@pytest.fixture(scope="module")
def tiny():
    """A model, its parameters, and its compiled loss."""
    model = make_model(dataclasses.replace(TINY, dropout=0.0))
    params = jax.jit(lambda: init_params(model, jax.random.key(0)))()
    return model, params, jax.jit(lambda rows: jnp.array(text_to_text.loss(model, params, rows, None)))


def examples(count=12):
    draw = np.random.default_rng(0)
    text = lambda most: " ".join(draw.choice(WORDS, draw.integers(1, most)))
    return in_memory([(i, example(text(7), text(5))) for i in range(count)])


def batch_of(made):
    """All of four examples, one a row."""
    return jax.tree.map(jnp.asarray, ExampleBatches(made, plan(made, "padded", 8, None, PairShape(6)), 4, None).rows(0, 0, 4))


def alone(made, i):
    """One example, laid out by hand."""
    row = {"tokens": np.zeros((1, 8), np.int32), "targets": np.zeros((1, 6), np.int32)}
    masks = {}
    for name, mask in (("tokens", "segments"), ("targets", "target_segments")):
        ids = made.column(name, i)
        row[name][0, : len(ids)], masks[mask] = ids, (np.arange(row[name].shape[1]) < len(ids)).astype(np.int32)[None]
    return {**row, **masks, "weights": masks["target_segments"].astype(np.float32)}


def test_packed_rows_have_the_loss_of_single_ones(tiny):
    """Loss and number of targets over an epoch: of every row plan those of the examples one by one."""
    made, loss = examples(), tiny[2]
    one_by_one = sum(np.array(loss(alone(made, i))) for i in range(len(made)))
    shapes = {"padded": PairShape(6), "packed": PairShape(12), "buckets": PairShape(6, batch_tokens=64, multiple=2)}
    for packing, shape in shapes.items():
        batches = ExampleBatches(made, plan(made, packing, 16 if packing == "packed" else 8, 3, shape), 4, 3)
        rows = [batches.rows(i, 0, batches.rows_of(i)) for i in range(batches.count)]
        assert (max(row["segments"].max() for row in rows) > 1) == (packing == "packed")
        np.testing.assert_allclose(sum(np.array(loss(row)) for row in rows), one_by_one, rtol=1e-5)


def test_sampled_inputs_are_of_training_alone_and_grow_with_the_rate(tiny):
    rows = batch_of(examples(4))
    sampled = jax.jit(lambda rows, key: text_to_text.loss(*tiny[:2], rows, key)[0])
    key, rate = jax.random.key(1), lambda share: {**rows, "sampling_rate": jnp.full(4, share)}
    plain = float(tiny[2](rows)[0])
    assert float(tiny[2](rate(1.0))[0]) == pytest.approx(plain, rel=1e-6)
    assert float(sampled(rate(0.0), key)) == pytest.approx(plain, rel=1e-6)
    assert abs(float(sampled(rate(1.0), key)) - plain) > 1e-3


def test_what_is_measured_knows_no_smoothing(tiny):
    rows, smooth = batch_of(examples(4)), Loss(label_smoothing=0.3)
    total, weight, units = jax.jit(lambda rows: text_to_text.measure(*tiny[:2], rows, smooth))(rows)
    assert float(total) == pytest.approx(float(tiny[2](rows)[0]), rel=1e-5)
    assert abs(float(jax.jit(lambda rows: text_to_text.loss(*tiny[:2], rows, None, smooth)[0])(rows) - total)) > 1e-3
    right = (text_to_text.predictions(*tiny[:2], rows) == rows["targets"])[rows["weights"] > 0]
    found = text_to_text.metrics(float(total), float(weight), {"right": float(units["right"])})
    assert found["accuracy"] == pytest.approx(float(right.mean())) and found["perplexity"] == pytest.approx(np.exp(float(total / weight)))


TORCH = {
    "t5": Case("t5", "seq2seq-lm", {**T5, "pad_token_id": 0, "decoder_start_token_id": 0}),
    "bart": Case("bart", "seq2seq-lm", {**BART, **ENDS}),
    "mbart": Case("mbart", "seq2seq-lm", {**BART, **ENDS, "decoder_start_token_id": 9}),
    "marian": Case("marian", "seq2seq-lm", {**SINUSOIDS, "activation_function": "swish"}),
}


@pytest.mark.parametrize("name", TORCH)
def test_the_loss_is_that_of_transformers(name, tmp_path):
    """A padded batch of pairs: `model(labels=...)`, whose decoder inputs are the labels shifted by transformers itself."""
    import torch

    case, draw = TORCH[name], np.random.default_rng(0)
    theirs = torch_model(case)
    if name != "t5":
        theirs.final_logits_bias.normal_(generator=torch.Generator().manual_seed(1))
    theirs.save_pretrained(tmp_path)
    model, params = jaxlm.load(tmp_path)
    tokens, targets = (draw.integers(3, 61, shape).astype(np.int32) for shape in ((3, 9), (3, 7)))
    segments, target_segments = np.ones_like(tokens), np.ones_like(targets)
    segments[1, 5:], target_segments[2, 4:] = 0, 0
    if name == "mbart":  # its labels end with the language, which transformers puts first
        targets[[0, 1, 2], [6, 6, 3]] = 9
    pad = theirs.config.pad_token_id
    tokens, targets = np.where(segments, tokens, pad), np.where(target_segments, targets, pad)
    batch = {"tokens": tokens, "segments": segments, "targets": targets, "target_segments": target_segments}
    loss = jax.jit(lambda params, batch: text_to_text.loss(model, params, batch, None))
    total, weight = loss(params, {**batch, "weights": target_segments.astype(np.float32)})
    long = lambda array: torch.tensor(array.astype(np.int64))
    labels = long(targets).masked_fill(long(target_segments) == 0, -100)
    if name == "mbart":
        labels = long(targets)  # its shift looks for padding, not for -100
    out = theirs(input_ids=long(tokens), attention_mask=long(segments), labels=labels)
    wanted = torch.nn.functional.cross_entropy(out.logits[long(target_segments) > 0], long(targets)[long(target_segments) > 0])
    if name != "mbart":
        assert float(total / weight) == pytest.approx(out.loss.item(), rel=2e-5)
    assert float(total / weight) == pytest.approx(wanted.item(), rel=2e-5) and weight == 18


def test_codes_are_told_from_other_control_tokens():
    assert pair_sides.language_codes(MBART) == {"en_XX": 3, "de_DE": 4, "fr_XX": 5} and not pair_sides.language_codes(AROUND)
