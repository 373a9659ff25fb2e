"""Every family and head beside torch: `python -m tests.parity [words of the case's name]` prints one table.

A case is a small random model of transformers. It is saved, loaded here, run on the same inputs, differentiated, saved again
and opened by transformers. The cases are in `parity_encoders.py`, `parity_decoders.py` and `parity_seq2seq.py`;
`test_parity.py` holds every case to the bounds below.
"""

import dataclasses
import functools
import inspect
import json
import sys
import tempfile
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxlm
import tests.conftest  # noqa: F401 (the simulated devices, before JAX is imported)
from jaxlm.config import Compute
from jaxlm.models import family_named, has_decoder, make_model
from jaxlm.pretrained import paths

LOGITS = 1e-5  # of 1 + the largest value
GRADIENT, FLOOR = 1e-4, 1e-6  # of the tensor's largest gradient, of the largest of all


@dataclasses.dataclass(frozen=True)
class Case:
    """One model: transformers' configuration, the task, and how its rows are padded ("right", "left", "none")."""

    model_type: str
    task: str
    config: dict
    what: str = ""  # the variant, in a word
    padding: str = "right"
    rows: int = 3
    length: int = 12
    own_head: bool = False  # the output embedding of an encoder-decoder is untied after all, as T5 1.1's is

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.model_type, self.task, self.what)))


@dataclasses.dataclass(frozen=True)
class Result:
    """Differences: relative to 1 + max |reference| for values, to the bound for gradients (at most 1 passes)."""

    logits: float
    hidden: float
    gradient: float
    worst: str  # the parameter with the largest gradient difference
    bf16: float | None = None
    torch_bf16: float | None = None


def torch_model(case: Case):
    """The model of transformers, random everywhere: biases and norms too."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(case.model_type, **case.config)
    kind = getattr(transformers, family_named(config.model_type).NAMES.architectures[case.task])
    model = kind(config).eval()
    with torch.no_grad():
        if case.own_head:
            model.lm_head.weight = torch.nn.Parameter(0.5 * torch.randn_like(model.lm_head.weight))
        for tensor in tensors_of(model):
            tensor += 0.05 * torch.randn_like(tensor)
    return model


def tensors_of(model) -> list:
    """What a checkpoint holds and nothing else decides: all parameters but fixed positions, and BART's bias of the logits."""
    return [p for p in model.parameters() if p.requires_grad] + [b for name, b in model.named_buffers() if name == "final_logits_bias"]


def make_inputs(case: Case, vocabulary: int, types: int, pad: int | None = None) -> dict[str, np.ndarray]:
    """Tokens, a mask with padding, and token types; choices and targets where the task has them."""
    random = np.random.default_rng(1)
    shape = (case.rows, 3, case.length) if case.task == "multiple-choice" else (case.rows, case.length)
    inputs = {"tokens": random.integers(3, vocabulary, shape).astype(np.int32)}
    inputs["mask"] = np.ones(shape, bool)
    if case.padding == "right":
        inputs["mask"][..., 1:, -4:] = False
    elif case.padding == "left":
        inputs["mask"][..., 1:, :4] = False
    inputs["tokens"][~inputs["mask"]] = pad or 0  # by this transformers finds a row's last token
    if types > 1:
        inputs["token_types"] = (np.arange(case.length) > 5).astype(np.int32) * np.ones(shape, np.int32)
    return inputs


def add_targets(inputs: dict[str, np.ndarray], case: Case, vocabulary: int) -> None:
    """The decoder's side of an encoder-decoder, two tokens longer than the encoder's, the second row padded.

    A classifier reads as many targets as tokens, where each text ends (token 2).
    """
    length = case.length if case.task == "sequence-classification" else case.length + 2
    inputs["targets"] = np.random.default_rng(2).integers(3, vocabulary, (case.rows, length)).astype(np.int32)
    inputs["target_mask"] = np.ones_like(inputs["targets"], bool)
    inputs["target_mask"][1, -3:] = False
    if case.task == "sequence-classification":
        inputs["tokens"][:, 5] = inputs["tokens"][:, 7] = 2


TORCH_NAMES = {
    "tokens": "input_ids",
    "mask": "attention_mask",
    "token_types": "token_type_ids",
    "targets": "decoder_input_ids",
    "target_mask": "decoder_attention_mask",
}


