"""The model `jaxlm` of EleutherAI's LM Evaluation Harness, for its Python interface: importing this module registers it.

    import lm_eval, jaxlm.harness_model
    lm_eval.simple_evaluate(model="jaxlm", model_args={"pretrained": "DIR"}, tasks=["hellaswag"])

Texts become ids as in the harness's own adapter of transformers: with what the tokenizer's template adds, and control tokens that a
text spells are control tokens. Read next: `inference/score.py`, `inference/generate.py`; `harness.py` is the command.
"""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import lm_eval.models  # noqa: F401 (the harness's own models: it registers them only where nobody has registered another)
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from jaxlm.errors import ConfigError
from jaxlm.inference.continuations import Greedy, continue_rows
from jaxlm.inference.score import Pair, score_tokens
from jaxlm.models import dims, has_decoder
from jaxlm.overrides import choose
from jaxlm.pretrained import load
from jaxlm.text.sides import Sides, load_sides

UNLIMITED = 2048  # tokens that a model without a limit reads, as in the harness
MOST_NEW = 256  # tokens of a generation where the task does not say, as in the harness
NEW = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # what tasks call that number; the first counts
SETTINGS = (*NEW, "until", "do_sample", "temperature", "top_p", "top_k", "min_p")  # the last three mean nothing to greedy decoding


@dataclasses.dataclass(frozen=True)
class Options:
    """What `--model_args` may say; batch_size and max_batch_size come from the harness's options of the same names.

    `dtype` is that of parameters and activations (None: as stored), `max_length` the tokens read at most (None: the model's own).
    JAX finds its device itself: JAX_PLATFORMS chooses, and `--device` does nothing.
    """

    pretrained: str = ""
    dtype: str | None = None
    max_length: int | None = None
    batch_size: int | str = 1  # "auto": max_batch_size, else 16
    max_batch_size: int | None = None
    add_bos_token: bool | None = None  # None: as the tokenizer's template says
    prefix_token_id: int | None = None  # what an empty context is; None: the token that begins a document, else the one that ends it


