"""Count which normalization layers the models of torchvision and timm use.

A model is counted once, in the family that most of its norm layers belong to. Building
all of timm takes minutes, so the counts are cached for the installed versions of the
packages.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from normbench.claims import zoos
from normbench.data.reading.cache import Parsed, cached

FORMAT = 3

FAMILIES = {
    "batch": "batchnorm",
    "layer": "layernorm",
    "group": "groupnorm",
    "instance": "instancenorm",
    "rms": "rmsnorm",
    "evonorm": "evonorm",
    "filter_response": "filterresponsenorm",
}
"""Family -> a part of the lower-case name of each of its classes.

The class BatchNormAct2d belongs to "batch", because its name contains "batchnorm".
"""

NOT_BUILT = "not built"
"""Key for the number of models whose builder failed on the CPU too."""

Counts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Census:
    """`counts`: zoo -> family, "none" (no norm) or "not built" -> number of models.

    `not_built`: zoo -> model -> the errors of its builder on the meta device and on the
    CPU, in one line.
    """

    counts: Counts
    not_built: dict[str, dict[str, str]]


def census() -> Census:
    """Return the counts of all installed zoos, from the cache if it has them."""
    stored = cached("census", {"format": FORMAT, **zoos.versions()}, _count_all).strings
    return Census(json.loads(stored["counts"]), json.loads(stored["not_built"]))


def family(model: nn.Module) -> str:
    """Return the family that most norm layers of `model` belong to.

    The result is "none" if the model has no norm layer.
    """
    counts: Counter[str] = Counter()
    for module in model.modules():
        name = type(module).__name__.lower()
        counts.update(f for f, part in FAMILIES.items() if part in name)
    return counts.most_common(1)[0][0] if counts else "none"


def _count_all() -> Parsed:
    counts: Counts = {}
    not_built: dict[str, dict[str, str]] = {}
    for name, zoo in zoos.installed().items():
        counts[name], failures = count(zoo.names, zoo.build)
        # A zoo without failures gets no key.
        not_built |= {name: failures} if failures else {}
    strings = {"counts": json.dumps(counts), "not_built": json.dumps(not_built)}
    return Parsed({}, strings)


def count(
    names: Iterable[str], build: zoos.Build
) -> tuple[dict[str, int], dict[str, str]]:
    """Build the named models, one at a time.

    Returns the number of models of each family, largest first, and the errors of the
    models that could not be built: model -> errors.
    """
    families: list[str] = []
    not_built: dict[str, str] = {}
    for name in names:
        try:
            families.append(family(zoos.built(name, build)))
        except zoos.NotBuilt as error:
            not_built[name] = str(error)
    counts = Counter(families)
    if not_built:
        counts[NOT_BUILT] = len(not_built)
    return dict(counts.most_common()), not_built
