"""The usual names of norms, such as "GroupNorm with 4 groups", from overrides."""

from collections.abc import Iterable

from normbench.verdicts.conditions import LAYER, TaskKind
from normbench.verdicts.wording import category_text

NAMES = {
    "ada_layer": "AdaLN",
    "affine": "no norm (gain and bias only)",
    "batch_group": "BCN",
    "batch_instance": "BIN",
    "batch_masked": "masked BatchNorm",
    "batch_regularized": "RBN",
    "batch_renorm": "BatchRenorm",
    "conditional_instance": "conditional InstanceNorm",
    "derf": "Derf",
    "dyt": "DyT",
    "evonorm_b0": "EvoNorm-B0",
    "evonorm_s0": "EvoNorm-S0",
    "extended_batch": "extended BatchNorm",
    "film": "FiLM",
    "frozen_batch": "frozen BatchNorm",
    "grn": "GRN",
    "group_permuted": "permuted GroupNorm",
    "ibn": "IBN-a",
    "layer_position": "LayerNorm over C",
    "layer_sample": "LayerNorm over C, H, W",
    "layer_shape": "LayerNorm over C, H, W (gain per element)",
    "local_response": "LRN",
    "none": "no norm",
    "pixel": "PixelNorm",
    "power": "PowerNorm",
    "scale": "ScaleNorm",
    "switchable": "SwitchableNorm",
}
"""Names that `wording.CATEGORIES` lacks."""
OPTIONS = {
    "norm.num_groups": "{} groups",
    "norm.order": "order {}",
    "reparam=weight_std": "WS",
    "norm.bias=true": "a bias",
}
"""An option, or an option and its value -> its words."""


def usual_names(norms: Iterable[str], task: TaskKind) -> dict[str, str]:
    """Return norms, as overrides -> their names; shared names become the overrides."""
    names = {norm: usual_name(norm, task) for norm in norms}
    shared = [*names.values()]
    return {n: name if shared.count(name) == 1 else n for n, name in names.items()}


def usual_name(norm: str, task: TaskKind) -> str:
    """Return the name of a norm in the papers, and its options in words.

    The norm that `norm=layer` means in `task` is called LayerNorm.
    """
    word, *options = norm.split()
    key = word.removeprefix("norm=")
    name = "LayerNorm" if key == LAYER[task] else NAMES.get(key) or category_text(key)
    texts = []
    for option in options:
        text = OPTIONS.get(option)
        if text is None:
            key, _, value = option.partition("=")
            text = OPTIONS.get(key, f"{key.removeprefix('norm.')}={{}}").format(value)
        texts.append(text)
    return f"{name} with {' and '.join(texts)}" if texts else name


def family(norm: str) -> str:
    """Return the first word of the name of a norm, "group" for norm=group_permuted.

    Norms of one family are variants of one norm.
    """
    return norm.split()[0].removeprefix("norm=").partition("_")[0]
