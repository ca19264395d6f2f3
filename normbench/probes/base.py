"""The contract of a probe, which measures a mechanism on a trained network.

A probe is a function that takes a `Trained` and returns a dictionary of numbers. It
runs once at the end of a run whose config names it in `probes`. It gets a copy of the
network, which it may change: no probe can change a metric. The first line of its
docstring is its description in the output of `normbench list probes`.

A probe leaves out a number that does not exist for the norm of the network. A number
that exists but is undefined, such as a spread over one batch, is nan. The record
stores nan as null.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer

from normbench.registry import Functions
from normbench.tasks.base import Task


@dataclass(frozen=True)
class Trained:
    """A trained network in evaluation mode, with its norms and training batches.

    `norms` are modules of `model` in the order of their creation: each is a norm, or
    the `Ghost` that applies a norm to one norm batch at a time. `batches` are the
    micro-batches of the first epoch: sample indices (B,) int64. In training,
    `norm_batch` consecutive samples of a micro-batch share statistics; these samples
    are called a norm batch. `optimizer` is that of `model`, in its state at the end of
    training, with the peak learning rate of the run.
    """

    task: Task
    model: nn.Module
    norms: Sequence[nn.Module]
    batches: Sequence[Tensor]
    norm_batch: int
    optimizer: Optimizer


Probe = Callable[[Trained], dict[str, float]]


PROBES: Functions[Probe] = Functions("probe", "normbench.probes")
"""The probes by name. The decorator `@PROBES("name")` registers a probe for all tasks,
`@PROBES("name", data=Tokens)` for tasks on `Tokens` only."""
