"""Import the user's modules, which only the command line may name."""

import importlib
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

from normbench.errors import RequestError

added_modules: dict[str, frozenset[str]] = {}
"""Maps each module of the user to the modules that its import added to sys.modules.

They include modules that importlib imported, which import statements do not show.
"""


COLLECTIONS = ("torchvision", "timm")
"""Packages whose models have names, such as torchvision:resnet18."""


def module_of(model: str) -> str | None:
    """Return the user's module that `model` needs, or None for torchvision and timm.

    `model` is PACKAGE.MODULE:FACTORY, or another text, which needs no module.
    """
    package = model.partition(":")[0]
    return None if package in COLLECTIONS or ":" not in model else package


def import_modules(names: Iterable[str]) -> None:
    """Import the user's modules from Python's path or the working folder.

    What a module prints goes to standard error, so that --json stays valid.
    Raises RequestError if a module cannot be imported or has no source file.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    for name in names:
        before = set(sys.modules)
        try:
            with redirect_stdout(sys.stderr):
                module = importlib.import_module(name)
        except Exception as error:  # the user's code can raise anything
            raise RequestError(
                f"the module {name} cannot be imported: {type(error).__name__}: "
                f"{error}; name a module in the working folder or on PYTHONPATH"
            ) from error
        if getattr(module, "__file__", None) is None:
            raise RequestError(f"the module {name} has no source file to record")
        added_modules.setdefault(name, frozenset(sys.modules.keys() - before))