def torch_inputs(model, inputs: dict[str, np.ndarray], left: bool) -> dict:
    """The same for torch; with padding on the left also the positions, which transformers would count over padding."""
    import torch

    given = {TORCH_NAMES[name]: torch.tensor(array.astype(np.int64)) for name, array in inputs.items()}
    counts = any(hasattr(part, "create_position_ids_from_input_ids") for part in model.modules())  # RoBERTa: real tokens only, as we do
    if left and not counts and "position_ids" in inspect.signature(model.forward).parameters:
        given["position_ids"] = torch.clamp(given["attention_mask"].cumsum(-1) - 1, min=0)
    return given


def torch_outputs(model, given: dict) -> dict:
    """Named as in `Output`."""
    import torch

    out = model(**given, output_hidden_states=True, return_dict=True)
    if "start_logits" in out:
        logits = torch.stack([out.start_logits, out.end_logits], -1)
    else:
        logits = out.get("logits", out.get("prediction_logits"))
    last = (out.get("decoder_hidden_states") or out.get("hidden_states") or (None,))[-1]
    hidden = out.get("last_hidden_state", last)
    relation = out.get("seq_relationship_logits", out.get("sop_logits"))
    return {"hidden": hidden, "logits": logits, "pooled": out.get("pooler_output"), "relation": relation}


def scored(outputs: dict, case: Case, inputs: dict[str, np.ndarray], np_like) -> object:
    """The loss, written once for both libraries: cross-entropy with random labels, squared error where there are no classes."""
    total = 0.0
    for name, array in outputs.items():
        if array is None or (name in ("hidden", "pooled") and case.task != "features"):
            continue
        random, shape = np.random.default_rng(len(name)), tuple(array.shape)
        real = inputs.get("target_mask", inputs["mask"])
        real = real if shape[:2] == real.shape else np.ones(shape[:1], bool)
        if name in ("hidden", "pooled") or len(shape) == real.ndim:
            target = np_like(random.standard_normal(shape).astype(np.float32))
            error = (array - target) ** 2
            total = total + (error * np_like(real.reshape(real.shape + (1,) * (len(shape) - real.ndim)).astype(np.float32))).mean()
            continue
        label = np_like(np.eye(shape[-1], dtype=np.float32)[random.integers(0, shape[-1], shape[:-1])])
        top = array.max() if np_like is jnp.asarray else array.max().detach()
        likelihood = ((array - top) * label).sum(-1) - np_like_log_sum(array - top, np_like)
        total = total - (likelihood * np_like(real.astype(np.float32))).sum() / real.sum()
    return total


def np_like_log_sum(array, np_like):
    """log sum exp over the last axis in either library."""
    return jnp.log(jnp.exp(array).sum(-1)) if np_like is jnp.asarray else array.exp().sum(-1).log()


def our_outputs(model, params, inputs) -> dict:
    """As `torch_outputs`."""
    out = model.apply({"params": params}, **inputs)
    return {"hidden": out.hidden, "logits": out.logits, "pooled": out.pooled, "relation": out.relation}


def difference(ours, theirs, real: np.ndarray) -> float:
    """Largest absolute difference over 1 + max |theirs|, on real tokens."""
    if theirs is None:
        return 0.0
    ours, theirs = np.asarray(ours, np.float32), theirs.detach().float().numpy()
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    if ours.shape[: real.ndim] == real.shape:
        ours, theirs = ours[real], theirs[real]
    return float(np.abs(ours - theirs).max() / (1 + np.abs(theirs).max()))


def compare(case: Case, folder: Path, gradient: bool = True, bf16: bool = False) -> Result:
    """Run one case; the files stay in `folder`: "theirs", "ours" and "gradient". Without `gradient`, and without `bf16`, it is faster."""
    import torch

    torch_side = torch_model(case)
    torch_side.save_pretrained(folder / "theirs")
    model, params = jaxlm.load(folder / "theirs")
    assert model.task == case.task
    config = model.config
    inputs = make_inputs(case, config.vocab_size, getattr(config, "type_vocab_size", 0), torch_side.config.pad_token_id)
    if has_decoder(model):
        add_targets(inputs, case, getattr(config, "decoder_vocab_size", None) or config.vocab_size)
    given = torch_inputs(torch_side, inputs, case.padding == "left")
    want = torch_outputs(torch_side, given)
    if gradient:
        scored(want, case, inputs, torch.tensor).backward()
        value = lambda params: (lambda out: (scored(out, case, inputs, jnp.asarray), out))(our_outputs(model, params, inputs))
        (_, got), ours = jax.jit(jax.value_and_grad(value, has_aux=True))(params)
        worst, ratio = gradient_difference(torch_side, ours, folder / "gradient")
    else:
        got, worst, ratio = jax.jit(functools.partial(our_outputs, model))(params, inputs), "", 0.0
    real = inputs.get("target_mask", inputs["mask"])
    rows_real = real.reshape(-1, real.shape[-1])
    logits = max(
        (difference(got[name], want[name], real) for name in ("logits", "relation", "pooled") if want[name] is not None), default=0.0
    )
    hidden = difference(got["hidden"], want["hidden"], rows_real)
    jaxlm.save(folder / "ours", model, params)
    result = Result(logits, hidden, ratio, worst)
    return dataclasses.replace(result, **half_precision(case, model, params, torch_side, given, want, inputs, real)) if bf16 else result


