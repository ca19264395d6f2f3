"""The contract of a probe: a mechanism, measured on a trained network.

A probe is a function of a `Trained` network of its own, which it may change, that
returns named finite numbers; it is called once, at the end of a run that asks for it,
and nothing it does can change a metric.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from normbench.registry import Functions
from normbench.tasks.base import Task


@dataclass(frozen=True)
class Trained:
    """A trained network in evaluation mode, its norms, and the batches it trained on.

    `norms` are the modules that normalise, in the order they were made, each a norm or
    the Ghost around it; they are part of `model`. `micro_batch` samples were forwarded
    at a time, and `norm_batch` of them shared statistics.
    """

    task: Task
    model: nn.Module
    norms: Sequence[nn.Module]
    micro_batch: int
    norm_batch: int


Probe = Callable[[Trained], dict[str, float]]

PROBES: Functions[Probe] = Functions("probe", "normbench.probes")
