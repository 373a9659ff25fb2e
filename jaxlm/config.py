"""The configuration of a run: frozen dataclasses, `a.b=c` overrides, and the way to and from JSON.

A config file is Python that assigns `config = Run(...)`. No model is known here: `Run.model` holds the family's `Config`, and
whoever reads JSON back passes its type. Read next: `sharding.py`.
"""

import dataclasses
import difflib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlm.errors import ConfigError
from jaxlm.overrides import field_types, override, tuples


@dataclasses.dataclass(frozen=True)
class Data:
    """What is read, how it is split, and how documents become rows."""

    source: Any = "stdlib"  # "stdlib", "tfds:NAME", a path or glob, or a mixture ((source, weight), ...), all of the same columns
    column: str = "text"  # the column of jsonl, csv, tsv, parquet or TFDS that holds the text
    split: str = "train"  # TFDS: the split that is read
    validation_source: str | None = None  # of its own, as in valid.tsv or "tfds:glue/sst2@validation"; None: a share of `source`
    test_source: str | None = None  # never seen in training; `python -m jaxlm.evaluate DIR --split test`
    data_dir: str | None = None  # TFDS: where prepared data sets lie
    clean: tuple[Any, ...] = ()  # steps of text/clean.py: names, or (name, {option: value}), as in ("html", ("length", {"minimum": 50}))
    validation: float = 0.05  # share of documents or records held out by a hash of their text
    fraction: float = 1.0  # share of the training records that is used, the same of every label
    fold: tuple[int, ...] = ()  # (k, n): of n parts of the records, with the labels evenly in each, part k is held out
    sequence_length: int = 256  # tokens a row; of an encoder-decoder those of its encoder
    target_length: int | None = None  # tokens a row of an encoder-decoder's decoder; None: sequence_length
    batch_tokens: int | None = None  # text to text: tokens of a batch, source and target padding counted, in place of batch_size rows
    batch_multiple: int | None = None  # of how many rows such a batch is made; None: as mesh and accumulate need it; a run keeps it
    packing: str | None = None  # text: "windows" of one stream (None), or whole "documents" side by side that do not see each other;
    # records: "packed" side by side (None), "padded" one a row, or in "buckets" of like lengths
    loader: str = "tf"  # "tf" (tf.data) or "threads" (the same batches without TensorFlow)
    prefetch: int = 2  # batches made ahead
    cache: str = "~/.cache/jaxlm"  # where prepared stores are kept


@dataclasses.dataclass(frozen=True)
class Records:
    """How labelled records become examples, in the tasks that learn from them."""

    columns: tuple[Any, ...] = ()  # (("text", "sentence"), ("label", 0)): a role's column; a number: no header; (): the known ones
    kind: str = "one"  # classification: "one" label of several, "several" labels at once, or "regression"
    labels: tuple[str, ...] = ()  # names, in the order of their ids; (): those of the training records, sorted
    scheme: str = "plain"  # tagging: "plain" tags a word, or entities as "bio" or "bilou"
    stride: int = 128  # question answering: tokens that neighbouring windows of a context share
    question: int = 64  # tokens of a question at most
    answer: int = 30  # tokens of an answer at most
    unanswerable: bool = False  # questions may have no answer in their context (SQuAD 2)
    null_threshold: float | None = 0.0  # no answer where its score passes the best answer's by more than this; None: always answer
    n_best: int = 20  # spans that are kept of a question
    noise: float = 0.0  # share of a training example's tokens that are replaced by the mask or unknown token
    prefix: str = ""  # text to text: stands before every source, as in "translate English to German: "
    source_language: str | None = None  # its code, where the tokenizer has codes (mBART, NLLB), or as sacrebleu needs it ("en")
    target_language: str | None = None
    ratio: float | None = None  # text to text: a pair that is learnt has at most so many times the tokens on its longer side; None: any
    skip: bool = False  # pairs with an empty side or an absurd ratio are left out and counted; false: the first one stops the run


@dataclasses.dataclass(frozen=True)
class Masking:
    """The noise of masked language modelling (Devlin et al. 2019, section 3.1)."""

    rate: float = 0.15  # share of the tokens that are to be predicted
    mask: float = 0.8  # share of these that become the mask token
    random: float = 0.1  # share of these that become any token; the rest stay
    whole_words: bool = False  # all tokens of a word or none
    swap: float = 0.5  # share of the pairs whose second text is another (next sentence), or comes first (sentence order)
    generator: float = 0.25  # replaced-token detection: width of the generator as a share of the discriminator's
    detection: float = 50.0  # weight of the discriminator's loss (Clark et al. 2020, section 3.2)


@dataclasses.dataclass(frozen=True)
class Denoising:
    """The noise that encoder-decoders learn to undo: T5's spans, BART's texts."""

    density: float | None = None  # share of the tokens that are taken out; None: 0.15 (Raffel et al. 2020, section 3.1.4), BART 0.3
    span: float = 3.0  # tokens of a span, on average (T5), or the mean of their Poisson distribution (Lewis et al. 2020, section 2.2)
    prefix: bool = False  # in place of spans the end of each text is taken out, cut at a random place ("prefix LM")
    masked: float = 0.0  # BART: share of the tokens that are masked one by one
    random: float = 0.1  # BART: share of the masks that become any token
    permute: float = 1.0  # BART: share of the sentences that change places


