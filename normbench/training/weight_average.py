"""An exponential moving average of the weights in training, and its metrics.

After step t, the average a is that of the weights w_1 .. w_t after each step, with

    a_t = a_(t-1) + (1 - decay) / (1 - decay**t) * (w_t - a_(t-1))

so that w_s has the weight (1 - decay) * decay**(t-s) / (1 - decay**t). The weights
before training have no part in it: this is the bias correction of Kingma & Ba 2015.
Averages of weights in training: Polyak & Juditsky 1992; with this decay, Tarvainen &
Valpola 2017 ("mean teacher") and torch.optim.swa_utils.get_ema_multi_avg_fn.

The running statistics of a norm belong to the trained weights, not to the averaged
ones. Implementations treat them in three ways, and each has metrics of its own:

    ema             as they are in the trained network
    ema_averaged    averaged like the weights (AveragedModel with use_buffers=True)
    ema_recomputed  averaged anew over training batches, with the averaged weights
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from normbench.norms import Norm
from normbench.training.evaluation import HELD_OUT, Evaluator
from normbench.training.network import norm_class

Kind = Literal["ema", "ema_averaged", "ema_recomputed"]


class WeightAverage:
    """The average of the parameters and of the running statistics of `model`.

    `values` has the averages by name, and 0 before the first update. The floating-point
    buffers of norms that differ in evaluation are their running statistics.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.steps = 0
        self.values = {
            name: torch.zeros_like(tensor) for name, tensor in _averaged(model)
        }

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights and running statistics, once after every step."""
        self.steps += 1
        weight = (1 - self.decay) / (1 - self.decay**self.steps)
        for name, tensor in _averaged(self.model):
            self.values[name].lerp_(tensor, weight)

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"steps": self.steps, "values": self.values}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from the result of `state`."""
        self.steps = state["steps"]
        for name, value in self.values.items():
            value.copy_(state["values"][name])

    @torch.no_grad()
    def write(self, model: nn.Module, *, statistics: bool) -> None:
        """Write the average to `model`, a copy of the trained network.

        Without `statistics`, the running statistics of `model` stay as they are.
        """
        parameters = dict(model.named_parameters())
        for name, tensor in _averaged(model):
            if statistics or name in parameters:
                tensor.copy_(self.values[name])


def _averaged(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and the running statistics of `model` with their names."""
    yield from model.named_parameters()
    for prefix, module in model.named_modules():
        if isinstance(module, Norm) and module.differs_in_eval:
            for name, buffer in module.named_buffers(prefix, recurse=False):
                if buffer.is_floating_point():
                    yield name, buffer


def averaged_metrics(
    average: WeightAverage,
    evaluator: Evaluator,
    norms: Sequence[nn.Module],
    training_samples: Tensor,
    trained: Mapping[str, float],
) -> dict[str, float]:
    """Return the held-out metrics of the averaged network that the run asks for.

    "test_ema/loss_change" is "test_ema/loss" minus "test/loss" of `trained`, the
    metrics of the trained network; likewise for all metrics that `trained` has.
    They are measured on copies of the trained network, in evaluation mode, which stays
    as it is. Statistics are recomputed over the batches of `training_samples`. If the
    norms do not differ between training and evaluation, all kinds are equal.
    """
    metrics: dict[str, float] = {}
    wanted = evaluator.config.measured
    splits = {
        kind: [split for split in HELD_OUT if f"{split}_{kind}" in wanted]
        for kind in get_args(Kind)
    }
    if not norm_class(evaluator.config).differs_in_eval:
        model = copy.deepcopy(average.model)
        average.write(model, statistics=False)
        needed = [s for s in HELD_OUT if any(s in named for named in splits.values())]
        values = evaluator.running(model, *needed)
        for kind, named in splits.items():
            metrics |= _with_changes(values, trained, kind, named)
        return metrics
    for kind, named in splits.items():
        if not named:
            continue
        model, copied_norms = copy.deepcopy((average.model, list(norms)))
        average.write(model, statistics=kind == "ema_averaged")
        if kind == "ema_recomputed":
            evaluator.recompute(model, copied_norms, training_samples)
        values = evaluator.running(model, *named)
        metrics |= _with_changes(values, trained, kind, named)
    return metrics


def _with_changes(
    metrics: Mapping[str, float],
    trained: Mapping[str, float],
    kind: str,
    splits: Sequence[str],
) -> dict[str, float]:
    """Return the `metrics` of `splits` under their names of `kind`, and the changes."""
    renamed = {}
    for key, value in metrics.items():
        split, _, name = key.partition("/")
        if split in splits:
            renamed[f"{split}_{kind}/{name}"] = value
            if key in trained:
                renamed[f"{split}_{kind}/{name}_change"] = value - trained[key]
    return renamed
