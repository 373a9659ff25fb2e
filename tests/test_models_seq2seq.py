"""Encoder-decoders: the cache over an encoder, packing, the 2017 Transformer beside torch.nn's, scheduled sampling, a real model."""

import dataclasses
import functools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.config import Compute
from jaxlm.errors import DataError
from jaxlm.layers.cache import make_cache
from jaxlm.models import bart, dims, has_decoder, init_params, make_model, marian, mbart, pegasus, t5, transformer
from jaxlm.ops.positions import shift_right, sinusoids
from jaxlm.ops.relative import buckets
from jaxlm.pretrained import paths
from jaxlm.tasks.scheduled_sampling import sampled_inputs
from jaxlm.weights.strict_json import read_object

SIDES = {
    "vocab_size": 61, "d_model": 24, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 3, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 37, "decoder_ffn_dim": 31, "max_position_embeddings": 40,
}  # fmt: skip
CONFIGS = {
    "transformer": transformer.Config(**SIDES),
    "t5": t5.Config(vocab_size=61, d_model=24, d_kv=6, d_ff=37, num_layers=1, num_decoder_layers=2, num_heads=3),
    "bart": bart.Config(**SIDES),
    "mbart": mbart.Config(**SIDES),
    "marian": marian.Config(**SIDES, share_encoder_decoder_embeddings=False, decoder_vocab_size=61),
    "pegasus": pegasus.Config(**SIDES),
}
RANDOM = np.random.default_rng(0)
TOKENS, TARGETS = (RANDOM.integers(3, 61, (2, length)).astype(np.int32) for length in (7, 6))
MASK = np.array([[True] * 7, [True] * 5 + [False] * 2])


@functools.cache
def made(name, layout="unrolled", task=None):
    """A small model and its parameters."""
    model = make_model(CONFIGS[name], Compute(layout=layout), task)
    return model, drawn(model)


def drawn(model):
    """Parameters in which every bias is seen; drawn here, because to compile `init_params` takes longer than all else."""
    shapes, random = jax.eval_shape(lambda: init_params(model, jax.random.key(0))), np.random.default_rng(1)
    draw = lambda path, leaf: np.float32(0.2 * random.standard_normal(leaf.shape) + (path[-1].key == "scale"))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.partial(jax.jit, static_argnums=0)
def run(model, params, *inputs, **arguments):
    """What the model returns, compiled: op by op, it takes seconds."""
    return model.apply({"params": params}, *inputs, **arguments)


def close(one, other, tolerance=2e-5):
    np.testing.assert_allclose(one, other, atol=tolerance * (1 + np.abs(other).max()))


@pytest.mark.parametrize("layout", ["unrolled", "stacked"])
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_step_by_step_over_an_encoder_is_the_whole(name, layout):
    """After the first call the decoder needs neither tokens nor mask, and one compiled program makes all steps."""
    model, params = made(name, layout)
    known = dims(model.config)
    cache = make_cache(known.layers, (2, 8, known.kv_heads, known.head_size), layout=layout, cross=True)
    whole = run(model, params, TOKENS, TARGETS, mask=MASK)
    memory = run(model, params, TOKENS, mask=MASK).memory
    close(memory[MASK], whole.memory[MASK])
    step = jax.jit(lambda cache, targets: model.apply({"params": params}, None, targets, cache=cache))
    outs = [run(model, params, None, TARGETS[:, :2], mask=MASK, memory=memory, cache=cache)]
    for t in range(2, 6):
        outs.append(step(outs[-1].cache, TARGETS[:, t : t + 1]))
    assert step._cache_size() == 1
    close(np.concatenate([out.logits for out in outs], 1), whole.logits)


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_pairs_are_as_if_alone(name):
    model, params = made(name)
    logits = lambda *inputs, **more: run(model, params, *inputs, **more).logits
    segments, target_segments = np.array([[1, 1, 1, 2, 2, 2, 0]]), np.array([[1, 1, 2, 2, 0, 0]])
    packed = logits(TOKENS[:1], TARGETS[:1], segments=segments, target_segments=target_segments)
    close(packed[0, :4].reshape(2, 2, 61), logits(TOKENS[0, :6].reshape(2, 3), TARGETS[0, :4].reshape(2, 2)))
    with pytest.raises(ValueError, match="both segments and target_segments"):
        logits(TOKENS[:1], TARGETS[:1], segments=segments)