@dataclasses.dataclass(frozen=True)
class Risk:
    """Minimum-risk training on candidates that the model draws (Shen et al. 2016)."""

    reward: str | None = None  # "bleu", "chrf" or "rougeL", of each candidate against its reference; None: cross-entropy alone
    candidates: int = 8  # drawn of each source
    reference: bool = True  # it is one more candidate; False: those that are drawn are weighed alone
    sharpness: float = 0.005  # alpha of the paper's equation 13, on log-probabilities
    temperature: float = 1.0  # of the draws
    cross_entropy: float = 0.1  # weight of the cross-entropy beside the risk


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What of a model is trained, and how fast each part."""

    freeze: tuple[str, ...] = ()  # parameters that stay, by path or a part of it: ("word", "layers/0", "ln_1")
    layer_decay: float = 1.0  # learning rate of a layer as a share of that of the layer above (Clark et al. 2020, appendix)
    lora_rank: int = 0  # of the low-rank updates that are trained in place of the matrices (Hu et al. 2021); 0: the matrices
    lora_alpha: float = 16.0  # an update counts alpha / rank times
    lora_targets: tuple[str, ...] = ("q", "v")  # names of the matrices, by path or a part of it


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """The tokenizer: loaded from `path`, or from the run's `pretrained`, or trained on the run's own training data."""

    kind: str = "bpe"  # "bpe" (byte-level), "wordpiece", "unigram", "word" or "char"
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
    scheduled_sampling: float = 0.0  # text to text: the share of the decoder's inputs that are its own predictions in the end
    sampling_schedule: str = "linear"  # how that share grows over the steps: or "exponential", "sigmoid" (Bengio et al. 2015)
    r_drop: float = 0.0  # classification: weight of the divergence between two dropouts of one example (Liang et al. 2021)


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
    multiply_by_parameter_scale: bool = False  # Adafactor: the learning rate is a share of a parameter's root mean square, as for T5
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
    patience: int | None = None  # stop after so many evaluations without a better one
    generate: int | None = None  # text to text: validation examples whose outputs are generated and scored; None: none
    num_beams: int = 1  # of that
    max_new_tokens: int | None = None  # of that; None: data.target_length
    scores: tuple[str, ...] = ()  # of "bleu", "chrf", "ter", "rouge", "exact", "error-rate"; (): those usual for the task
    best: str = "loss"  # the validation metric that decides which checkpoint is best; of all but losses and errors more is better


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

    model: Any = None  # the family's Config; its vocab_size None is filled in from the tokenizer
    task: str = "causal-lm"
    pretrained: str | None = None  # a Hugging Face folder, a run, ...: where the body starts; model=None takes its configuration
    workdir: str = "runs/default"
    steps: int = 1000  # batches, of `batch_size` rows each
    epochs: float | None = None  # times through the training data, in place of steps
    batch_size: int = 16  # rows over all devices
    accumulate: int = 1  # micro-batches a step
    seed: int = 0
    folds: int = 0  # cross-validation: so many runs, each with another part held out
    fractions: tuple[float, ...] = ()  # a learning curve: a run for each share of the training records
    data: Data = Data()
    records: Records = Records()
    masking: Masking = Masking()
    tuning: Tuning = Tuning()
    denoising: Denoising = Denoising()
    risk: Risk = Risk()
    tokenizer: Tokenizer = Tokenizer()
    target_tokenizer: Tokenizer = Tokenizer(kind="same")  # of target texts; "same": the one of the sources, trained on both sides
    compute: Compute = Compute()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    mesh: Mesh = Mesh()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    logging: Logging = Logging()
    profile: Profile = Profile()


def parse(arguments: list[str], default: Run, read_model: Callable[[Run], Any] | None = None) -> Run:
    """The configuration that a command line names (none: the default), with its overrides.

    Args:
      read_model: run -> the Config of its pretrained model, for one that names it and has no `model` of its own.

    Raises ConfigError for anything that is neither one config file nor key=value.
    """
    named = [argument for argument in arguments if "=" not in argument]
    if len(named) > 1:
        raise ConfigError(f"{named[1]!r}: one config file at most; overrides are of the form key=value")
    changes = [argument for argument in arguments if "=" in argument]
    started = any(change.startswith("pretrained=") for change in changes)
    run = load_file(named[0]) if named else Run() if started else default
    run = override(run, [change for change in changes if not change.startswith("model.")])
    if run.model is None and run.pretrained and read_model:
        run = dataclasses.replace(run, model=read_model(run))
    if run.model is None:
        raise ConfigError("there is no model: name a pretrained one, pretrained=PATH, or a `model` in the config file")
    return override(run, [change for change in changes if change.startswith("model.")])


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
