"""Build a network that the user names: PACKAGE.MODULE:FACTORY, torchvision or timm."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from normbench.errors import RequestError, did_you_mean
from normbench.models.forward import USERS_ERRORS, one_line, quietly
from normbench.system.imports import COLLECTIONS as COLLECTIONS
from normbench.system.imports import added_modules
from normbench.system.imports import module_of as module_of

FORM = (
    "a model is PACKAGE.MODULE:FACTORY, torchvision:NAME or timm:NAME, such as "
    "my_package.models:build or torchvision:resnet18"
)


def load(model: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Return a new network by its name, with initial weights.

    `options` are the keyword arguments of the factory. A factory is any callable that
    returns a torch.nn.Module, such as the class of the network. Its module must have
    been imported by `import_modules`: a record or a yaml file must not choose what gets
    imported or called.

    Raises RequestError if the name has another form, if there is no such factory, if it
    fails, or if its result is no module.
    """
    factory = find_factory(model)
    arguments = dict(options or {})
    where = f"{model}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"
    _require_arguments(factory, arguments, where)
    with quietly():
        try:
            built = factory(**arguments)
        except RequestError:
            raise
        except USERS_ERRORS as error:
            raise RequestError(f"{where} fails: {one_line(error)}") from error
    if not isinstance(built, nn.Module):
        raise RequestError(
            f"{where} returns {type(built).__name__}, not a torch.nn.Module"
        )
    return built


def find_factory(model: str) -> Callable[..., Any]:
    """Return the factory of a network, and do not call it.

    Raises RequestError as `load` does.
    """
    package, separator, name = model.partition(":")
    if not separator or not package or not name:
        raise RequestError(f"model={model!r} has no factory; {FORM}")
    return _factory(package, name)


def load_factory(name: str) -> Callable[..., Any]:
    """Return the callable PACKAGE.MODULE:NAME; errors are those of `load`."""
    package, separator, attribute = name.partition(":")
    if not separator or not package or not attribute:
        raise RequestError(f"{name!r} is not of the form PACKAGE.MODULE:NAME")
    return _factory(package, attribute)


def _factory(package: str, name: str) -> Callable[..., Any]:
    if package in _COLLECTIONS:
        return _COLLECTIONS[package](name)
    if package not in added_modules:
        raise RequestError(
            f"the model {package}:{name} is not part of normbench; if you trust it, "
            f"add --module {package}"
        )
    factory: Any = sys.modules[package]
    for part in name.split("."):
        names = [k for k, v in vars(factory).items() if k[0] != "_" and callable(v)]
        if not hasattr(factory, part):
            raise RequestError(f"{package} has no {name}; {did_you_mean(part, names)}")
        factory = getattr(factory, part)
    if not callable(factory):
        raise RequestError(
            f"{package}:{name} is {type(factory).__name__}, which cannot be called; "
            f"{FORM}"
        )
    home = str(getattr(factory, "__module__", package)).partition(".")[0]
    if home != package.partition(".")[0]:
        raise RequestError(
            f"{package}:{name} is defined in {home}; define a factory in {package} "
            "that calls it, because a name may only lead to code of its own package"
        )
    called: Callable[..., Any] = factory
    return called


def _require_arguments(
    factory: Callable[..., Any], options: Mapping[str, Any], where: str
) -> None:
    """Raise RequestError if a factory cannot be called with `options`."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return  # it is written in C, and the call itself has to show
    try:
        signature.bind(**options)
    except TypeError as error:
        needed = [
            name
            for name, parameter in signature.parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and name not in options
        ]
        advice = f"; it needs {', '.join(needed)}" if needed else ""
        raise RequestError(f"{where} cannot be called: {error}{advice}") from None


def _torchvision(name: str) -> Callable[..., Any]:
    models = importlib.import_module("torchvision.models")
    known = models.list_models()
    if name not in known:
        raise RequestError(
            f"torchvision has no model {name}; {did_you_mean(name, known)}"
        )

    def build(**options: Any) -> Any:
        # Detection and segmentation models load a pretrained backbone by default.
        backbone = "weights_backbone"
        builder = models.get_model_builder(name)
        if backbone in inspect.signature(builder).parameters:
            options.setdefault(backbone, None)
        return builder(**options)

    return build


def _timm(name: str) -> Callable[..., Any]:
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise RequestError(
            f"timm:{name} needs the package timm; install it with `pip install timm`"
        ) from None
    # A name such as "hf_hub:..." would load a model from the internet.
    if name not in (known := timm.list_models()):
        raise RequestError(f"timm has no model {name}; {did_you_mean(name, known)}")

    def build(**options: Any) -> Any:
        return timm.create_model(name, **options)

    return build


_COLLECTIONS: dict[str, Callable[[str], Callable[..., Any]]] = dict(
    zip(COLLECTIONS, (_torchvision, _timm), strict=True)
)
"""Packages whose models have names: a function that returns the factory of a name."""
