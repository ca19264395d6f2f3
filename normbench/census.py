"""Which normalization layers the models of torchvision and timm are built with.

Every architecture is built on the meta device, without weights; a model counts for the
family of norm that it has most layers of. Minutes for timm, so the counts are cached by
the versions of the packages.
"""

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import nn

from normbench.data.cache import Parsed, cached

FORMAT = 1

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

Counts = dict[str, dict[str, int]]


def census() -> Counts:
    """Of each zoo that is installed: family -> number of architectures.

    "none" are those without any norm, "not built" those whose builder failed.
    """
    identity = {"format": FORMAT, **{name: _version(name) for name in _ZOOS}}
    stored = cached("census", identity, _count_all).strings["counts"]
    counts: Counts = json.loads(stored)
    return counts


def family(model: nn.Module) -> str:
    """The family that most norm layers of `model` are of, or "none"."""
    found: Counter[str] = Counter()
    for module in model.modules():
        name = type(module).__name__.lower()
        found.update(f for f, part in FAMILIES.items() if part in name)
    return found.most_common(1)[0][0] if found else "none"


def _count_all() -> Parsed:
    counts: Counts = {}
    for package, zoo in _ZOOS.items():
        if _version(package):
            counts |= zoo()
    return Parsed({}, {"counts": json.dumps(counts)})


def _torchvision() -> Counts:
    from torchvision import models

    with_backbone = partial(models.get_model, weights=None, weights_backbone=None)
    kinds = {
        "classification": (models, partial(models.get_model, weights=None)),
        "segmentation": (models.segmentation, with_backbone),
        "detection": (models.detection, with_backbone),
        "video": (models.video, partial(models.get_model, weights=None)),
    }
    return {
        f"torchvision {kind}": _count(models.list_models(module=module), build)
        for kind, (module, build) in kinds.items()
    }


def _timm() -> Counts:
    import timm

    return {"timm": _count(timm.list_models(), timm.create_model)}


_ZOOS: dict[str, Callable[[], Counts]] = {"torchvision": _torchvision, "timm": _timm}


def _count(names: Iterable[str], build: Callable[[str], nn.Module]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for name in names:
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                counts[family(build(name))] += 1
        except Exception:  # builders are others' code, and some need real tensors
            counts["not built"] += 1
    return dict(counts.most_common())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
