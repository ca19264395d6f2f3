"""A census rule and small censuses, without the models themselves."""

from collections.abc import Mapping
from typing import Any

from normbench.verdicts.counting import CensusRule, Counted, ModelCensus

BASE: dict[str, Any] = {
    "name": "BatchNorm is the default",
    "census": "default_norms",
    "library": "torchvision",
    "unit": "model",
    "of": "batch",
    "says": "greater",
    "than": 0.5,
    "reason": "a default is what most models have",
}
MODELS = {"resnet": {"batch": 9}, "vit": {"layer": 4}, "vgg": {}}
IMAGES = "torchvision classification"


def a_rule(**changes: Any) -> CensusRule:
    return CensusRule(**BASE | changes)


def a_counted(
    models: Mapping[str, Mapping[str, int]],
    failures: tuple[str, ...] = (),
    modules: Mapping[str, str] | None = None,
) -> Counted:
    """Return counted models; without `modules`, each has a module of its own."""
    names = [*models, *failures]
    return Counted(
        models={name: dict(layers) for name, layers in models.items()},
        failures=dict.fromkeys(failures, "no kernel"),
        modules={name: (modules or {}).get(name, f"in {name}") for name in names},
    )


def a_census(
    models: Mapping[str, Mapping[str, int]] = MODELS,
    failures: tuple[str, ...] = (),
    modules: Mapping[str, str] | None = None,
    zoo: str = IMAGES,
) -> ModelCensus:
    counted = a_counted(models, failures, modules)
    versions = {"torchvision": "0.29.1", "timm": None}
    return ModelCensus(versions=versions, counts={"default_norms": {zoo: counted}})