def test_what_cannot_be_used_is_refused():
    model, params = made("bart")
    with pytest.raises(ValueError, match="bart has no use for token_types"):
        model.apply({"params": params}, TOKENS, TARGETS, token_types=np.zeros_like(TOKENS))
    with pytest.raises(ValueError, match="no encoder's states"):
        model.apply({"params": params}, None, TARGETS)
    model, params = made("t5", task="features")
    with pytest.raises(ValueError, match="encoder alone"):
        model.apply({"params": params}, TOKENS, TARGETS)
    assert not has_decoder(model) and not [path for path in paths(params) if path.startswith("decoder")]


@pytest.mark.parametrize(("name", "task"), [*((name, None) for name in CONFIGS), ("bart", "question-answering")])
def test_a_cache_without_targets_is_refused(name, task):
    model, params = made(name, task=task)
    with pytest.raises(ValueError, match="without targets has no use for cache: leave it out"):
        run(model, params, TOKENS, cache=make_cache(2, (2, 8, 3, 6), cross=True))


@pytest.mark.parametrize("name", ["bart", "mbart"])
def test_a_classifier_reads_the_text_twice_and_padding_changes_nothing(name):
    model, params = made(name, task="sequence-classification")
    text = np.array([[5, 6, 7, 2, 9, 2]], np.int32) if name == "mbart" else np.array([[0, 5, 6, 7, 2]], np.int32)
    alone = run(model, params, text).logits
    given = run(model, params, text, shift_right(text, 2)).logits  # 2: BART's start, and here the last token of mBART's text
    close(given, alone)
    for sides in ((0, 2), (2, 0)):
        rows = np.pad(text, ((0, 0), sides), constant_values=1)
        mask = np.pad(np.ones(text.shape, bool), ((0, 0), sides))
        close(run(model, params, rows, mask=mask).logits, alone)


def test_an_untied_bart_is_written_with_the_copies_that_torch_asks_for(tmp_path):
    model = make_model(dataclasses.replace(CONFIGS["bart"], tie_word_embeddings=False))
    params = drawn(model)
    jaxlm.save(tmp_path / "out", model, params)
    again, loaded = jaxlm.load(tmp_path / "out")
    assert not again.config.tie_word_embeddings
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    from safetensors.numpy import load_file

    stored = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(stored["model.encoder.embed_tokens.weight"], stored["model.shared.weight"])


def test_features_of_a_whole_t5_are_its_encoder(tmp_path):
    model, params = made("t5")
    jaxlm.save(tmp_path / "t5", model, params)
    encoder, loaded = jaxlm.load(tmp_path / "t5", task="features")
    close(run(encoder, loaded, TOKENS, mask=MASK).hidden, run(model, params, TOKENS, mask=MASK).memory)


def test_bart_without_its_fixed_bias_loads(tmp_path):
    """Published bodies (facebook/bart-base) have none."""
    model, params = made("bart")
    without = {name: leaf for name, leaf in params.items() if name != "final_logits_bias"}
    jaxlm.save(tmp_path / "bart", model, without)
    loaded = jaxlm.load(tmp_path / "bart")[1]
    assert set(loaded) == set(without)
    blank = {**params, "final_logits_bias": jnp.zeros(61)}
    close(*(run(model, p, TOKENS, TARGETS).logits for p in (loaded, blank)))


def test_positions_of_pegasus_are_checked(tmp_path):
    from safetensors.numpy import load_file, save_file

    model, params = made("pegasus")
    jaxlm.save(tmp_path / "pegasus", model, params)
    jaxlm.load(tmp_path / "pegasus")
    stored = load_file(tmp_path / "pegasus" / "model.safetensors")
    stored["model.encoder.embed_positions.weight"] = sinusoids(40, 24)  # neighbours, as in the paper: another model
    save_file(stored, tmp_path / "pegasus" / "model.safetensors")
    with pytest.raises(DataError, match="embed_positions"):
        jaxlm.load(tmp_path / "pegasus")


