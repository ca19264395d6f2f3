"""Which normalization layers the models of torchvision and timm are built with.

Every architecture is built on the meta device, without weights, or on the CPU where its
builder needs numbers (RegNet's does); a model counts for the family of norm that it has
most layers of. Minutes for timm, so the counts are cached by the versions of the
packages.
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
"""Family -> what the names of its classes hold, in lower case: BatchNormAct2d."""

NOT_BUILT = "not built"
"""The count of the models whose builder failed on the CPU too."""

Counts = dict[str, dict[str, int]]
Build = Callable[[str], nn.Module]
Zoos = dict[str, tuple[Iterable[str], Build]]
"""Zoo -> the names of its models, and what builds one without weights."""


@dataclass(frozen=True)
class Census:
    """`counts`: zoo -> family, "none" (no norm) or "not built" -> number of models.

    `not_built`: zoo -> model -> why it could not be built, in a line.
    """

    counts: Counts
    not_built: dict[str, dict[str, str]]


def census() -> Census:
    """Count the models of each zoo that is installed."""
    identity = {"format": FORMAT, **{name: _version(name) for name in _ZOOS}}
    stored = cached("census", identity, _count_all).strings
    return Census(json.loads(stored["counts"]), json.loads(stored["not_built"]))


def family(model: nn.Module) -> str:
    """The family that most norm layers of `model` are of, or "none"."""
    found: Counter[str] = Counter()
    for module in model.modules():
        name = type(module).__name__.lower()
        found.update(f for f, part in FAMILIES.items() if part in name)
    return found.most_common(1)[0][0] if found else "none"


def _count_all() -> Parsed:
    counts: Counts = {}
    not_built: dict[str, dict[str, str]] = {}
    for package, zoos in _ZOOS.items():
        if _version(package):
            for zoo, (names, build) in zoos().items():
                counts[zoo], failures = count(names, build)
                not_built |= {zoo: failures} if failures else {}
    found = {"counts": counts, "not_built": not_built}
    return Parsed({}, {key: json.dumps(value) for key, value in found.items()})


def count(names: Iterable[str], build: Build) -> tuple[dict[str, int], dict[str, str]]:
    """The number of models of each family, most first, and why others failed."""
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
    """On the meta device, or on the CPU where that fails. Raises what `build` does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return family(build(name))
        except Exception:  # some builders compute with real tensors
            pass
        # After the except clause, whose traceback would keep the first model alive.
        return family(build(name))


def _torchvision() -> Zoos:
    from torchvision import models

    with_backbone = partial(models.get_model, weights=None, weights_backbone=None)
    kinds = {
        "classification": (models, partial(models.get_model, weights=None)),
        "segmentation": (models.segmentation, with_backbone),
        "detection": (models.detection, with_backbone),
        "video": (models.video, partial(models.get_model, weights=None)),
    }
    return {
        f"torchvision {kind}": (models.list_models(module=module), build)
        for kind, (module, build) in kinds.items()
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
