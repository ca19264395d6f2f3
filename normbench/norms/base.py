"""The contract of a norm, the registry of norms, and what many norms share."""

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.errors import Incompatible, RequestError
from normbench.registry import Registry

REGISTRY: "Registry[Norm]" = Registry("norm", "normbench.norms.layers")

NARROW = (torch.bfloat16, torch.float16)
NUM_GROUPS = 8
"""The default of every norm that has groups of channels."""

Momentum = Annotated[float, Field(gt=0, le=1)]
"""The type of an option that weighs the newest statistic, as torch defines it."""


class Norm(nn.Module):
    """One normalization layer.

    A subclass is built as `Norm(channels, *, **options)`; a yaml may set its
    keyword-only parameters. It is called `norm(x, mask=None, condition=None)`:

    - `x`: (N, C, *spatial), floating point, any strides; the result has its shape.
    - `mask`: (N, *spatial) bool, True where the position is real; None = all real.
    - `condition`: (N,) int64, which affine; ignored by norms that have only one.

    `forward` gets all three by position; a norm that needs only `x` ends its signature
    in `*_: Tensor | None`.

    The result does not depend on the number of spatial dimensions. A norm that
    `differs_in_eval` has a float `momentum` (the weight of the newest statistic, as
    torch defines it) and keeps its running statistics in floating-point buffers, such
    that one training forward at momentum 1 leaves exactly that forward's statistics.
    A norm that uses other samples takes its moments with `norms.statistics`, which may
    take them over several processes.
    A norm may leave a scalar in `penalty` at each training forward, to be added to the
    loss. A norm that cannot work with its arguments or its input raises Incompatible.
    `forward` runs on the meta device too: no `.item()`, no `if` on a tensor's value.
    `__call__` checks types and shapes first, so `forward` need not. An input without
    values, such as a batch of 0 samples, never reaches `forward` and its hooks: it
    passes through, as in most of torch's own norms. An input in 16 bits goes through
    `forward` in float32, inside autocast and outside, and the result has the input's
    type; a norm that was itself converted to that type gets the input as it is.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    """Who published it, with the year: "Ioffe & Szegedy 2015"; or empty."""
    axes: ClassVar[str] = ""
    """Which inputs an output depends on in training, in the words of the footprint.

    Empty if unknown."""
    uses_other_samples: ClassVar[bool] = False
    """In training, an output depends on other samples of the batch."""
    differs_in_eval: ClassVar[bool] = False
    """Evaluation computes another function than training."""
    honours_mask: ClassVar[bool] = False
    """The values at masked positions never change the results at the others."""
    exact_gradient: ClassVar[bool] = True
    """The backward pass is the derivative of the forward pass."""
    loss_scaling: ClassVar[bool] = True
    """The backward pass is linear, so that fp16's scale of the loss cancels."""
    contains_activation: ClassVar[bool] = False
    """The norm ends in its own non-linearity; the model adds none.

    A new norm without one is odd: norm(-x) = -norm(x)."""
    fixed_spatial: ClassVar[bool] = False
    """Parameters have the spatial shape of the first input; no other shape works."""

    penalty: Tensor | None = None
    deterministic: bool = True
    """Evaluation draws no random numbers and leaves every buffer as it was."""
    conditions: int | None = None
    """How many affine maps `condition` chooses from; None where it is ignored."""
    eps: float
    momentum: float
    running_mean: Tensor
    running_var: Tensor

    def __init_subclass__(cls, name: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name:  # a base class of several norms has the name ""
            cls.name = name
            REGISTRY.add(name, cls)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def __call__(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        check_input(self, x, mask, condition)
        if x.numel() == 0:
            return self._pass_through(x)
        y: Tensor
        if x.dtype not in NARROW or self._is_in(x.dtype):
            y = super().__call__(x, mask, condition)
            return y
        with torch.autocast(x.device.type, enabled=False):
            y = super().__call__(x.float(), mask, condition)
        return y.to(x.dtype)

    def _pass_through(self, x: Tensor) -> Tensor:
        """Copy an input without values, with a gradient of 0 for all parameters.

        No statistic and no counter moves, and a training forward leaves no penalty.
        """
        if self.training:
            self.penalty = None
        y = x.clone()
        for parameter in self.parameters():
            if not is_lazy(parameter):
                y = y + 0 * parameter.sum()
        return y

    def _is_in(self, dtype: torch.dtype) -> bool:
        tensors = (*self.parameters(), *self.buffers())
        return any(tensor.dtype == dtype for tensor in tensors)

    def extra_repr(self) -> str:
        return str(self.channels)


class Affine(Norm, name=""):
    """A base class: `eps`, and a gain and a bias per channel unless `affine` is false.

    weight (ones), bias (zeros): (C,), or None.
    """

    def __init__(
        self, channels: int, *, eps: PositiveFloat = 1e-5, affine: bool = True
    ) -> None:
        super().__init__(channels)
        self.eps = eps
        self.weight, self.bias = affine_parameters(channels, affine)


def affine_parameters(
    channels: int, affine: bool
) -> tuple[nn.Parameter | None, nn.Parameter | None]:
    """The usual gain (ones) and bias (zeros), each of shape (C,), or two Nones."""
    if not affine:
        return None, None
    return nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """View `values`, (C,) or (N, C), so that it broadcasts against `x` (N, C, ...)."""
    shape = values.shape if values.dim() == 2 else (1, -1)
    return values.view(*shape, *(1,) * (x.dim() - 2))


def require_several(count: int, norm: Norm, x: Tensor, advice: str) -> None:
    """Raise Incompatible where a statistic would be taken of `count` <= 1 values."""
    if count <= 1:
        raise Incompatible(
            f"norm={norm.name} needs more than one value per statistic, and an input "
            f"of shape {tuple(x.shape)} gives it {count}; {advice}"
        )


def require_positions(norm: Norm, x: Tensor) -> None:
    """Raise Incompatible where a statistic over positions would have one value."""
    require_several(x.shape[2:].numel(), norm, x, "raise the resolution or the length")


def require_groups(norm: Norm, x: Tensor, num_groups: int) -> None:
    """Raise Incompatible where a statistic over a group would have one value."""
    count = x.shape[1:].numel() // num_groups
    require_several(count, norm, x, "use fewer groups or a higher resolution")


def groups_of(norm: Norm, num_groups: int, group_size: int | None) -> int:
    """The number of groups: `num_groups`, or the channels divided by `group_size`.

    Raises Incompatible unless it divides the channels of `norm`, and RequestError
    where both are given.
    """
    if group_size is not None and num_groups != NUM_GROUPS:
        raise RequestError(
            f"norm={norm.name}: norm.num_groups={num_groups} and "
            f"norm.group_size={group_size} are both given; give one of them"
        )
    option, divisor = (
        ("group_size", group_size) if group_size else ("num_groups", num_groups)
    )
    if norm.channels % divisor:
        divisors = [n for n in range(1, norm.channels + 1) if norm.channels % n == 0]
        raise Incompatible(
            f"norm={norm.name}: norm.{option}={divisor} does not divide "
            f"{norm.channels} channels; these do: {', '.join(map(str, divisors))}"
        )
    return norm.channels // divisor if group_size else divisor


def check_input(
    norm: Norm, x: Tensor, mask: Tensor | None, condition: Tensor | None
) -> None:
    """Raise RequestError where an argument breaks the contract of Norm.

    Looks at types and shapes only; a mask of another shape could broadcast.
    """
    if not x.is_floating_point() or x.dim() < 2 or x.shape[1] != norm.channels:
        needs = f"it needs (N, {norm.channels}, ...), floating point"
        raise _wrong(norm, "an input", x, needs)
    shape = tuple(x.shape)
    positions = (shape[0], *shape[2:])
    if mask is not None and (mask.dtype != torch.bool or mask.shape != positions):
        needs = f"an input of shape {shape} needs {positions}, bool"
        raise _wrong(norm, "a mask", mask, needs)
    if condition is not None and (
        condition.dtype != torch.int64 or condition.shape != shape[:1]
    ):
        needs = f"an input of shape {shape} needs ({shape[0]},), int64"
        raise _wrong(norm, "a condition", condition, needs)


def _wrong(norm: Norm, argument: str, value: Tensor, needs: str) -> RequestError:
    return RequestError(
        f"norm={norm.name} was given {argument} of shape {tuple(value.shape)} and type "
        f"{value.dtype}; {needs}"
    )


def make(name: str, channels: int, **options: Any) -> Norm:
    """The norm called `name` over `channels` channels, its options checked.

    Raises RequestError with close matches for an unknown name or option, Incompatible
    where the options do not fit `channels`.
    """
    return REGISTRY.get(name)(channels, **REGISTRY.options(name, options))


def names() -> list[str]:
    """The names of all norms, sorted."""
    return REGISTRY.names()
