"""What a model does with hidden states to make logits of them, for whoever makes them outside the model."""

from typing import Any


def output_layer(model: Any, params: dict) -> dict[str, Any]:
    """What lies between hidden states and logits, as arguments of `unembed` and `token_cross_entropy`: table, softcap, bias.

    Not for a model with `plain_logits = False`.
    """
    return {"table": model.output_table(params), "softcap": getattr(model, "softcap", None), "bias": params.get("final_logits_bias")}
