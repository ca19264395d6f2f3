"""Arms, levels and data sets in words, from the overrides of a design.

A claim registers arms by short names, such as `group_ws`. A figure says what they are:
"GroupNorm with 4 groups and WS".
"""

from collections.abc import Iterable, Mapping, Sequence

from normbench.report.figures.palette import LOOKS
from normbench.verdicts.conditions import TASKS, TaskKind
from normbench.verdicts.design import Design
from normbench.verdicts.naming import NAMES, OPTIONS, usual_name
from normbench.verdicts.wording import CATEGORIES

WORDS = {
    "data.content=style": "content in the style",
    "norm.order=random_each_forward": "other groups in each step",
    "norm.order=random_each_layer": "other groups in each layer",
    "norm.order=random_fixed": "random groups",
    "norm.order=strided": "strided groups",
    "norm_noise.kind=activation": "noise after the norm",
    "norm_noise.kind=statistic": "noise in the statistics",
    "optimizer.decay_as=lr_schedule": "as a schedule of the rate",
    "task.batching=class": "sorted by class",
    "task.batching=quality": "sorted by quality",
    "task.batching_scope=norm_batch": "",
    "task.norm_position=peri": "peri-norm",
    "task.norm_position=post": "post-norm",
    "task.norm_position=pre": "pre-norm",
    "task.norm_position=res_post": "res-post-norm",
    "task.padding=zeros": "a border of zeros",
    "task.qk_norm=layer": "QK-norm",
    "task.zero_pads=true": "pads zeroed",
    "warmup=0.0": "no warm-up",
}
"""Overrides in words."""
KEYS = {
    "batch_size": "SGD batch {}",
    "budget.epochs": "{} epochs",
    "data": "{}",
    "data.label": "{}",
    "data.low_quality": "{} of low quality",
    "data.size": "{0}x{0} pixels",
    "data.styles": "style {}",
    "ema": "average of weights {}",
    "init_offset": "other initial weights",
    "lr_reference_batch_size": "other learning rate",
    "norm_batch": "norm batch {}",
    "norm_noise.scale": "scale {}",
    "norm_noise.shift": "shift {}",
    "norm_noise.spread": "spread {}",
    "optimizer.weight_decay": "weight decay {}",
    "task.long_batches": "{} of the batches long",
    "train_size": "{} training samples",
    "warmup": "warm-up {}",
}
"""Keys of other overrides in words, with a place for the value."""
AXES = {
    "batch_size": "samples per optimizer step (SGD batch)",
    "ema": "steps of averaging",
    "lr_reference_batch_size": "learning rate, times the rate of the grid",
    "norm_batch": "samples per statistic (norm batch)",
}
"""Config keys as labels of an axis."""
DATA = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "display_names": "names, 12 languages",
    "fashion_mnist": "Fashion-MNIST",
    "language": "generated texts",
    "mnist": "MNIST",
    "mnist5k": "MNIST digits",
    "photographs": "photographs",
    "shapes": "synthetic shapes",
    "textures": "photographed textures",
}
LEVEL_NAMES = {"longest": "natural pads", "whole": "all training samples"}
"""Levels without overrides, in words."""


def arm_names(design: Design | None, arms: Iterable[str]) -> dict[str, str]:
    """Return each arm in words; an arm of no registered design keeps its name."""
    names = {arm: _arm(design, arm) for arm in arms}
    shared = [*names.values()]
    return {
        arm: name if shared.count(name) == 1 else f"{name} ({plain(arm)})"
        for arm, name in names.items()
    }


def _arm(design: Design | None, arm: str) -> str:
    if design is None or arm not in design.arms:
        return norm_words(arm)
    words = design.arms[arm].split()
    norms = [word for word in words if word.startswith("norm=")]
    options = [
        word
        for word in words
        if (word in OPTIONS or word.partition("=")[0] in OPTIONS) and word not in WORDS
    ]
    rest = [word for word in words if word not in (*norms, *options)]
    kind: TaskKind = next(
        (
            kind
            for kind, task in TASKS.items()
            if f"task={task}" in design.common.split()
        ),
        "images",
    )
    parts = [usual_name(" ".join([norms[-1], *options]), kind)] if norms else []
    others = overrides_words(rest)
    if not parts and not others:
        return plain(arm)
    return ", ".join([*parts, *([others] if others else [])])


