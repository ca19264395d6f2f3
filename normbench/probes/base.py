"""The contract of a probe: a mechanism, measured on a trained network.

A probe is a function of a `Trained` network of its own, which it may change, that
returns named numbers; it is called once, at the end of a run that asks for it, and
nothing it does can change a metric. The first line of its docstring says what it is. A
quantity that the network's norm does not have is left out; one that is there but not
defined, such as a spread over one batch, is nan, and null in the record.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from normbench.registry import Functions
from normbench.tasks.base import Task


@dataclass(frozen=True)
class Trained:
    """A trained network in evaluation mode, its norms, and the batches it trained on.

    `norms` are the modules that normalise, in the order they were made, each a norm or
    the Ghost around it; they are part of `model`. `batches` are the micro-batches of
    the first epoch, sample indices (B,) int64, each as it was forwarded in training;
    every `norm_batch` samples in it shared statistics.
    """

    task: Task
    model: nn.Module
    norms: Sequence[nn.Module]
    batches: Sequence[Tensor]
    norm_batch: int


Probe = Callable[[Trained], dict[str, float]]


PROBES: Functions[Probe] = Functions("probe", "normbench.probes")
"""The probes by name: `@PROBES("name")`, or `@PROBES("name", data=Tokens)`."""
