"""Weight decay of scale-invariant weights as a schedule of their learning rate.

If a norm follows a convolution, the loss L does not depend on the scale of its weights:
L(c w) = L(w) for c > 0. So the gradient is orthogonal to the weights, and its size is
that at w / |w| divided by |w| (van Laarhoven 2017, "L2 Regularization versus Batch and
Weight Normalization"). SGD with momentum mu, weight decay wd and the rate lr(t) is

    b(t) = mu * b(t-1) + gradient(w(t-1)) + wd * w(t-1)
    w(t) = w(t-1) - lr(t) * b(t)

Let a(t) be the path of a weight that has no gradient, from a(0) = 1:

    c(t) = mu * c(t-1) + wd * a(t-1)
    a(t) = a(t-1) - lr(t) * c(t)

Then w(t) = a(t) * v(t), where v is the path of SGD with the same momentum, without
weight decay, from v(0) = w(0), at the rate

    lr(t) / (a(t-1) * a(t))

By induction: if b(t-1) = c(t-1) * v(t-1) + m(t-1) / a(t-1), where m is the momentum
buffer of v, then m(t) = mu * m(t-1) + gradient(v(t-1)) gives the same for b(t) and the
above for v(t). At a constant rate and mu = 0, a(t) = (1 - lr * wd)**t. The schedule is
then that of Li & Arora 2020, "An Exponential Learning Rate Schedule for Deep Learning",
who also treat momentum. Nesterov momentum has no such schedule.

The eps of a norm makes this inexact: it stays the same while the weights shrink.
"""

import json
from collections.abc import Callable
from functools import cache

from torch import Tensor, nn

from normbench.config.schema import RunConfig
from normbench.errors import Incompatible, RequestError
from normbench.norms.base import make
from normbench.norms.measure.invariance import Change, invariances
from normbench.norms.reparam import normalized_convolutions

MIN_SCALE = 1e-12
"""The schedule ends at 1 / MIN_SCALE**2 times the rate, which float32 still holds."""


def equivalent_schedule(
    rate: Callable[[int], float], steps: int, *, weight_decay: float, momentum: float
) -> Callable[[int], float]:
    """Return the function from the step (from 1) to the rate without weight decay.

    `rate` is the learning rate with weight decay. Raises RequestError if the weights
    would be multiplied by less than MIN_SCALE. With momentum, this happens in tens of
    steps if lr * weight_decay is above (1 - sqrt(momentum))**2, which is .0026 for .9.
    """
    scales, buffer = [1.0], 0.0
    for step in range(1, steps + 1):
        buffer = momentum * buffer + weight_decay * scales[-1]
        scales.append(scales[-1] - rate(step) * buffer)
        if scales[-1] < MIN_SCALE:
            raise RequestError(
                "optimizer.decay_as=lr_schedule: weight decay alone would multiply "
                f"weights by {scales[-1]:.2g} in {step} steps, and the learning rate "
                "must be divided by the square of it; set a lower lr or a lower "
                f"optimizer.weight_decay than {weight_decay}"
            )

    return lambda step: rate(step) / (scales[step - 1] * scales[step])


def scale_invariant_rate(
    config: RunConfig, rate: Callable[[int], float], steps: int
) -> Callable[[int], float] | None:
    """Return the schedule of a run with decay_as="lr_schedule", None for other runs."""
    optimizer = config.optimizer
    if optimizer.name != "sgd" or optimizer.decay_as == "weight_decay":
        return None
    return equivalent_schedule(
        rate, steps, weight_decay=optimizer.weight_decay, momentum=optimizer.momentum
    )


def scale_invariant_weights(model: nn.Module) -> list[Tensor]:
    """Return the weights of all convolutions that a norm follows.

    Raises Incompatible if there are none, or if one has a
    bias, because the loss then depends on the scale of the weights.
    """
    convolutions = normalized_convolutions(model)
    if not convolutions or any(layer.bias is not None for layer in convolutions):
        raise Incompatible(
            "optimizer.decay_as=lr_schedule needs convolutions without a bias, each "
            f"followed by a norm; {type(model).__name__} has "
            f"{'some with a bias' if convolutions else 'no convolutions'}"
        )
    return [layer.weight for layer in convolutions]


def require_scale_invariance(config: RunConfig, model: nn.Module) -> None:
    """Raise Incompatible unless convolutions of `model` are scale-invariant.

    Raises the errors of `scale_invariant_weights`, and Incompatible if an output of the
    norm of `config` in training depends on the scale of its input.
    """
    channels = len(scale_invariant_weights(model)[0])
    options = json.dumps(config.norm.options, sort_keys=True)
    if not _removes_scale(config.norm.name, options, channels):
        raise Incompatible(
            "optimizer.decay_as=lr_schedule needs a norm whose output in training does "
            f"not depend on the scale of its input; norm={config.norm.name} is not one"
        )


@cache
def _removes_scale(name: str, options: str, channels: int) -> bool:
    norm = make(name, channels, **json.loads(options))
    measured = invariances(norm, (8, channels, 6, 6))
    return any(x.to is Change.gain and x.holds_in_train for x in measured)