@pytest.mark.parametrize(("count", "far", "both"), [(32, 128, True), (32, 128, False), (8, 10, True), (16, 100, False)])
def test_buckets_are_those_of_torch(count, far, both):
    torch = pytest.importorskip("torch")
    attention = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention
    distance = torch.arange(-300, 301)
    want = attention._relative_position_bucket(distance, bidirectional=both, num_buckets=count, max_distance=far)
    got = buckets(1, 601, 300, count=count, max_distance=far, bidirectional=both)
    np.testing.assert_array_equal(got[0], want.numpy())


@pytest.mark.filterwarnings("ignore")  # torch's own
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_transformer_is_torchs(norm, tmp_path):
    """torch.nn.Transformer, which ends in norms in either order, between the paper's embeddings and output."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    body = torch.nn.Transformer(24, 3, 2, 2, 37, dropout=0.0, batch_first=True, norm_first=norm == "pre").eval()
    sizes = {**SIDES, "encoder_layers": 2, "decoder_attention_heads": 3, "decoder_ffn_dim": 37, "dropout": 0.0}
    model = make_model(transformer.Config(**sizes, norm=norm, final_norm=True))
    table = 0.3 * torch.randn(61, 24)
    with torch.no_grad():
        for parameter in body.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    jaxlm.save(tmp_path / "ours", model, drawn(model))  # its config.json
    from safetensors.torch import load_file, save_file

    assert set(load_file(tmp_path / "ours" / "model.safetensors")) == {*body.state_dict(), "source.weight"}
    save_file({**body.state_dict(), "source.weight": table}, tmp_path / "ours" / "model.safetensors")
    model, params = jaxlm.load(tmp_path / "ours")

    target_mask = np.ones_like(TARGETS, bool)
    target_mask[0, -2:] = False
    embed = lambda ids: table[torch.tensor(ids, dtype=torch.long)] * 24**0.5 + torch.tensor(sinusoids(40, 24)[: ids.shape[1]])
    masks = {"src_key_padding_mask": ~torch.tensor(MASK), "memory_key_padding_mask": ~torch.tensor(MASK)}
    causal = torch.ones(6, 6, dtype=torch.bool).triu(1)
    with torch.no_grad():
        want = body(embed(TOKENS), embed(TARGETS), tgt_mask=causal, tgt_key_padding_mask=~torch.tensor(target_mask), **masks)
    out = run(model, params, TOKENS, TARGETS, mask=MASK, target_mask=target_mask)
    close(np.asarray(out.hidden)[target_mask], want.numpy()[target_mask], 1e-5)
    close(np.asarray(out.logits)[target_mask], (want @ table.T).numpy()[target_mask], 1e-5)


def test_the_paper_has_no_last_norm_and_todays_order_has():
    shapes = lambda **keys: jax.eval_shape(lambda: init_params(make_model(transformer.Config(**SIDES, **keys)), jax.random.key(0)))
    assert "ln_out" not in shapes()["encoder"] and "ln_out" in shapes(norm="pre")["decoder"]
    assert {"source", "target", "lm_head"} <= set(shapes(tie_word_embeddings=False, share_encoder_decoder_embeddings=False))


@pytest.mark.parametrize(("config", "count"), [(transformer.SIZES["transformer-base"], 63_082_496), (t5.SIZES["t5-small"], 60_506_624)])
def test_sizes_have_the_published_number_of_parameters(config, count):
    """T5's of its checkpoint; the paper gives 65 million: 44.1 in the layers, and its table of about 37,000 rows."""
    shapes = jax.eval_shape(lambda: init_params(make_model(config), jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_scheduled_sampling_replaces_the_share_that_is_asked_for():
    model, params = made("transformer")
    mask = np.array([[True] * 6, [False] * 2 + [True] * 4])
    inputs = {"tokens": TOKENS, "targets": TARGETS, "target_mask": mask}
    sampled = jax.jit(functools.partial(sampled_inputs, model, params, inputs))
    np.testing.assert_array_equal(sampled(0.0, jax.random.key(0)), TARGETS)
    best = np.asarray(run(model, params, **inputs).logits.argmax(-1))
    want = np.where(mask & np.pad(mask[:, :-1], ((0, 0), (1, 0))), np.pad(best[:, :-1], ((0, 0), (1, 0))), TARGETS)
    np.testing.assert_array_equal(sampled(1.0, jax.random.key(0)), want)
    free = (want != TARGETS).sum()
    changed = np.mean([(np.asarray(sampled(0.3, jax.random.key(i))) != TARGETS).sum() / free for i in range(100)])
    assert abs(changed - 0.3) < 0.06
    total = lambda p: sampled_inputs(model, p, inputs, 1.0, jax.random.key(0)).astype(jnp.float32).sum()
    gradient = jax.jit(jax.grad(total))(params)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))


