"""The families: one file each, found by the `model_type` of its configuration.

A family's file holds its `Config` (Hugging Face's keys), its module, `SIZES`, `dims` and `NAMES`, its name table. Every module
is called with tokens, int32 [B, T], and returns an `Output`; the keyword arguments are the same everywhere:

  mask         bool [B, T], False on padding, on either side
  token_types  int32 [B, T], 0 for a first and 1 for a second text (BERT); refused where a family has no use for them
  segments     int32 [B, T], documents of packed rows, 0 on padding; positions restart in each
  positions    int32 [B, T], of each token; None: counted over the real tokens
  cache        from `layers.cache.make_cache`: the tokens continue it (decoders)
  key          of dropout; None: no dropout
  places       int32 [B, P], of the tokens whose logits over the vocabulary are wanted: they are [B, P, V] (encoders)

Encoder-decoders take targets, int32 [B, U], the decoder's inputs (`ops.positions.shift_right`), after the tokens, and
target_mask, target_segments, target_positions; without targets they encode. `memory`, an earlier `Output.memory`, spares them the
encoder; so does a cache that an earlier call has filled.

Ids outside a table are refused outside jit and give NaN inside. Who makes logits of `hidden` asks `ops.output_layer` for the table,
the soft cap (a model's property `softcap`) and the fixed bias. A model that does more between the two (BERT's transform) has
`plain_logits = False`: its logits are `Output.logits` alone.
"""

import importlib
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxlm.config import Compute, Masking
from jaxlm.errors import ConfigError
from jaxlm.models.output import Dims
from jaxlm.overrides import choose
from jaxlm.sharding import spec

# model_type -> (module, class). A new family adds one row.
FAMILIES = {
    "transformer": ("jaxlm.models.transformer", "Transformer"),
    "t5": ("jaxlm.models.t5", "T5"),
    "mt5": ("jaxlm.models.mt5", "T5"),
    "bart": ("jaxlm.models.bart", "Bart"),
    "mbart": ("jaxlm.models.mbart", "MBart"),
    "marian": ("jaxlm.models.marian", "Marian"),
    "pegasus": ("jaxlm.models.pegasus", "Pegasus"),
    "bert": ("jaxlm.models.bert", "Bert"),
    "roberta": ("jaxlm.models.roberta", "Roberta"),
    "xlm-roberta": ("jaxlm.models.xlm_roberta", "XLMRoberta"),
    "roberta-prelayernorm": ("jaxlm.models.roberta_prelayernorm", "RobertaPreLayerNorm"),
    "distilbert": ("jaxlm.models.distilbert", "DistilBert"),
    "electra": ("jaxlm.models.electra", "Electra"),
    "albert": ("jaxlm.models.albert", "Albert"),
    "modernbert": ("jaxlm.models.modernbert", "ModernBert"),
    "gpt2": ("jaxlm.models.gpt2", "GPT2"),
    "gpt_neox": ("jaxlm.models.gpt_neox", "GPTNeoX"),
    "opt": ("jaxlm.models.opt", "OPT"),
    "llama": ("jaxlm.models.llama", "Llama"),
    "mistral": ("jaxlm.models.mistral", "Mistral"),
    "mixtral": ("jaxlm.models.mixtral", "Mixtral"),
    "qwen2": ("jaxlm.models.qwen2", "Qwen2"),
    "qwen3": ("jaxlm.models.qwen3", "Qwen3"),
    "gemma2": ("jaxlm.models.gemma2", "Gemma2"),
    "gemma3_text": ("jaxlm.models.gemma3", "Gemma3"),
}
# Known, and not here: why.
REFUSED = {"gemma3": "is Gemma 3 with images, and there are only its text models (model_type gemma3_text): save its language model alone"}
# The configuration keys that set the axes which a mesh divides, for messages; a family with other names has its own SETTINGS.
SETTINGS = {"vocab": "vocab_size", "heads": "num_attention_heads", "kv_heads": "num_key_value_heads"}
SETTINGS |= {"mlp": "intermediate_size", "embed": "hidden_size"}
INPUT_TABLES = ("wte", "word", "embed", "shared", "source")  # what the families call the parameter that embeds input ids


def family(config: Any) -> ModuleType:
    """The module of a configuration's family: Config, SIZES, dims, NAMES."""
    return family_named(config.model_type)


def family_named(model_type: str) -> ModuleType:
    """The module of the family with this `model_type`; an unknown one is refused with the nearest."""
    if model_type in REFUSED:
        raise ConfigError(f"model_type={model_type!r} {REFUSED[model_type]}")
    return importlib.import_module(FAMILIES[choose("model_type", model_type, FAMILIES)][0])


def make_model(config: Any, compute: Compute = Compute(), task: str | None = None, masking: Masking = Masking()) -> nn.Module:
    """The module of a configuration: a value; its parameters come from `init` or from a checkpoint.

    Args:
      task: decides the head; None: the family's first. "replaced-tokens" is ELECTRA's generator and discriminator together,
        of the sizes that `masking` says.
    """
    if task == "replaced-tokens":
        return importlib.import_module("jaxlm.models.electra_pair").make_pair(config, compute, masking)
    tasks = family(config).NAMES.architectures
    task = next(iter(tasks)) if task is None else choose(f"the task of {config.model_type}", task, tasks)
    return getattr(family(config), FAMILIES[config.model_type][1])(config, compute, task)


def init_params(model: nn.Module, key: Any, rows: int = 1) -> dict:
    """Fresh parameters; `rows` is how many rows the mesh needs at least."""
    limit = dims(model.config).context
    tokens = jnp.zeros((rows, min(8, limit or 8)), jnp.int32, out_sharding=spec("batch", None))
    inputs = (tokens, tokens) if has_decoder(model) else (tokens,)
    return model.init(key, *inputs)["params"]


def input_table(params: dict) -> str:
    """The name of the parameter [V, D] that embeds the input ids."""
    return next(name for name in INPUT_TABLES if name in params)


def has_decoder(model: nn.Module) -> bool:
    """Whether the model has a decoder over an encoder, and so takes targets; T5's "features" are of the encoder alone."""
    architectures = family(model.config).NAMES.architectures
    return "seq2seq-lm" in architectures and not architectures[model.task].endswith("EncoderModel")


def dims(config: Any) -> Dims:
    """The sizes of a configuration's model."""
    return family(config).dims(config)


def windows(config: Any) -> tuple[int | None, ...]:
    """How many tokens each layer of a decoder sees, itself among them; None: all before it."""
    named = getattr(family(config), "windows", None)
    return (None,) * dims(config).layers if named is None else named(config)


def axis_sizes(config: Any) -> dict[str, int]:
    """The axes that a mesh may divide, for `sharding.check_sizes`."""
    known = dims(config)
    sizes = {"vocab": config.vocab_size, "heads": known.heads, "kv_heads": known.kv_heads}
    return sizes | {"mlp": known.mlp, "embed": known.embed}


def settings(config: Any) -> dict[str, str]:
    """Axis name -> the configuration key that sets its size, for messages."""
    names = getattr(family(config), "SETTINGS", SETTINGS)
    return {axis: f"model.{key}" for axis, key in names.items()}
