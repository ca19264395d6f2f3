"""The contract of a norm, and how a norm gets its name."""

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.errors import Incompatible, RequestError
from normbench.registry import Registry

REGISTRY: "Registry[Norm]" = Registry("norm", "normbench.norms.layers")

NARROW = (torch.bfloat16, torch.float16)

Momentum = Annotated[float, Field(gt=0, le=1)]
"""The type of an option that weighs the newest statistic, as torch defines it."""


class Norm(nn.Module):
    """One normalization layer.

    A subclass is built as `Norm(channels, *, **options)`; its keyword-only parameters
    are what a yaml may set. It is called `norm(x, mask=None, condition=None)`:

    - `x`: (N, C, *spatial), floating point, any strides; the result has its shape.
    - `mask`: (N, *spatial) bool, True where the position is real; None = all real.
    - `condition`: (N,) int64, which affine; ignored by norms that have only one.

    What it computes never depends on the number of dimensions. A norm that
    `differs_in_eval` has a float `momentum` (the weight of the newest statistic, as
    torch defines it) and keeps its running statistics in floating-point buffers, such
    that one training forward at momentum 1 leaves exactly that forward's statistics.
    A norm that uses other samples takes its moments with `norms.statistics`, which may
    take them over several processes.
    A norm may leave a scalar in `penalty` at each training forward, to be added to the
    loss. A norm that cannot work with its arguments or its input raises Incompatible.
    Its forward runs on the meta device too: no `.item()`, no `if` on a tensor's value.
    A call checks types and shapes first (`check_input`), so that `forward` need not. An
    input without values, such as a batch of 0 samples, never reaches `forward` and its
    hooks: it passes through (`_pass_through`), as in most of torch's own norms. An
    input in 16 bits goes through `forward` in float32, and the result is given back in
    the input's type, inside autocast and outside; a norm that was itself converted to
    that type gets the input as it is.
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
    """What stands at masked positions never changes the others."""
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
    """Evaluation is a function: it draws nothing and leaves every buffer as it was."""
    conditions: int | None = None
    """How many affine maps `condition` chooses from; None where it is ignored."""
    eps: float
    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init_subclass__(cls, name: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
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
        if x.dtype in NARROW and not self._is_in(x.dtype):
            with torch.autocast(x.device.type, enabled=False):
                y: Tensor = super().__call__(x.float(), mask, condition)
            return y.to(x.dtype)
        y = super().__call__(x, mask, condition)
        return y

    def _pass_through(self, x: Tensor) -> Tensor:
        """An input without values: a new tensor, with a gradient of 0 for parameters.

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
        held = (*self.parameters(), *self.buffers())
        return any(tensor.dtype == dtype for tensor in held)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def extra_repr(self) -> str:
        return str(self.channels)


def affine_parameters(
    channels: int, affine: bool
) -> tuple[nn.Parameter | None, nn.Parameter | None]:
    """The usual gain (ones) and bias (zeros), each of shape (C,), or two Nones."""
    if not affine:
        return None, None
    return nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """View `values` (C,) so that it broadcasts against `x` (N, C, *spatial)."""
    return values.view(1, -1, *(1,) * (x.dim() - 2))


def require_several(count: int, norm: Norm, x: Tensor, advice: str) -> None:
    """Raise Incompatible where a statistic would be taken of `count` <= 1 values."""
    if count <= 1:
        raise Incompatible(
            f"norm={norm.name} needs more than one value per statistic, and an input "
            f"of shape {tuple(x.shape)} gives it {count}; {advice}"
        )


NUM_GROUPS = 8
"""The default of every norm that has groups of channels."""


def groups_of(norm: Norm, num_groups: int, group_size: int | None) -> int:
    """The groups of channels: `num_groups`, or as many as have `group_size` channels.

    Raises Incompatible unless it divides the channels of `norm`, and RequestError
    where both are given.
    """
    given = {"num_groups": num_groups}
    if group_size is not None:
        if num_groups != NUM_GROUPS:
            raise RequestError(
                f"norm={norm.name}: norm.num_groups={num_groups} and "
                f"norm.group_size={group_size} are both given; give one of them"
            )
        given = {"group_size": group_size}
    ((option, number),) = given.items()
    if norm.channels % number:
        divisors = [n for n in range(1, norm.channels + 1) if norm.channels % n == 0]
        raise Incompatible(
            f"norm={norm.name}: norm.{option}={number} does not divide "
            f"{norm.channels} channels; these do: {', '.join(map(str, divisors))}"
        )
    return norm.channels // number if group_size else number


def check_input(
    norm: Norm, x: Tensor, mask: Tensor | None, condition: Tensor | None
) -> None:
    """Raise RequestError where the contract of Norm does not hold for an argument.

    Looks at types and shapes only.
    """
    if not x.is_floating_point() or x.dim() < 2 or x.shape[1] != norm.channels:
        raise RequestError(
            f"norm={norm.name} was given an input of shape {tuple(x.shape)} and type "
            f"{x.dtype}; it needs (N, {norm.channels}, ...), floating point"
        )
    if mask is not None:
        check_mask(mask, norm, x)
    if condition is not None and (
        condition.dtype != torch.int64 or condition.shape != x.shape[:1]
    ):
        raise RequestError(
            f"norm={norm.name} was given a condition of shape {tuple(condition.shape)} "
            f"and type {condition.dtype}; an input of shape {tuple(x.shape)} needs "
            f"({x.shape[0]},), int64"
        )


def check_mask(mask: Tensor, norm: Norm, x: Tensor) -> None:
    """Raise RequestError unless `mask` is (N, *spatial) bool for `x` (N, C, *spatial).

    Every call of a norm does it: a mask of another shape could broadcast.
    """
    expected = (x.shape[0], *x.shape[2:])
    if mask.dtype != torch.bool or mask.shape != expected:
        raise RequestError(
            f"norm={norm.name} was given a mask of shape {tuple(mask.shape)} and type "
            f"{mask.dtype}; an input of shape {tuple(x.shape)} needs {expected}, bool"
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