def real_folder():
    """Where a real model lies: JAXLM_REAL, or where `get.py g2p` of the shared data puts it."""
    places = [os.environ.get("JAXLM_REAL"), Path(__file__).parent.parent.parent / "shared" / "data" / "real"]
    found = [file for place in places if place and Path(place).is_dir() for file in Path(place).glob("**/oov_bart_en_us.npz")]
    return found[0].parent if found else None


@pytest.mark.skipif(
    real_folder() is None, reason="no grapheme-to-phoneme BART: run ../shared/data/get.py g2p, name its folder in JAXLM_REAL"
)
def test_a_real_bart_spells_as_it_should(tmp_path):
    """Reference: torch's first-step logits of "hello" with these weights, and about 67 % of its training words exactly right."""
    from safetensors.numpy import save_file

    tensors = dict(np.load(real_folder() / "oov_bart_en_us.npz"))
    meta = json.loads(str(tensors.pop("meta_json")))
    sizes = {key: meta[key] for key in ("d_model", "max_position_embeddings", "pad_token_id", "eos_token_id", "decoder_start_token_id")}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 1, f"{side}_ffn_dim": meta["ffn_dim"], f"{side}_attention_heads": meta["num_heads"]}
    config = {"model_type": "bart", "architectures": ["BartForConditionalGeneration"], "vocab_size": 63, **sizes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "model.safetensors")
    model, params = jaxlm.load(tmp_path)

    graphemes = {letter: i for i, letter in enumerate(meta["grapheme_chars"])}
    encode = lambda word: [1, *(graphemes.get(letter, 3) for letter in word), 2]
    hello = np.array([encode("hello")], np.int32)
    assert hello.tolist() == [[1, 12, 52, 16, 16, 54, 2]]
    first = model.apply({"params": params}, hello, np.array([[1]], np.int32)).logits[0, 0, :3]
    np.testing.assert_allclose(first, [-11.8352, 29.6998, 2.6999], atol=2e-4)

    gold = read_object(real_folder() / "us_gold.json")
    words = sorted(word for word in gold if word.isascii() and word.isalpha())[:: len(gold) // 600][:500]
    said = spell(model, params, [encode(word) for word in words])
    texts = ["".join(meta["phoneme_chars"][i] for i in row if i > 3) for row in said]
    share = np.mean([text == gold[word] for text, word in zip(texts, words, strict=True)])
    print(f"exactly right: {share:.1%} of {len(words)}")
    assert 0.6 < share < 0.75


def spell(model, params, rows):
    """Greedy decoding of all rows at once: the encoder once, then one program a step."""
    width = max(map(len, rows))
    tokens = np.array([row + [0] * (width - len(row)) for row in rows], np.int32)
    known = dims(model.config)
    cache = make_cache(known.layers, (len(rows), 40, known.kv_heads, known.head_size), cross=True)
    start = np.full((len(rows), 1), model.config.decoder_start_token_id, np.int32)
    first = jax.jit(lambda cache: model.apply({"params": params}, tokens, start, mask=tokens > 0, cache=cache))
    step = jax.jit(lambda cache, token: model.apply({"params": params}, None, token, cache=cache))
    out, said = first(cache), []
    while len(said) < 40:
        token = out.logits[:, -1:].argmax(-1).astype(jnp.int32)
        said.append(np.asarray(token)[:, 0])
        out = step(out.cache, token) if len(said) < 39 else out
    ends = [row.tolist() + [2] for row in np.stack(said, 1)]
    return [row[: row.index(2)] for row in ends]