@register_model("jaxlm")
class JaxLM(TemplateLM):
    """A causal or an encoder-decoder model, of whatever `jaxlm.load` takes; its arguments are those of `Options`.

    Log-likelihoods are in nats; generation is greedy.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.options = _options(arguments)
        self.model, self.params = load(self.options.pretrained, dtype=self.options.dtype)
        if self.model.task not in ("causal-lm", "seq2seq-lm"):
            raise ConfigError(f"{self.options.pretrained} is a model for {self.model.task}: the harness needs causal-lm or seq2seq-lm")
        self.tokenizer = load_sides(self.options.pretrained)
        self.backend = "seq2seq" if has_decoder(self.model) else "causal"
        self.max_length = _length(self.model, self.options.max_length)

    @property
    def batch_size(self) -> int:
        """Rows of a batch; `auto` is no search: as many as max_batch_size says, or 16."""
        size = self.options.batch_size
        return (self.options.max_batch_size or 16) if str(size).startswith("auto") else int(size)

    @property
    def eot_token_id(self) -> int | None:
        """The id that ends a document."""
        return self.tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """The id that stands for an empty context. Raises ConfigError where the tokenizer has none that may."""
        found = next((i for i in (self.options.prefix_token_id, self.tokenizer.bos_id, self.eot_token_id) if i is not None), None)
        if found is None:
            raise ConfigError("the tokenizer has no token that begins or ends a document: give prefix_token_id= in --model_args")
        return found

    @property
    def tokenizer_name(self) -> str:
        """By which the harness keeps the requests of a chat template apart."""
        return str(self.options.pretrained).replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as text, by the tokenizer's own template."""
        return self.tokenizer.apply_chat_template(chat_history, add_generation_prompt=add_generation_prompt, tokenize=False)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of a text; None: with the template's tokens, unless the text begins with such a token itself."""
        if add_special_tokens is None:
            begun = self.options.prefix_token_id is not None or self.tokenizer.bos_id is not None or self.eot_token_id is not None
            begun = begun and string.startswith(self.tokenizer.piece(self.prefix_token_id))
            add_special_tokens = not begun and self.options.add_bos_token is not False
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens, allow_special=True))

    def _loglikelihood_tokens(self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any):
        """The answers to (texts or None, ids of the context, ids of the continuation), in their order."""
        self._check_one_vocabulary()
        pairs = [(context or [self.prefix_token_id], continuation) for _, context, continuation in requests]  # a context may be all spaces
        answers = dict(self._scored(pairs, disable_tqdm))
        for number, (texts, *_ids) in enumerate(requests):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answers[number])
        return [answers[number] for number in range(len(requests))]

    def _scored(self, pairs: list[Pair], quiet: bool) -> Iterator[tuple[int, tuple[float, bool]]]:
        found = score_tokens(self.model, self.params, pairs, length=self.max_length, batch_size=self.batch_size)
        return tqdm(found, "log-likelihoods", len(pairs), disable=quiet)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts: windows of the model's length, in which each token is scored once, with as much context as there is."""
        self._check_one_vocabulary()
        windows, owners, totals = [], [], [0.0] * len(requests)
        for number, request in enumerate(requests):
            rows = get_rolling_token_windows(self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, 1)
            found = [make_disjoint_window(row) for row in rows]
            windows, owners = windows + found, owners + [number] * len(found)
        for window, (total, _) in self._scored(windows, disable_tqdm):
            totals[owners[window]] += total
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations, each up to the first of its stop strings; those of equal settings are made together."""
        groups, texts = defaultdict(list), {}
        for number, request in enumerate(requests):
            groups[json.dumps(request.args[1], sort_keys=True)].append(number)
        bar = tqdm(total=len(requests), desc="generations", disable=disable_tqdm)
        for settings, numbers in groups.items():
            wanted = self._wanted(json.loads(settings))
            rows = {number: self._context(requests[number].args[0], wanted.new) for number in numbers}
            order = sorted(numbers, key={number: -len(row) for number, row in rows.items()}.get)
            for at in range(0, len(order), self.batch_size):
                batch = order[at : at + self.batch_size]
                made = continue_rows(self.model, self.params, self.tokenizer.as_target(), [rows[number] for number in batch], wanted)
                texts |= dict(zip(batch, made, strict=True))
                bar.update(len(batch))
        bar.close()
        for number, request in enumerate(requests):
            self.cache_hook.add_partial("generate_until", request.args, texts[number])
        return [texts[number] for number in range(len(requests))]

    def _check_one_vocabulary(self) -> None:
        """The harness spells contexts and continuations by one tokenizer."""
        if isinstance(self.tokenizer, Sides):
            raise ConfigError(f"{self.options.pretrained} has a tokenizer for each side: take tasks that generate, or jaxlm.evaluate")

    def _wanted(self, settings: dict[str, Any]) -> Greedy:
        for name in settings:
            choose("--gen_kwargs", name, SETTINGS)
        temperature, sampled = float(settings.get("temperature") or 0.0), settings.get("do_sample")
        if sampled or (sampled is None and temperature > 0):
            raise ConfigError("the task samples, and this adapter decodes greedily: give --gen_kwargs do_sample=False,temperature=0")
        until = settings.get("until") or []
        new = next((int(settings[name]) for name in NEW if settings.get(name) is not None), MOST_NEW)
        if self.backend == "causal" and new >= self.max_length:
            raise ConfigError(f"max_gen_toks={new} leaves no room for a context in {self.max_length} tokens: lower it by --gen_kwargs")
        return Greedy(new, tuple(filter(None, [until] if isinstance(until, str) else until)))

    def _context(self, text: str, new: int) -> list[int]:
        """Ids of what comes before, cut on the left to what leaves room for `new` tokens behind it."""
        room = self.max_length - (new if self.backend == "causal" else 0)
        return self.tok_encode(text)[-room:] or [self.prefix_token_id]


def _options(arguments: dict[str, Any]) -> Options:
    named = {name: value for name, value in arguments.items() if name != "device"}  # cuda:0 unless said: no word of the user's
    for name in named:
        choose("--model_args", name, [field.name for field in dataclasses.fields(Options)])
    if not named.get("pretrained"):
        raise ConfigError("no model: give --model_args pretrained=DIR")
    return Options(**named)


def _length(model: Any, wanted: int | None) -> int:
    """Of the rows that the model reads: what is wanted, else its own limit, which is never exceeded."""
    limit = dims(model.config).context
    if wanted is not None and limit is not None and wanted > limit:
        raise ConfigError(f"max_length={wanted} exceeds the model's {limit} positions: lower it")
    return wanted or limit or model.config.extra.get("n_positions") or UNLIMITED
