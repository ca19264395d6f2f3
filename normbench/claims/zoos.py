"""The models of torchvision and timm, built one at a time and without weights."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from normbench.errors import NormbenchError

Build = Callable[[str], nn.Module]
ModuleOf = Callable[[str], str]
SampleShape = Callable[[nn.Module], Sequence[int]]


@dataclass(frozen=True)
class Zoo:
    """A collection of models.

    `names`: the models. `build`: returns the model of a name. `sample_shape`: returns
    the shape of one input of a model, without the batch: (C, H, W), or (C, T, H, W).
    `module_of`: returns the module that defines a model: "timm.models.resnet".
    """

    names: Sequence[str]
    build: Build
    sample_shape: SampleShape
    module_of: ModuleOf


class NotBuilt(NormbenchError):
    """A model can be built neither on the meta device nor on the CPU."""


def versions() -> dict[str, str | None]:
    """Return the versions that the zoos depend on; None if a package is missing."""
    return {name: _version(name) for name in ("torch", *_ZOOS)}


def installed() -> dict[str, Zoo]:
    """Return the zoos of the installed packages: name -> zoo.

    All are models of images or videos. Neither package has a text model.
    """
    zoos: dict[str, Zoo] = {}
    for package, zoos_of_package in _ZOOS.items():
        if _version(package):
            zoos |= zoos_of_package()
    return zoos


def built(name: str, build: Build) -> nn.Module:
    """Return a model whose parameters are on the meta device and take no memory.

    The model is built on the meta device. If its builder fails there, because it
    computes with real numbers (as RegNet's does), it is built on the CPU, where each
    parameter moves to the meta device when a module registers it. Only one parameter is
    in memory at a time, and the initialization costs nothing.

    Raises NotBuilt, with both errors, if the builder fails on the CPU too.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return build(name)
        except Exception as error:  # builders are code of other packages
            on_meta = one_line(error)
        # This call is not in the except clause, because the traceback keeps the first
        # model in memory until the except clause ends.
        handle = register_module_parameter_registration_hook(
            _to_meta  # type: ignore[arg-type]  # torch's type omits the result
        )
        try:
            return build(name)
        except Exception as error:  # as above
            raise NotBuilt(
                f"on the meta device {on_meta}; on the CPU {one_line(error)}"
            ) from error
        finally:
            handle.remove()


def one_line(error: Exception) -> str:
    """Return the type of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])


def _to_meta(
    module: nn.Module, name: str, parameter: nn.Parameter | None
) -> nn.Parameter | None:
    if parameter is None or parameter.is_meta:
        return None  # The parameter is registered as it is, so tied ones stay tied.
    return nn.Parameter(parameter.to("meta"), parameter.requires_grad)


def _torchvision() -> Mapping[str, Zoo]:
    from torchvision import models

    with_backbone = partial(models.get_model, weights=None, weights_backbone=None)
    build = partial(models.get_model, weights=None)
    image, video = _always(3, 224, 224), _always(3, 16, 224, 224)
    zoos = {
        "classification": (models, build, image),
        "segmentation": (models.segmentation, with_backbone, image),
        "detection": (models.detection, with_backbone, image),
        "video": (models.video, build, video),
    }

    def module_of(name: str) -> str:
        return str(models.get_model_builder(name).__module__)

    return {
        f"torchvision {kind}": Zoo(
            models.list_models(module=module), build, shape, module_of
        )
        for kind, (module, build, shape) in zoos.items()
    }


def _always(*shape: int) -> SampleShape:
    return lambda model: shape


def _timm() -> Mapping[str, Zoo]:
    import timm

    def sample_shape(model: nn.Module) -> Sequence[int]:
        config: Any = model.pretrained_cfg  # torch's type of an attribute is Tensor
        return tuple(config["input_size"])

    def module_of(name: str) -> str:
        return str(timm.model_entrypoint(name).__module__)

    names = timm.list_models()
    return {"timm": Zoo(names, timm.create_model, sample_shape, module_of)}


_ZOOS: dict[str, Callable[[], Mapping[str, Zoo]]] = {
    "torchvision": _torchvision,
    "timm": _timm,
}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
