"""Count which normalization layers the models of torchvision and timm use.

Every model is built without weights on the meta device, or on the CPU if its builder
needs real numbers (as RegNet does). A model is counted once, in the family that most of
its norm layers belong to. Building all of timm takes minutes, so the counts are cached
for the installed versions of the packages.
"""

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import nn

from normbench.data.reading.cache import Parsed, cached

FORMAT = 2

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
Build = Callable[[str], nn.Module]
Zoos = dict[str, tuple[Iterable[str], Build]]
"""Zoo -> the names of its models, and the function that builds a model by name."""


@dataclass(frozen=True)
class Census:
    """`counts`: zoo -> family, "none" (no norm) or "not built" -> number of models.

    `not_built`: zoo -> model -> the error of its builder, in one line.
    """

    counts: Counts
    not_built: dict[str, dict[str, str]]


def census() -> Census:
    """Return the counts of all installed zoos, from the cache if it has them."""
    identity = {"format": FORMAT, **{name: _version(name) for name in _ZOOS}}
    stored = cached("census", identity, _count_all).strings
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
    for package, zoos in _ZOOS.items():
        if _version(package):
            for zoo, (names, build) in zoos().items():
                counts[zoo], failures = count(names, build)
                # A zoo without failures gets no key.
                not_built |= {zoo: failures} if failures else {}
    strings = {"counts": json.dumps(counts), "not_built": json.dumps(not_built)}
    return Parsed({}, strings)


def count(names: Iterable[str], build: Build) -> tuple[dict[str, int], dict[str, str]]:
    """Build the named models.

    Returns the number of models of each family, largest first, and the errors of the
    models that could not be built: model -> error.
    """
    families: list[str] = []
    not_built: dict[str, str] = {}
    for name in names:
        try:
            families.append(_family_of(name, build))
        except Exception as error:  # builders are code of other packages
            lines = str(error).strip().splitlines()
            not_built[name] = ": ".join([type(error).__name__, *lines[:1]])
    counts = Counter(families)
    if not_built:
        counts[NOT_BUILT] = len(not_built)
    return dict(counts.most_common()), not_built


def _family_of(name: str, build: Build) -> str:
    """Build a model on the meta device, or on the CPU if that fails; return its family.

    Raises what `build` raises on the CPU.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return family(build(name))
        except Exception:  # some builders compute with real tensors
            pass
        # This call is not in the except clause, because the traceback keeps the first
        # model in memory until the except clause ends.
        return family(build(name))


def _torchvision() -> Zoos:
    from torchvision import models

    with_backbone = partial(models.get_model, weights=None, weights_backbone=None)
    modules = {
        "classification": (models, partial(models.get_model, weights=None)),
        "segmentation": (models.segmentation, with_backbone),
        "detection": (models.detection, with_backbone),
        "video": (models.video, partial(models.get_model, weights=None)),
    }
    return {
        f"torchvision {kind}": (models.list_models(module=module), build)
        for kind, (module, build) in modules.items()
    }


def _timm() -> Zoos:
    import timm

    return {"timm": (timm.list_models(), timm.create_model)}


_ZOOS: dict[str, Callable[[], Zoos]] = {"torchvision": _torchvision, "timm": _timm}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
