"""GGUF: the `gguf` package writes, we read: types, names, permuted rows, configuration, tokenizer; hostile files are one DataError."""

import io

import gguf
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece

import jaxlm
from jaxlm.errors import DataError
from jaxlm.pretrained import paths
from jaxlm.weights import gguf as reader
from jaxlm.weights import gguf_models, quantized
from tests.foreign import LLAMA, gguf_file, made, tensors_of

QUANTISED = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "Q4_K": 12, "Q6_K": 14}


@pytest.mark.parametrize("name", QUANTISED)
def test_blocks_are_read_as_the_reference_reads_them(name):
    kind, oracle = quantized.KINDS[QUANTISED[name]], gguf.GGMLQuantizationType[name]
    assert (kind.numbers, kind.nbytes) == gguf.GGML_QUANT_SIZES[oracle]
    blocks = np.random.default_rng(0).integers(0, 256, (50, kind.nbytes), np.uint8)
    halves = {"Q8_0": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q4_K": (0, 2), "Q6_K": (208,)}[name]
    for start in halves:  # any bits but those of an infinite scale
        blocks[:, start : start + 2] = np.random.default_rng(start).normal(size=50).astype("f2")[:, None].view(np.uint8)
    assert np.array_equal(quantized.dequantise(blocks.reshape(-1), kind), gguf.quants.dequantize(blocks, oracle).reshape(-1))


def test_a_llama_comes_back_with_its_rows_in_order(tmp_path):
    model, params = jaxlm.load(gguf_file(tmp_path / "m.gguf"))
    config, wanted = model.config, paths(made(LLAMA, "causal-lm")[1])
    assert config.rope_theta == 50000.0 and config.rms_norm_eps == 1e-6 and config.num_key_value_heads == 2
    assert config.vocab_size == LLAMA.vocab_size and model.compute.dtype == "float32"
    assert all(jnp.array_equal(leaf, wanted[path]) for path, leaf in paths(params).items()) and len(wanted) == len(paths(params))


def test_a_tied_output_is_left_out_and_an_own_one_is_read(tmp_path):
    tied = "lm_head.weight" not in tensors_of(LLAMA, "causal-lm")
    assert jaxlm.load(gguf_file(tmp_path / "m.gguf"))[0].config.tie_word_embeddings == tied


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "F16", "BF16"])
def test_types_are_read_out_of_a_file(tmp_path, kind):
    name = "model.layers.1.mlp.down_proj.weight"
    checkpoint = gguf_models.open_checkpoint(gguf_file(tmp_path / "m.gguf", {name: kind}))
    tensor = tensors_of(LLAMA, "causal-lm")[name]
    assert checkpoint.specs[name].shape == tensor.shape
    assert checkpoint.specs[name].dtype.name == {"F16": "float16", "BF16": "bfloat16"}.get(kind, "float32")
    error = np.abs(checkpoint.read(name).astype("f4") - tensor).max()
    assert 0 < error < {"Q8_0": 0.01, "Q4_0": 0.2, "F16": 1e-3, "BF16": 1e-2}[kind]


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma2"])
def test_names_are_those_of_the_reference(name):
    theirs = gguf.get_tensor_name_map(gguf.MODEL_ARCH[name.upper()], 3)
    kind = gguf_models.KINDS[name]
    for part, ours in kind.layer.items():
        known = theirs.get_name(f"model.layers.2.{ours}")
        if known is not None and (name in ("qwen3",) or "q_norm" not in ours and "k_norm" not in ours):
            assert gguf_models._torch_name(f"{known}.weight", kind) == f"model.layers.2.{ours}.weight", part
    for part, ours in gguf_models.OUTSIDE.items():
        assert theirs.get_name(ours, try_suffixes=(".weight",)) in (part, None if "gemma" in name else part)  # Gemma is always tied


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3s_divisors_say_their_scaling(factor):
    low, high, old, size, theta = 1.0, 4.0, 8192, 64, 500000.0
    wavelength = 2 * np.pi * theta ** (np.arange(0, size, 2) / size)
    divisors = []
    for length in wavelength:  # as in the reference's conversion
        smooth = (old / length - low) / (high - low)
        divisors.append(1 if length < old / high else factor if length > old / low else 1 / ((1 - smooth) / factor + smooth))
    config = {"hidden_size": 128, "num_attention_heads": 2, "rope_theta": theta}
    assert gguf_models._llama3_scaling(np.array(divisors, "f4"), config, "here")["factor"] == factor
    with pytest.raises(DataError, match="not those of a published"):
        gguf_models._llama3_scaling(np.array(divisors[::-1], "f4"), config, "here")


def test_gemmas_norms_are_one_less(tmp_path):
    kind, tensor = gguf_models.KINDS["gemma2"], np.array([1.5, 2.0], "f4")
    restored = gguf_models._restored(tensor, "model.layers.0.pre_feedforward_layernorm.weight", kind, {"num_attention_heads": 1})
    assert restored.tolist() == [0.5, 1.0]


