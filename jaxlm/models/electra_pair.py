"""ELECTRA as it is pretrained (Clark et al. 2020): a generator and a discriminator that share their embeddings.

Only training sees the pair: `discriminator(params)` are the parameters of the `electra.Electra` that is kept.
"""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Float

from jaxlm.config import Compute, Masking
from jaxlm.errors import ConfigError
from jaxlm.models.bert import dims
from jaxlm.models.electra import Config, Electra
from jaxlm.models.output import Flags, Ids, Key, Output

SHARED = ("word", "position", "type", "ln")  # kept once, with the discriminator


@dataclasses.dataclass(frozen=True)
class ElectraPair:
    """Two ELECTRAs with one set of embeddings; parameters are {"generator": ..., "discriminator": ...}.

    It is initialized and applied like every model; applied, it is the discriminator.
    """

    config: Config  # of the discriminator
    compute: Compute = Compute()
    share: float = 0.25  # of the discriminator's width that the generator has
    detection: float = 50.0  # weight of the discriminator's loss
    task: str = "replaced-tokens"
    plain_logits = False

    @property
    def generator(self) -> Electra:
        """Share of the heads, of their width and of the mlp's; as many layers (section 3.2)."""
        known = dims(self.config)
        heads = max(1, round(self.share * known.heads))
        width, mlp = heads * known.head_size, max(1, round(self.share * known.mlp))
        sizes = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": mlp}
        return Electra(dataclasses.replace(self.config, **sizes), self.compute, "masked-lm")

    @property
    def discriminator(self) -> Electra:
        """The model that is kept."""
        return Electra(self.config, self.compute, "pretraining")

    def init(self, key: Array, tokens: Ids) -> dict[str, Any]:
        """Fresh parameters of both."""
        first, second = jax.random.split(key)
        kept, small = self.discriminator.init(first, tokens)["params"], self.generator.init(second, tokens)["params"]
        return {"params": {"generator": {name: leaf for name, leaf in small.items() if name not in SHARED}, "discriminator": kept}}

    def apply(
        self, variables: dict[str, Any], tokens: Ids, *, mask: Flags = None, segments: Ids = None, key: Key = None, **names: Any
    ) -> Output:
        """The discriminator's."""
        return self.discriminator.apply(
            {"params": discriminator(variables["params"])}, tokens, mask=mask, segments=segments, key=key, **names
        )

    def generate(self, params: dict[str, Any], batch: dict[str, Array], key: Key) -> Float[Array, "B P V"]:
        """The generator's logits at the batch's "places"."""
        names = {"segments": batch.get("segments"), "places": batch["places"], "key": key}
        return self.generator.apply({"params": generator(params)}, batch["tokens"], **names).logits

    def discriminate(self, params: dict[str, Any], tokens: Ids, segments: Ids, key: Key) -> Float[Array, "B T"]:
        """Above 0: a replaced token."""
        return self.apply({"params": params}, tokens, segments=segments, key=key).logits


def make_pair(config: Any, compute: Compute = Compute(), masking: Masking = Masking()) -> ElectraPair:
    """The pair of an ELECTRA's configuration. Raises ConfigError for another family."""
    if config.model_type != "electra":
        raise ConfigError(f"task=replaced-tokens trains an ELECTRA and model.model_type is {config.model_type}: take jaxlm.models.electra")
    return ElectraPair(config, compute, masking.generator, masking.detection)


def discriminator(params: dict[str, Any]) -> dict[str, Any]:
    """The discriminator's parameters: those of `Electra(config, compute, "pretraining")`."""
    return params["discriminator"]


def generator(params: dict[str, Any]) -> dict[str, Any]:
    """The generator's parameters, with the embeddings that it shares: those of `ElectraPair.generator`."""
    return params["generator"] | {name: params["discriminator"][name] for name in SHARED}