def norm_words(norm: str) -> str:
    """Return the usual name of a norm; another word stays as it is."""
    if norm in NAMES:
        return NAMES[norm]
    return CATEGORIES.get(norm, norm) if norm in LOOKS else norm


def values_words(values: Mapping[str, object]) -> str:
    """Return the values of config keys in words, such as "BatchNorm, SGD batch 8".

    reparam=none is left out if there are other values.
    """
    texts = []
    for key, value in values.items():
        word = f"{key}={value}"
        if word == "reparam=none" and len(values) > 1:
            continue
        if key == "norm":
            texts.append(norm_words(str(value)))
        elif value is None:
            texts.append(f"{plain(key)} -")
        elif word in OPTIONS or key in OPTIONS:
            texts.append((OPTIONS.get(word) or OPTIONS[key]).format(value))
        else:
            texts.append(overrides_words([word]))
    return ", ".join(texts)


def overrides_words(overrides: Sequence[str]) -> str:
    """Return overrides in words, such as "textures, 9 epochs"."""
    texts = []
    for word in overrides:
        key, _, value = word.partition("=")
        text = WORDS.get(word)
        if text is None:
            shown = (
                DATA.get(value, value) if key == "data" else plain(value.strip("[]"))
            )
            if key in ("task.long_batches", "data.low_quality"):
                shown = {"0.5": "half"}.get(value, value)
            fallback = f"{plain(key.rpartition('.')[2])} {{}}"
            text = KEYS.get(key, fallback).format(shown)
        if text:
            texts.append(text)
    return ", ".join(texts)


def level_names(design: Design | None, levels: Iterable[str]) -> dict[str, str]:
    """Return each level in words; numbers, and "-", stay as they are."""
    names = {}
    for level in levels:
        text = design.levels.get(level, "") if design else ""
        words = overrides_words(text.split())
        if level == "-" or level.replace(".", "", 1).isdigit():
            names[level] = level
        else:
            names[level] = words or LEVEL_NAMES.get(level, plain(level))
    return names


def level_key(design: Design | None) -> str:
    """Return the config key that the levels change; "" if there is no such key.

    That is a key whose values are the levels, or else the only key that they change.
    """
    if design is None:
        return ""
    keys: Mapping[str, set[str]] = {
        level: {word.partition("=")[0] for word in text.split()}
        for level, text in design.levels.items()
    }
    used = set().union(*keys.values())
    equal = {
        word.partition("=")[0]
        for level, text in design.levels.items()
        for word in text.split()
        if word.endswith(f"={level}")
    }
    return min(equal or (used if len(used) == 1 else set()), default="")


def axis_words(key: str) -> str:
    """Return a config key as the label of an axis."""
    return AXES.get(key, plain(key)) if key else "level"


def data_words(design: Design | None, name: str) -> str:
    """Return the data set of a design in words, `name` if its overrides name none."""
    words = design.common.split() if design else []
    text = overrides_words(
        [word for word in words if word.partition("=")[0] in ("data", "data.size")]
    )
    return text or DATA.get(name, plain(name))


def plain(name: str) -> str:
    """Return a name of the code as words."""
    return name.replace("_", " ")


def norm_of(arm: str, design: Design | None) -> str:
    """Return the norm of an arm: its last override `norm=NAME`.

    Without such an override, the norm is the longest beginning of the arm's name that
    is a norm, such as "group" for "group_ws"; otherwise the whole name.
    """
    if design is not None and arm in design.arms:
        overrides = f"{design.common} {design.arms[arm]}".split()
        values = [word.partition("=")[2] for word in overrides if word[:5] == "norm="]
        if values:
            return values[-1]
    name = arm
    while name not in LOOKS and "_" in name:
        name = name.rpartition("_")[0]
    return name if name in LOOKS else arm
