"""Cross-attention seen from outside, beside transformers' own; alignments of texts, and their drawing."""

import dataclasses

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.config import Compute
from jaxlm.errors import ConfigError
from jaxlm.explain.alignments import Alignment, align, cross_attention, draw
from jaxlm.layers.block import stack
from jaxlm.layers.watch import attention_weights
from jaxlm.models import gpt2, init_params, make_model, marian
from jaxlm.text.tokenizers.characters import Characters

SIDES = {
    "vocab_size": 61, "d_model": 24, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 3, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 37, "decoder_ffn_dim": 31, "max_position_embeddings": 40, "init_std": 0.4,
}  # fmt: skip
T5 = {"vocab_size": 61, "d_model": 24, "d_kv": 6, "d_ff": 37, "num_layers": 1, "num_decoder_layers": 2, "num_heads": 3}
SOURCE, OUTPUT = [5, 9, 33, 17, 4, 8, 21, 1], [7, 30, 12, 6, 1]  # longer than a head is wide, and shorter


def published(kind, folder):
    """A small random model of transformers, saved; and its cross-attention for SOURCE and OUTPUT, [L, N, T, S]."""
    import torch
    import transformers

    ends = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "attn_implementation": "eager"}
    torch.manual_seed(0)
    if kind == "t5":
        theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**T5, **ends, initializer_factor=3.0))
    else:
        theirs = transformers.MarianMTModel(transformers.MarianConfig(**SIDES, **ends))
    theirs.save_pretrained(folder)
    inputs = torch.tensor([[0, *OUTPUT[:-1]]])
    with torch.no_grad():
        out = theirs.eval()(input_ids=torch.tensor([SOURCE]), decoder_input_ids=inputs, output_attentions=True)
    return np.concatenate([layer.numpy() for layer in out.cross_attentions])


@pytest.mark.parametrize("kind", ["marian", "t5"])
def test_weights_are_those_of_transformers(kind, tmp_path):
    wanted = published(kind, tmp_path)
    found = cross_attention(*jaxlm.load(tmp_path), SOURCE, OUTPUT)
    assert found.shape == wanted.shape and wanted.max() > 0.3, "nothing would be seen in even weights"
    np.testing.assert_allclose(found, wanted, atol=1e-5)


class Marked(Characters):
    """Letters, and a full stop that is a control token."""

    @property
    def controls(self):
        return {".": self.characters.index(".")}


@pytest.fixture(scope="module")
def small():
    """A model over letters, its parameters, its tokenizer."""
    tokenizer = Marked("".join(sorted(set("a dog runs ein hund läuft."))))
    config = marian.Config(**{**SIDES, "vocab_size": tokenizer.vocab_size}, decoder_start_token_id=0)
    model = make_model(config)
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    random = np.random.default_rng(1)
    return model, jax.tree.map(lambda leaf: np.float32(0.4 * random.standard_normal(leaf.shape)), shapes), tokenizer


def test_stacked_layers_give_the_same(small):
    model, params, tokenizer = small
    ids = tokenizer.encode("a dog"), tokenizer.encode("ein hund")
    wanted = cross_attention(model, params, *ids)
    stacked = dataclasses.replace(model, compute=Compute(layout="stacked"))
    np.testing.assert_allclose(cross_attention(stacked, stack(params), *ids), wanted, atol=1e-6)


def test_an_alignment_of_texts(small):
    model, params, tokenizer = small
    found = align(*small, "a dog", "ein hund", layer=0)
    assert found.source == tuple("a dog") and found.output == tuple("ein hund") and found.weights.shape == (8, 5)
    np.testing.assert_allclose(found.weights.sum(1), 1, atol=1e-5)
    assert found.hard.tolist() == found.weights.argmax(1).tolist() and found.pairs[3] == (found.hard[3], 3)
    np.testing.assert_array_equal(align(*small, "a dog", "ein hund").weights, found.weights)
    assert not np.allclose(align(*small, "a dog", "ein hund", layer=1).weights, found.weights)
    assert len(draw(found).splitlines()) == 9
    ids = small[2].encode("ein hund")
    np.testing.assert_array_equal(align(*small, "a dog", ids, layer=0).weights, found.weights)
    with pytest.raises(ConfigError, match="layer 2: the decoder has layers 0 to 1"):
        align(*small, "a dog", "ein hund", layer=2)


def test_attention_that_rests_on_a_control_token_aligns_nothing_with_it(small):
    found = align(*small, ".dog.", "ein hund")
    assert set(found.weights.argmax(1)) & {0, 4} and set(found.hard) <= {1, 2, 3}
    alone = align(*small, ".....", "ein hund")
    assert alone.hard.tolist() == alone.weights.argmax(1).tolist()


def test_the_drawing_has_a_cell_a_pair():
    found = Alignment(("a", "dog", "</s>"), ("ein", "Hund"), np.array([[0.3, 0.1, 0.6], [0.1, 0.2, 0.7]]), np.array([0, 1]))
    rows = [[cell.strip() for cell in line.split("|")[1:]] for line in draw(found).splitlines()]
    assert rows[0] == ["a", "dog", "</s>"] and rows[1][0].startswith("[") and rows[2][1].startswith("[") and "[" not in rows[2][2]


def test_a_decoder_alone_has_nothing_to_align():
    model = make_model(gpt2.Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(ConfigError, match="has none"):
        cross_attention(model, {}, [1], [2])


def test_self_attention_is_seen_too(small):
    """Of the encoder's layer, and of the decoder's two, which see what stands before."""
    model, params, _ = small
    seen = attention_weights(model, params, np.array([[1, 2, 3]], np.int32), np.array([[0, 4]], np.int32))
    assert [weights.shape for weights in seen] == [(1, 3, 3, 3)] + [(1, 4, 2, 2)] * 2
    assert float(seen[0][0, 0, 0, 1]) > 0 and float(seen[1][0, 0, 0, 1]) == 0