def gradient_difference(torch_side, gradient, folder: Path) -> tuple[str, float]:
    """Torch's gradients are put in the place of its weights and saved: so they come to us by the same table as the weights."""
    import torch

    with torch.no_grad():
        for parameter in tensors_of(torch_side):
            kept = parameter.detach().clone()
            parameter.data = torch.zeros_like(kept) if parameter.grad is None else parameter.grad.clone()
            parameter.grad = kept
    torch_side.save_pretrained(folder)
    with torch.no_grad():
        for parameter in tensors_of(torch_side):
            parameter.data = parameter.grad
            parameter.grad = None
    want = paths(jax.device_get(jaxlm.load(folder)[1]))
    got = paths(jax.device_get(gradient))
    assert want.keys() == got.keys()
    largest = max(np.abs(array).max() for array in want.values())
    ratios = {path: np.abs(got[path] - want[path]).max() / (GRADIENT * np.abs(want[path]).max() + FLOOR * largest) for path in want}
    worst = max(ratios, key=ratios.get)
    return worst, float(ratios[worst])


def half_precision(case, model, params, torch_side, given, want, inputs, real) -> dict[str, float]:
    """Errors of bfloat16 activations, ours and torch's, against torch's float32."""
    import torch

    half = make_model(model.config, Compute(dtype="bfloat16"), model.task)
    name = "hidden" if want["logits"] is None else "logits"
    real = real if name == "logits" else real.reshape(-1, real.shape[-1])
    half_params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    ours = jax.jit(functools.partial(our_outputs, half))(half_params, inputs)[name]
    with torch.no_grad():
        theirs = torch_outputs(torch_side.bfloat16(), given)[name]
    return {"bf16": difference(ours, want[name], real), "torch_bf16": difference(theirs.float().numpy(), want[name], real)}


def check_saved(case: Case, folder: Path) -> None:
    """What we saved opens in torch with nothing missing or unexpected, and is what we read, byte for byte, key for key."""
    import transformers
    from safetensors.numpy import load_file

    architecture = family_named(case.model_type).NAMES.architectures[case.task]
    kind = getattr(transformers, architecture)
    _, information = kind.from_pretrained(folder / "ours", output_loading_info=True)
    assert not any(information[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), information
    theirs, ours = (load_file(folder / side / "model.safetensors") for side in ("theirs", "ours"))
    assert set(ours) == set(theirs), set(ours) ^ set(theirs)
    for name, tensor in theirs.items():
        assert tensor.dtype == ours[name].dtype and tensor.tobytes() == ours[name].tobytes(), name
    before, after = (json.loads((folder / side / "config.json").read_text()) for side in ("theirs", "ours"))
    if case.own_head:
        assert before.pop("tie_word_embeddings") and not after.pop("tie_word_embeddings")  # theirs says so, and it is not
    assert {key: after.get(key, "lost") for key in before} == before


def all_cases() -> list[Case]:
    """The cases of all families."""
    from tests import parity_decoders, parity_encoders, parity_seq2seq

    return [*parity_encoders.CASES, *parity_decoders.CASES, *parity_seq2seq.CASES]


def main(words: list[str]) -> int:
    """Print the table; the number of cases out of bounds."""
    failed = 0
    print(f"{'case':<58} {'logits':>8} {'hidden':>8} {'gradient':>8} {'bf16':>8} {'torch':>8}")
    for case in all_cases():
        if not all(word in case.name for word in words):
            continue
        with tempfile.TemporaryDirectory() as folder:
            result = compare(case, Path(folder), bf16=True)
            check_saved(case, Path(folder))
        good = result.logits < LOGITS and result.hidden < LOGITS and result.gradient <= 1
        failed += not good
        figures = f"{result.logits:8.1e} {result.hidden:8.1e} {result.gradient:8.2f} {result.bf16:8.1e} {result.torch_bf16:8.1e}"
        print(f"{case.name:<58} {figures}{'' if good else '  OUT OF BOUNDS ' + result.worst}", flush=True)
    return failed


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(min(main(sys.argv[1:]), 99))
