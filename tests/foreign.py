"""Small files of foreign weights for tests: Hugging Face folders, old Flax folders, GGUF files."""

import functools
import json
import struct
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

from jaxlm.models import bert, init_params, llama, make_model
from jaxlm.pretrained import outgoing

BERT = bert.Config(
    vocab_size=31, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, max_position_embeddings=10
)  # fmt: skip
LLAMA = llama.Config(
    vocab_size=37, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
    max_position_embeddings=16,
)  # fmt: skip


@functools.cache
def made(config, task):
    """A model and its parameters, random everywhere."""
    model = make_model(config, task=task)
    params = jax.jit(lambda: init_params(model, jax.random.key(0)))()
    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(0)
    return model, jax.tree.unflatten(tree, [jax.numpy.asarray(random.normal(0, 0.3, leaf.shape).astype("f4")) for leaf in leaves])


def tensors_of(config, task):
    """The tensors of `made`, under Hugging Face's names."""
    return {tensor.name: tensor.make() for tensor in outgoing(*made(config, task))}


def config_of(config, architecture):
    """A config.json as a published one might be."""
    keys = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
    return {"model_type": config.model_type, "architectures": [architecture], **{key: getattr(config, key) for key in keys}}


def write(folder: Path, config: dict, tensors: dict[str, np.ndarray]) -> Path:
    """A Hugging Face folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def bert_folder(folder: Path, task="masked-lm", architecture="BertForMaskedLM") -> Path:
    """A Hugging Face folder of the small BERT."""
    return write(folder, config_of(BERT, architecture), tensors_of(BERT, task))


def raw_safetensors(header: dict | bytes, data: bytes = b"") -> bytes:
    """A file with any header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def flax_tree(tensors: dict[str, np.ndarray]) -> dict:
    """The tree that Transformers' old Flax models would have kept these tensors of torch in."""
    tree: dict = {}
    for name, tensor in tensors.items():
        *folders, last = name.split(".")
        inside = tree
        for part in folders:
            inside = inside.setdefault(part, {})
        is_norm, is_table = "LayerNorm" in name, "embeddings" in name and "LayerNorm" not in name
        ours = {"weight": "scale" if is_norm else "embedding" if is_table else "kernel"}.get(last, last)
        inside[ours] = tensor.T if ours == "kernel" else tensor
    return tree


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp makes of a query's or key's rows."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def gguf_file(path: Path, kinds: dict[str, str] | None = None, vocabulary: bool = True, **more) -> Path:
    """The small Llama as a GGUF file, written by the `gguf` package; `kinds` says which tensors are quantised, by its type's name."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    c = LLAMA
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(50000.0)
    if vocabulary:
        add_vocabulary(writer, c.vocab_size)
    for name, value in more.items():
        writer.add_uint32(f"llama.{name}", value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.num_hidden_layers)
    for name, tensor in tensors_of(LLAMA, "causal-lm").items():
        heads = {"q_proj": c.num_attention_heads, "k_proj": c.num_key_value_heads}.get(name.split(".")[-2])
        tensor = permuted(tensor, heads) if heads else tensor
        theirs, kind = names.get_name(name, try_suffixes=(".weight",)), (kinds or {}).get(name)
        if kind:
            quantised = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(theirs, gguf.quants.quantize(tensor, quantised), raw_dtype=quantised)
        else:
            writer.add_tensor(theirs, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_vocabulary(writer, size: int) -> None:
    """A byte-level BPE of a few letters."""
    tokens = ["<|end|>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "th", "the", "Ġthe"]
    tokens += [f"[{i}]" for i in range(size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (size - 1))
    writer.add_token_merges(["t h", "th e", "Ġ the"])
    writer.add_eos_token_id(0)