def test_a_model_of_experts_and_an_unknown_one_are_refused(tmp_path):
    with pytest.raises(DataError, match="experts"):
        jaxlm.load(gguf_file(tmp_path / "m.gguf", expert_count=8))
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(DataError, match="'mamba'; llama"):
        jaxlm.load(tmp_path / "x.gguf")


def test_a_type_that_is_not_read_is_named(tmp_path):
    with pytest.raises(DataError, match="Q5_0; F32, F16"):
        jaxlm.load(gguf_file(tmp_path / "m.gguf", {"model.layers.0.mlp.up_proj.weight": "Q5_0"}))


def test_the_tokenizer_of_bytes(tmp_path):
    tokenizer = jaxlm.load_tokenizer(gguf_file(tmp_path / "m.gguf"))
    ids = tokenizer.encode("the cat")
    assert ids == [29, 27, 3, 1, 20] and tokenizer.decode(ids) == "the cat" and tokenizer.eos_id == 0
    assert 0 not in tokenizer.encode("a<|end|>b")  # text never becomes a control token
    assert tokenizer.vocab_size == LLAMA.vocab_size


def sentencepiece_file(path):
    """A SentencePiece BPE model, and the GGUF file that llama.cpp would make of it."""
    texts = [f"the cat number {i} sat on a mat; der Hund läuft über {i * 7} Brücken" for i in range(60)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=380, model_type="bpe", byte_fallback=True, character_coverage=1.0,
        minloglevel=2, normalization_rule_name="identity", remove_extra_whitespaces=False, num_threads=1,
    )  # fmt: skip
    peer = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    kinds = [6 if peer.is_byte(i) else 2 if peer.is_unknown(i) else 3 if peer.is_control(i) else 1 for i in range(len(peer))]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([peer.id_to_piece(i) for i in range(len(peer))])
    writer.add_token_scores([peer.get_score(i) for i in range(len(peer))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(peer.bos_id())
    writer.add_eos_token_id(peer.eos_id())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return peer


def test_the_tokenizer_of_scores_is_sentencepieces(tmp_path):
    peer = sentencepiece_file(tmp_path / "m.gguf")
    tokenizer = jaxlm.load_tokenizer(tmp_path / "m.gguf")
    for text in ("the cat sat on 42 mats", "Brücken über  dem Hund", "東京 is far", "a", "number numbers läuft;;"):
        assert tokenizer.encode(text) == [peer.bos_id(), *peer.encode(text)], text
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_id == peer.eos_id()


def test_a_file_without_a_tokenizer_says_so(tmp_path):
    with pytest.raises(DataError, match="holds no tokenizer"):
        jaxlm.load_tokenizer(gguf_file(tmp_path / "m.gguf", vocabulary=False))


def header(tensors=0, keys=0, rest=b"", version=3):
    return b"GGUF" + np.array([version], "<u4").tobytes() + np.array([tensors, keys], "<u8").tobytes() + rest


def number(value, dtype="<u8"):
    return np.array([value], dtype).tobytes()


KEY = number(1) + b"k"
HOSTILE = {
    "another format": (b"GGML" + bytes(40), "does not begin"),
    "version 1": (header(version=1), "version 1"),
    "cut": (header(keys=1), "ends within"),
    "too many tensors": (header(tensors=2**50), "more than any"),
    "a long name": (header(keys=1, rest=number(2**40)), "a name of"),
    "a string beyond the file": (header(keys=1, rest=KEY + number(8, "<u4") + number(2**50)), "ends within"),
    "an array beyond the file": (header(keys=1, rest=KEY + number(9, "<u4") + number(8, "<u4") + number(2**50)), "an array of"),
    "numbers beyond the file": (header(keys=1, rest=KEY + number(9, "<u4") + number(4, "<u4") + number(2**50)), "ends within"),
    "arrays within arrays": (header(keys=1, rest=KEY + number(9, "<u4") + number(9, "<u4") + number(1) + bytes(99)), "within an array"),
    "a type of value": (header(keys=1, rest=KEY + number(77, "<u4")), "type 77"),
    "a name that is no text": (header(keys=1, rest=number(1) + b"\xff"), "can't decode"),
    "a key twice": (header(keys=2, rest=(KEY + number(4, "<u4") + number(5, "<u4")) * 2), "comes twice"),
    "many axes": (header(tensors=1, rest=KEY + number(9, "<u4")), "9 axes"),
    "a tensor beyond the file": (header(1, rest=KEY + number(1, "<u4") + number(2**45) + number(0, "<u4") + number(0)), "does not fit"),
    "half a block": (header(1, rest=KEY + number(1, "<u4") + number(33) + number(8, "<u4") + number(0) + bytes(99)), "does not fit"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_one_line(tmp_path, what):
    content, message = HOSTILE[what]
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        reader.open_file(tmp_path / "m.gguf")
    assert "\n" not in str(caught.value)
