"""normbench measures what a normalization layer does to the training of a network."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normbench.api.comparing import compare as compare
    from normbench.api.footprints import footprint as footprint
    from normbench.api.runs import runs as runs
    from normbench.api.runs import train as train
    from normbench.models.inspection import inspect as inspect
    from normbench.models.statistics import recalibrate as recalibrate
    from normbench.models.swapping import swap as swap

__version__ = "0.1.0"

_FUNCTIONS = {
    "compare": "normbench.api.comparing",
    "footprint": "normbench.api.footprints",
    "train": "normbench.api.runs",
    "runs": "normbench.api.runs",
    "inspect": "normbench.models.inspection",
    "recalibrate": "normbench.models.statistics",
    "swap": "normbench.models.swapping",
}
"""The modules of the functions of this package, which import torch."""


def __getattr__(name: str) -> Any:
    """Import a function on its first use, because torch takes seconds to import."""
    if name not in _FUNCTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_FUNCTIONS[name]), name)
