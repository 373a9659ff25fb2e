"""Generation, ours and transformers': so many new tokens after short prompts, greedily or by beams, with random weights.

Decoding reads every weight once a token: so the read bandwidth of the machine is measured in the same run, and our share of it is
printed. For T5 CTranslate2 stands beside, where it is installed. `JAX_COMPILATION_CACHE_DIR` makes the second start a warm one.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlm.benchmarks.pairs import beside, show

# --size -> model_type, transformers' class.
SIZES = {"gpt2": ("gpt2", "GPT2LMHeadModel"), "t5-small": ("t5", "T5ForConditionalGeneration")}


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is decoded: `batch` prompts of `length` tokens, `new` tokens each."""

    size: str = "gpt2"
    batch: int = 1
    length: int = 16
    new: int = 64
    beams: int = 1
    dtype: str = "float32"


Made = tuple[dict[str, Any], Callable[[], None], Callable[[], int | None]]


def ours(shape: Shape) -> Made:
    """Our generation."""
    import jax

    from jaxlm.config import Compute
    from jaxlm.inference.generate import generate_tokens
    from jaxlm.models import family_named, init_params, make_model

    imported = time.perf_counter()
    module = family_named(SIZES[shape.size][0])
    model = make_model(module.SIZES[shape.size], Compute(dtype=shape.dtype))
    params = jax.jit(lambda: init_params(model, jax.random.key(0)))()
    params = jax.block_until_ready(jax.tree.map(lambda leaf: leaf.astype(shape.dtype), params))
    prompts = _prompts(shape)

    write = lambda new: generate_tokens(model, params, prompts, max_new_tokens=new, num_beams=shape.beams, eos_token_id=())

    def one() -> None:
        assert write(shape.new).shape == (shape.batch, shape.new)

    begun = time.perf_counter()
    one()
    facts = {"first step": time.perf_counter() - imported, "compile": time.perf_counter() - begun}
    write(1)
    begun = time.perf_counter()
    write(1)
    facts |= {"prefill": time.perf_counter() - begun, "bytes": _read_a_token(params), "bandwidth": _bandwidth()}
    return facts, one, lambda: (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def _read_a_token(params: Any) -> int:
    """Bytes of the weights that one token reads: all but tables of inputs alone and the encoder."""
    import jax

    untouched = ("encoder", "wpe")
    return sum(leaf.nbytes for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[0].key not in untouched)


def _bandwidth(megabytes: int = 512, rounds: int = 6) -> float:
    """Bytes a second that a sum, or one large matrix times a vector, reads: whichever is faster, at best."""
    import jax
    import jax.numpy as jnp

    array = jnp.ones((megabytes * 2**8, 2**10), jnp.float32)
    programs = jax.jit(lambda array: array.reshape(8, -1).sum(1)), jax.jit(lambda array: array @ jnp.ones(array.shape[1]))
    seconds = []
    for program in programs * rounds:
        begun = time.perf_counter()
        program(array).block_until_ready()
        seconds.append(time.perf_counter() - begun)
    return array.nbytes / min(seconds)


def _prompts(shape: Shape) -> np.ndarray:
    return np.random.default_rng(0).integers(2, 30_000, (shape.batch, shape.length)).astype(np.int32)


def torchs(shape: Shape, compiled: bool) -> Made:
    """The same by transformers; compiled: with a static cache and torch.compile."""
    import torch

    device, model = "cuda" if torch.cuda.is_available() else "cpu", _theirs(shape)
    model = model.to(device, getattr(torch, shape.dtype)).eval()
    tokens = torch.as_tensor(_prompts(shape)).long().to(device)
    arguments = {"attention_mask": torch.ones_like(tokens), "max_new_tokens": shape.new, "min_new_tokens": shape.new}
    arguments |= {"do_sample": False, "num_beams": shape.beams, "pad_token_id": 0, "eos_token_id": None}
    if compiled:
        arguments["cache_implementation"] = "static"
        model.forward = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True)

    def one() -> None:
        with torch.inference_mode():
            new = model.generate(tokens, **arguments)
        assert new.shape[1] == shape.new + (1 if model.config.is_encoder_decoder else shape.length)

    one()
    return {}, one, lambda: torch.cuda.max_memory_allocated() if device == "cuda" else None


def _theirs(shape: Shape) -> Any:
    import transformers

    from jaxlm.models import family_named

    model_type, name = SIZES[shape.size]
    kind, config = getattr(transformers, name), family_named(model_type).SIZES[shape.size]
    known = kind.config_class().to_dict()
    same = {key: value for key, value in vars(config).items() if key in known and value is not None}
    model = kind(kind.config_class(**same, attn_implementation="sdpa"))
    model.generation_config.eos_token_id, model.generation_config.decoder_start_token_id = None, 0
    return model


def ctranslate2s(shape: Shape) -> Made:
    """The same by CTranslate2, in float32, of transformers' random weights."""
    import ctranslate2

    with tempfile.TemporaryDirectory() as folder:
        _save(_theirs(shape), f"{folder}/theirs")
        ctranslate2.converters.TransformersConverter(f"{folder}/theirs").convert(f"{folder}/made", quantization="float32")
        translator = ctranslate2.Translator(f"{folder}/made", compute_type="float32")
    texts = [[f"w{i}" for i in row] for row in _prompts(shape)]
    lengths = {"max_decoding_length": shape.new, "min_decoding_length": shape.new}

    def one() -> None:
        made = translator.translate_batch(texts, beam_size=shape.beams, max_batch_size=shape.batch, **lengths)
        assert all(len(row.hypotheses[0]) == shape.new for row in made)

    one()
    return {}, one, lambda: None


def _save(model: Any, folder: str) -> None:
    """The converter wants a tokenizer: every id is a word."""
    import tokenizers
    import transformers

    words = {name: i for i, name in enumerate(["<pad>", "</s>", "<unk>"])}
    words |= {f"w{i}": i for i in range(len(words), model.config.vocab_size)}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=plain, **special).save_pretrained(folder)
    model.generation_config.eos_token_id = model.config.eos_token_id
    model.save_pretrained(folder)


def run(shape: Shape, rounds: int, steps: int, compiled: bool, alone: bool) -> None:
    """Print tokens/s, the share of the memory's bandwidth, and the ratios to the peers with their spread."""
    import importlib.util

    sides = beside(ours, torchs, shape, compiled, alone)
    if not alone and shape.size == "t5-small" and importlib.util.find_spec("ctranslate2"):
        sides["CTranslate2"] = (ctranslate2s, {"shape": shape})
    how = "greedy" if shape.beams == 1 else f"{shape.beams} beams"
    print(f"decode {shape.size}, {shape.batch} prompts of {shape.length} tokens, {shape.new} new ones, {how}, {shape.dtype}")
    first = show(sides, rounds, steps, shape.batch * shape.new)
    facts, seconds = first.facts, float(np.median(first.seconds))
    rate = facts["bytes"] * shape.new / (seconds - facts["prefill"])
    share = rate / facts["bandwidth"]
    best = facts["bandwidth"] / 1e9
    print(f"  jaxlm reads {rate / 1e9:.1f} GB/s of weights, {share:.0%} of the {best:.1f} GB/s that this machine read at best")
