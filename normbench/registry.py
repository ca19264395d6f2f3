"""Registries of the classes and functions that a config may name.

The signature of a class is the schema of its yaml: the keyword-only parameters are the
options, and their annotations are the types. The program itself passes the positional
parameters, such as `channels`. A yaml file cannot call anything except registered
classes.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from normbench.errors import RequestError, did_you_mean, shortened

REGISTRIES = {
    "norm": ("normbench.norms.base", "REGISTRY"),
    "task": ("normbench.tasks.base", "REGISTRY"),
    "data": ("normbench.data.base", "REGISTRY"),
    "probe": ("normbench.probes.base", "PROBES"),
    "reparam": ("normbench.norms.reparam", "REPARAMS"),
}
"""The module and the name of the registry of every kind."""

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Registry(Generic[T]):
    """The classes of one kind, by name.

    `kind` is the config group, such as "norm". The modules of `package` and the user's
    modules register their classes when they are imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._classes: dict[str, type[T]] = {}

    def add(self, name: str, cls: type[T]) -> None:
        """Register `cls`. Raise RequestError if another module registered `name`."""
        _require_free(self.kind, name, cls, self._classes.get(name))
        self._classes[name] = cls

    def names(self) -> list[str]:
        """Return all registered names, sorted, except those that are not `listed`."""
        import_all(self.package)
        classes = self._classes.items()
        return sorted(name for name, cls in classes if getattr(cls, "listed", True))

    def get(self, name: str) -> type[T]:
        """Return the class `name`. Raise RequestError if the name is unknown."""
        import_all(self.package)
        if name not in self._classes:
            also_called = {
                other: known
                for known, cls in self._classes.items()
                for other in vars(cls).get("also_called", ())
            }
            clause = did_you_mean(name, self._classes, also_called)
            hint = "a class of your own needs its module, --module MODULE"
            both = f"{hint}; {clause}" if "?" not in clause else f"{clause} ({hint})"
            raise RequestError(f"{self.kind}.name={name} is unknown; {both}")
        return self._classes[name]

    def options(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check the options `given` for class `name` and add the defaults.

        Values are converted to the annotated type (the int 1 to the float 1.0), so that
        equal requests have equal values. Raises RequestError with the wrong key.
        """
        cls: Any = self.get(name)
        schema = _signature_schema(cls)
        for key in sorted(given.keys() - schema.model_fields.keys()):
            raise RequestError(
                f"{self.kind}.{key} is not an option of {self.kind}={name}; "
                f"{did_you_mean(key, schema.model_fields)}"
            )
        try:
            return dict(schema(**given))
        except ValidationError as error:
            raise RequestError(explain(error, f"{self.kind}.")) from None


class Functions(Generic[F]):
    """The functions of one kind, by name.

    An instance is a decorator that registers a function: `@PROBES("name")`. The modules
    of `package` and the user's modules register their functions when they are imported.
    A function for one kind of data is registered by `@PROBES("name", data=Tokens)`.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._functions: dict[str, F] = {}
        self._data: dict[str, type] = {}

    def __call__(self, name: str, data: type = object) -> Callable[[F], F]:
        def add(function: F) -> F:
            _require_free(self.kind, name, function, self._functions.get(name))
            if not (function.__doc__ or "").strip():
                raise RequestError(
                    f"{self.kind} {name!r} of {function.__module__} has no docstring; "
                    "the first line must describe it"
                )
            self._functions[name] = function
            self._data[name] = data
            return function

        return add

    def names(self) -> list[str]:
        """Return all registered names, sorted."""
        import_all(self.package)
        return sorted(self._functions)

    def get(self, name: str) -> F:
        """Return the function `name`. Raise RequestError if the name is unknown."""
        require_known(self.kind, name, self.names())
        return self._functions[name]

    def data(self, name: str) -> type:
        """Return the kind of data that function `name` needs; `object` means any."""
        self.get(name)
        return self._data[name]

    def description(self, name: str) -> str:
        """Return the first line of the docstring of function `name`."""
        return str(self.get(name).__doc__).strip().splitlines()[0]


def classes(kind: str) -> Registry[Any]:
    """Import and return the registry of "norm", "task" or "data"."""
    registry: Registry[Any] = _registry(kind)
    return registry


def functions(kind: str) -> Functions[Any]:
    """Import and return the registry of "probe" or "reparam"."""
    registry: Functions[Any] = _registry(kind)
    return registry


def _registry(kind: str) -> Any:
    module, name = REGISTRIES[kind]
    return getattr(importlib.import_module(module), name)


def _require_free(kind: str, name: str, new: Any, registered: Any) -> None:
    """Raise RequestError if another module has registered `name`."""
    if registered is not None and registered.__module__ != new.__module__:
        raise RequestError(
            f"{kind} {name!r} of {new.__module__} is already the name of "
            f"{registered.__module__}.{registered.__qualname__}; choose another name"
        )


def require_known(key: str, name: str, known: Collection[str]) -> None:
    """Raise RequestError with similar names if `name` is not in `known`."""
    if name not in known:
        raise RequestError(f"{key}={name} is unknown; {did_you_mean(name, known)}")


def explain(error: ValidationError, prefix: str = "") -> str:
    """Return the first three mistakes of a pydantic error, one per line.

    A line has three parts: the key with `prefix` before it, the value, and what would
    be right.
    """
    lines = []
    for mistake in error.errors():
        key = prefix + ".".join(str(part) for part in mistake["loc"])
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "missing":
            lines.append(f"{key} is missing")
        elif mistake["type"] == "value_error" and isinstance(mistake["input"], dict):
            # A validator of a whole model failed; its message names the values.
            lines.append(f"{key}: {message}" if key else message)
        else:
            value = shortened(mistake["input"])
            lines.append(f"{key}={value}: {message[0].lower()}{message[1:]}")
    return "\n".join(lines[:3])


@cache
def _signature_schema(cls: Any) -> type[BaseModel]:
    """Return a pydantic model of the keyword-only parameters of `cls`."""
    fields: dict[str, Any] = {
        parameter.name: (
            parameter.annotation,
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in inspect.signature(cls, eval_str=True).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return create_model(
        cls.__name__,
        __config__=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False),
        **fields,
    )


@cache
def import_all(package: str) -> None:
    """Import `package` and its modules, so that they register themselves."""
    folders = getattr(importlib.import_module(package), "__path__", [])
    for module in pkgutil.iter_modules(folders):
        importlib.import_module(f"{package}.{module.name}")
