"""The configuration of a run: frozen dataclasses, `a.b=c` overrides, and the way to and from JSON.

A config file is Python that assigns `config = Run(...)`. No model is known here: `Run.model` holds the family's `Config`, and
whoever reads JSON back passes its type. Read next: `sharding.py`.
"""

import dataclasses
import difflib
import importlib.util
import json
from pathlib import Path
from typing import Any

from jaxlm.errors import ConfigError
from jaxlm.overrides import field_types, override, tuples


@dataclasses.dataclass(frozen=True)
class Data:
    """What is read, how it is split, and how documents become rows."""

    source: Any = "stdlib"  # "stdlib", "tfds:NAME", a path or glob, or a mixture ((source, weight), ...)
    column: str = "text"  # the column of jsonl, csv, tsv, parquet or TFDS that holds the text
    split: str = "train"  # TFDS: the split that is read
    data_dir: str | None = None  # TFDS: where prepared data sets lie
    clean: tuple[Any, ...] = ()  # steps of text/clean.py: names, or (name, {option: value}), as in ("html", ("length", {"minimum": 50}))
    validation: float = 0.05  # share of documents held out by a hash of their text
    sequence_length: int = 256  # tokens a row
    packing: str = "windows"  # "windows" of one stream, or whole "documents" side by side that do not see each other
    loader: str = "tf"  # "tf" (tf.data) or "threads" (the same batches without TensorFlow)
    prefetch: int = 2  # batches made ahead
    cache: str = "~/.cache/jaxlm"  # where prepared stores are kept


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """The tokenizer: trained on the run's own training documents, or loaded from `path`."""

    kind: str = "bpe"  # "bpe" (byte-level) or "char"
    vocab_size: int = 4096
    path: str | None = None


@dataclasses.dataclass(frozen=True)
class Compute:
    """How the model computes, not what. On a CPU remat saves memory in the stacked layout only: unrolled, XLA merges what is
    computed twice."""

    dtype: str = "float32"  # of activations; parameters, softmax, norms and losses stay float32
    layout: str = "unrolled"  # or "stacked": one parameter tree with a leading layer axis and lax.scan
    remat: str = "none"  # or "dots", "attention", "full": what the backward pass computes again
    attention: str = "auto"  # or "eager", "xla", "cudnn"


@dataclasses.dataclass(frozen=True)
class Loss:
    """Options of the token cross-entropy."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0  # weight of the squared log-partition (PaLM, section 5)
    chunk: int | None = None  # tokens a row whose logits exist at once; None: all of them


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The update rule and its schedule; the names are listed in `training/optimizer.py`."""

    name: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: int = 100  # updates
    decay: int | None = None  # updates from the first to the end of the decay; None: the run's steps
    cooldown: float = 0.2  # warm-up-stable-decay: the last share of the decay updates that cools down
    end: float = 0.1  # final learning rate as a share of the peak
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    momentum: float = 0.9  # SGD, RMSprop and Muon
    weight_decay: float = 0.1  # on matrices only: no biases, no norms
    clip: float | None = 1.0  # global gradient norm
    ema: float | None = None  # decay of an exponential moving average of the parameters


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Sizes of the device mesh's axes; -1 takes the devices that are left. All one: a single device."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class Evaluation:
    every: int = 200  # steps
    batches: int | None = None  # None: the whole validation split
    patience: int | None = None  # stop after so many evaluations without a better loss


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    every: int = 200  # steps
    keep: int = 2  # newest ones kept, beside the best


@dataclasses.dataclass(frozen=True)
class Logging:
    every: int = 10  # steps between lines of metrics.jsonl
    tensorboard: bool = True
    wandb: str | None = None  # a Weights & Biases project
    samples: int = 3  # texts sampled at the end


@dataclasses.dataclass(frozen=True)
class Profile:
    steps: tuple[int, ...] = ()  # (first, last): a trace of these steps


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything a training run depends on."""

    model: Any  # the family's Config; its vocab_size None is filled in from the tokenizer
    task: str = "causal-lm"
    workdir: str = "runs/default"
    steps: int = 1000  # batches, of `batch_size` rows each
    batch_size: int = 16  # rows over all devices
    accumulate: int = 1  # micro-batches a step
    seed: int = 0
    data: Data = Data()
    tokenizer: Tokenizer = Tokenizer()
    compute: Compute = Compute()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    mesh: Mesh = Mesh()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    logging: Logging = Logging()
    profile: Profile = Profile()


def parse(arguments: list[str], default: Run) -> Run:
    """The configuration that a command line names (none: the default), with its overrides.

    Raises ConfigError for anything that is neither one config file nor key=value.
    """
    named = [argument for argument in arguments if "=" not in argument]
    if len(named) > 1:
        raise ConfigError(f"{named[1]!r}: one config file at most; overrides are of the form key=value")
    run = load_file(named[0]) if named else default
    return override(run, [argument for argument in arguments if "=" in argument])


def load_file(path: str | Path) -> Run:
    """The `config` of a Python config file."""
    path = Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.py")], n=1)
        raise ConfigError(f"there is no config file {path}" + (f"; did you mean {path.parent / near[0]}?" if near else ""))
    spec = importlib.util.spec_from_file_location(f"jaxlm_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, NameError, TypeError, AttributeError, ImportError) as error:
        raise ConfigError(f"{path} cannot be run as Python: {error}") from error
    if not isinstance(getattr(module, "config", None), Run):
        raise ConfigError(f"{path} assigns no run to `config`; end it with `config = Run(...)`")
    return module.config


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dataclasses as nested dictionaries, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any], model_type: type) -> Run:
    """The inverse of `to_dict`; `model_type` is the Config class of the family, unknown keys are refused."""
    run = Run(model=_build(model_type, values["model"]))
    rest = {k: v for k, v in values.items() if k != "model"}
    for name, value in rest.items():
        field_types(run, name, name)
        group = getattr(run, name)
        made = _build(type(group), value) if dataclasses.is_dataclass(group) else tuples(value)
        run = dataclasses.replace(run, **{name: made})
    return run


def _build(kind: type, values: dict[str, Any]) -> Any:
    names = {f.name for f in dataclasses.fields(kind) if f.init}
    unknown = sorted(set(values) - names - {"model_type"})
    if unknown:
        raise ConfigError(f"{kind.__module__}.{kind.__qualname__} has no {', '.join(unknown)}")
    return kind(**{k: tuples(v) for k, v in values.items() if k in names})


FIXED = ("model", "task", "seed", "batch_size", "loss", "data", "tokenizer", "optimizer")
FREE_WITHIN = {"data": {"loader", "prefetch", "cache"}}


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The keys that a resumed run may not change, as `key: old -> new` lines."""
    rows = []
    for group in FIXED:
        before, after = old.get(group), new.get(group)
        if not isinstance(before, dict) or not isinstance(after, dict):
            before, after = {"": before}, {"": after}
        for key in sorted(set(before) | set(after)):
            if key in FREE_WITHIN.get(group, ()) or json.dumps(before.get(key)) == json.dumps(after.get(key)):
                continue
            rows.append(f"{group}{'.' + key if key else ''}: {before.get(key)!r} -> {after.get(key)!r}")
    return rows
