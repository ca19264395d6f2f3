"""Classes that a yaml may name, and the options it may set on them.

A class's signature is the only schema of its yaml: positional parameters are given by
the program (`channels`, `data`), keyword-only ones are the options, and their
annotations are the types. A yaml can name a registered class and call nothing else.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from normbench.errors import RequestError, did_you_mean

HOMES = {
    "norm": ("normbench.norms.base", "REGISTRY"),
    "task": ("normbench.tasks.base", "REGISTRY"),
    "data": ("normbench.data.base", "REGISTRY"),
    "probe": ("normbench.probes.base", "PROBES"),
    "reparam": ("normbench.norms.reparam", "REPARAMS"),
}
"""Where the registry of each kind is made: a module and its name there."""

T = TypeVar("T")


class Registry(Generic[T]):
    """The classes of one kind, by name.

    `kind` is the config group ("norm"); every module of `package` registers its own
    class on import, and so does a user's module.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._classes: dict[str, type[T]] = {}
        self._schemas: dict[str, type[BaseModel]] = {}

    def add(self, name: str, cls: type[T]) -> None:
        """Register `cls` under `name`; a name belongs to one class."""
        known = self._classes.get(name)
        if known is not None and known.__module__ != cls.__module__:
            raise RequestError(
                f"{self.kind} {name!r} of {cls.__module__} is already the name of "
                f"{known.__module__}.{known.__qualname__}; choose another"
            )
        self._classes[name] = cls
        self._schemas.pop(name, None)

    def names(self) -> list[str]:
        """All registered names, sorted."""
        import_all(self.package)
        return sorted(self._classes)

    def get(self, name: str) -> type[T]:
        """The class called `name`; RequestError with close matches if there is none."""
        names = self.names()
        if name not in self._classes:
            raise RequestError(
                f"{self.kind}.name={name!r} is unknown; {did_you_mean(name, names)}"
            )
        return self._classes[name]

    def _schema(self, name: str) -> type[BaseModel]:
        cls = self.get(name)
        if name not in self._schemas:
            self._schemas[name] = _signature_schema(cls)
        return self._schemas[name]

    def options(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """`given` checked against the signature of class `name`, defaults filled in.

        Values come back in the annotated type (an int given for a float is a float),
        so that equal requests are equal values. Raises RequestError naming the key.
        """
        schema = self._schema(name)
        unknown = given.keys() - schema.model_fields.keys()
        for key in sorted(unknown):
            raise RequestError(
                f"{self.kind}.{key} is not an option of {self.kind}={name}; "
                f"{did_you_mean(key, schema.model_fields)}"
            )
        try:
            return dict(schema(**given))
        except ValidationError as error:
            raise RequestError(explain(error, f"{self.kind}.")) from None


def classes(kind: str) -> Registry[Any]:
    """The registry of the norms, tasks or data sets, without importing it by name."""
    module, name = HOMES[kind]
    found: Registry[Any] = getattr(importlib.import_module(module), name)
    return found


F = TypeVar("F", bound=Callable[..., Any])


class Functions(Generic[F]):
    """The functions of one kind, by name: a decorator, `@functions("name")`.

    Every module of `package` registers its own on import, and so does a user's module.
    A function may need one kind of data, `@functions("name", data=Tokens)`.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._functions: dict[str, F] = {}
        self._data: dict[str, type] = {}

    def __call__(self, name: str, data: type = object) -> Callable[[F], F]:
        def add(function: F) -> F:
            known = self._functions.get(name)
            if known is not None and known.__module__ != function.__module__:
                raise RequestError(
                    f"{self.kind} {name!r} of {function.__module__} is already the "
                    f"name of {known.__module__}.{known.__name__}; choose another"
                )
            if not (function.__doc__ or "").strip():
                raise RequestError(
                    f"{self.kind} {name!r} of {function.__module__} has no docstring; "
                    "its first line says what it is"
                )
            self._functions[name] = function
            self._data[name] = data
            return function

        return add

    def names(self) -> list[str]:
        """All registered names, sorted."""
        import_all(self.package)
        return sorted(self._functions)

    def get(self, name: str) -> F:
        """The function called `name`; RequestError with close matches if none is."""
        names = self.names()
        if name not in self._functions:
            raise RequestError(
                f"{self.kind} {name!r} is unknown; {did_you_mean(name, names)}"
            )
        return self._functions[name]

    def data(self, name: str) -> type:
        """The kind of data that the function `name` needs: `object` for any."""
        self.get(name)
        return self._data[name]

    def description(self, name: str) -> str:
        """The first line of its docstring; RequestError as `get`."""
        return str(self.get(name).__doc__).strip().splitlines()[0]


def functions(kind: str) -> Functions[Any]:
    """The registry of the probes or reparametrizations."""
    module, name = HOMES[kind]
    found: Functions[Any] = getattr(importlib.import_module(module), name)
    return found


def explain(error: ValidationError, prefix: str = "") -> str:
    """One line per mistake of a pydantic error: the key, the value, what is right."""
    lines = []
    for mistake in error.errors():
        key = prefix + ".".join(str(part) for part in mistake["loc"])
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "missing":
            lines.append(f"{key} is missing")
        elif mistake["type"] == "value_error" and isinstance(mistake["input"], dict):
            lines.append(f"{key}: {message}" if key else message)
        else:
            lines.append(
                f"{key}={_shown(mistake['input'])}: {message[0].lower()}{message[1:]}"
            )
    return "\n".join(lines[:3])


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits
        return f"({type(value).__name__}, too large to print)"
    return text if len(text) <= 200 else f"{text[:100]} .. {text[-20:]}"


def _signature_schema(cls: type) -> type[BaseModel]:
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
    """Import `package` and its modules, each of which registers what it has."""
    for module in pkgutil.iter_modules(
        getattr(importlib.import_module(package), "__path__", [])
    ):
        importlib.import_module(f"{package}.{module.name}")
