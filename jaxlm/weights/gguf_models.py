"""What a GGUF file says of its model, in Hugging Face's words: config.json's keys and torch's names of the tensors.

llama.cpp permutes the rows of a Llama's query and key, adds 1 to Gemma's norms, and leaves a tied output out: all undone here.
The file's tokenizer is read by `text/gguf_vocabulary.py`.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.errors import DataError
from jaxlm.weights import gguf
from jaxlm.weights.tensors import Checkpoint, Spec

# config.json's key -> the file's key, after the architecture's name; those in NEEDED must be there.
KEYS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "rope_theta": "rope.freq_base",
    "sliding_window": "attention.sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
NEEDED = list(KEYS)[:6]
TOKENS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
OUTSIDE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
SANDWICH = {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


@dataclasses.dataclass(frozen=True)
class Kind:
    """An architecture: Hugging Face's class, its names within a layer, and what llama.cpp changed in the tensors."""

    architecture: str
    layer: Mapping[str, str] = dataclasses.field(default_factory=lambda: LAYER)
    permuted: bool = False  # the rows of query and key
    norms_plus_one: bool = False


KINDS = {
    "llama": Kind("LlamaForCausalLM", permuted=True),
    "qwen2": Kind("Qwen2ForCausalLM"),
    "qwen3": Kind("Qwen3ForCausalLM"),
    "gemma2": Kind("Gemma2ForCausalLM", {**LAYER, **SANDWICH}, norms_plus_one=True),
}
FREQUENCIES = "rope_freqs.weight"  # Llama 3's divisors of the rotary frequencies; everything else about them is left out


def open_checkpoint(path: Path) -> Checkpoint:
    """The model of a GGUF file; quantised tensors are read as float32.

    Raises DataError for a damaged file, and for an architecture or a type of tensor that is not read.
    """
    file = gguf.open_file(path)
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in KINDS:
        raise DataError(f"{path} is of the architecture {str(name)[:50]!r}; {', '.join(KINDS)} are read")
    kind, config = KINDS[name], _config(file, name, str(path))
    theirs = {_torch_name(tensor, kind): tensor for tensor in file.tensors if tensor != FREQUENCIES}
    specs = {torch: Spec(file.tensors[tensor].spec.shape, file.tensors[tensor].spec.dtype) for torch, tensor in theirs.items()}
    read = lambda torch: _restored(file.read(theirs[torch]), torch, kind, config)
    return Checkpoint(config, specs, read, str(path))


def _config(file: gguf.File, name: str, where: str) -> dict[str, Any]:
    stored = {key: file.metadata.get(f"{name}.{theirs}") for key, theirs in KEYS.items()}
    found = {key: _number(value) for key, value in stored.items() if value is not None}
    wrong = [KEYS[key] for key, value in found.items() if value is None or not 0 < value < 1e12] + [
        KEYS[key] for key in NEEDED if key not in found
    ]
    if wrong or "token_embd.weight" not in file.tensors or len(file.tensors["token_embd.weight"].spec.shape) != 2:
        raise DataError(f"{where} lacks a readable {name}.{wrong[0] if wrong else 'token_embd'}: get another file")
    if file.metadata.get(f"{name}.expert_count"):
        raise DataError(f"{where} holds a model of experts, which is not read from GGUF: get its safetensors")
    config = {"architectures": [KINDS[name].architecture], "model_type": name, **found}
    config["vocab_size"] = file.tensors["token_embd.weight"].spec.shape[0]
    config["tie_word_embeddings"] = "output.weight" not in file.tensors
    for key, token in TOKENS.items():
        value = _number(file.metadata.get(f"tokenizer.ggml.{token}_token_id"))
        config |= {} if value is None else {key: value}
    if name == "gemma2":  # of llama.cpp's own choosing: only the 27B, of 46 layers, divides otherwise
        width = found["hidden_size"] // found["num_attention_heads"]
        config["query_pre_attn_scalar"] = width if found["num_hidden_layers"] == 46 else found.get("head_dim", width)
    elif scaling := _rope_scaling(file, name, found, where):
        config["rope_scaling"] = scaling
    return config


def _number(value: Any) -> int | float | None:
    """A number as config.json would spell it: 1e-5 was stored as a float32."""
    if isinstance(value, float):
        return float(str(np.float32(value)))
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _rope_scaling(file: gguf.File, name: str, config: dict[str, Any], where: str) -> dict[str, Any] | None:
    stored = {key: file.metadata.get(f"{name}.rope.scaling.{key}") for key in ("type", "factor", "original_context_length")}
    if FREQUENCIES in file.tensors:
        return _llama3_scaling(file.read(FREQUENCIES), config, where)
    if stored["type"] in (None, "none"):
        return None
    if stored["type"] not in ("linear", "yarn") or not _number(stored["factor"]):
        raise DataError(f"{where} scales its positions in a way that is not read ({str(stored['type'])[:30]}): get its safetensors")
    original = _number(stored["original_context_length"])
    extra = {"original_max_position_embeddings": original} if original else {}
    return {"rope_type": stored["type"], "factor": _number(stored["factor"]), **extra}


def _llama3_scaling(divisors: np.ndarray, config: dict[str, Any], where: str) -> dict[str, Any]:
    """The `llama3` scaling whose divisors these are; Meta published two factors, the rest is the same in all."""
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    wavelengths = 2 * np.pi * config.get("rope_theta", 10000.0) ** (np.arange(0, size, 2) / size)
    rest = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    for factor in (8.0, 32.0):
        smooth = np.clip((8192 / wavelengths - 1) / 3, 0, 1)
        if np.allclose(divisors, 1 / ((1 - smooth) / factor + smooth), rtol=1e-3):
            return {"rope_type": "llama3", "factor": factor, **rest}
    raise DataError(f"{where}: its {FREQUENCIES} are not those of a published Llama 3: get its safetensors")


def _torch_name(name: str, kind: Kind) -> str:
    """Torch's name; an unknown one stays, and is refused by the name table."""
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if layer and layer[2] in kind.layer:
        return f"model.layers.{int(layer[1])}.{kind.layer[layer[2]]}.{layer[3]}"
    return OUTSIDE.get(name, name)


def _restored(tensor: np.ndarray, name: str, kind: Kind, config: dict[str, Any]) -> np.ndarray:
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config.get("num_key_value_heads", config["num_attention_heads"])}
    part = name.split(".")[-2]
    if kind.permuted and part in heads:  # the two halves of a head lie interleaved there
        return tensor.reshape(heads[part], -1, 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
    return tensor - np.asarray(1, tensor.dtype) if kind.norms_plus_one and part.endswith("norm") else tensor
