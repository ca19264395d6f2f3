"""The base class of all norms, their registry, and helpers that many norms use."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Annotated, Any, ClassVar, cast

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.fx import Proxy, Tracer
from torch.nn import functional as F
from torch.nn.parameter import UninitializedParameter

from normbench.errors import Incompatible, RequestError
from normbench.norms.arguments import check_input
from normbench.registry import Registry

REGISTRY: "Registry[Norm]" = Registry("norm", "normbench.norms.layers")

HALF_PRECISION = (torch.bfloat16, torch.float16)
Momentum = Annotated[float, Field(gt=0, le=1)]
"""The type of an option `momentum`: the weight of the newest batch, as in torch.

With the type `Momentum | None`, None is torch's cumulative average, which gives all
batches the same weight."""


class Norm(nn.Module):
    """One normalization layer.

    A subclass is built as `Norm(channels, *, **options)`. Its keyword-only parameters
    are the options that a yaml may set. A norm is called as
    `norm(x, mask=None, condition=None)`:

    - `x`: (N, C, *spatial), floating point, any strides. The result has its shape.
    - `mask`: (N, *spatial) bool, True where the position is real, False where it is
      padding. None: all positions are real.
    - `condition`: (N,) int64, the index of the affine map of each sample. Norms with a
      single affine map ignore it.

    `forward` gets all three by position. A norm that needs only `x` ends its signature
    in `*_: Tensor | None`.

    `__call__` checks types and shapes, so `forward` does not need to. An input without
    values, such as a batch of 0 samples, passes through: `__call__` calls neither
    `forward` nor its hooks. `__call__` converts a 16-bit input to float32, turns
    autocast off for `forward`, and converts the result back. A norm that was itself
    converted to the 16-bit type gets the input unchanged.

    What a subclass must keep to:

    - The result does not depend on the number of spatial dimensions.
    - `forward` runs on the meta device too: it uses no `.item()` and no `if` on the
      value of a tensor.
    - A norm that `differs_in_eval` has a `momentum` and keeps its running statistics
      in floating-point buffers. One training forward at momentum 1 sets them to the
      statistics of that forward. At momentum None they are the mean over all norm
      batches so far.
    - A norm that uses other samples computes its statistics with `norms.statistics`,
      so that several processes can share them.
    - A norm with `one_call` treats each of `chunks` equal parts of the batch as a batch
      of its own, in the order of the parts. A norm without it is called once per part.
    - A norm may set `penalty` to a scalar in each training forward. The training loop
      adds it to the loss.
    - A norm that cannot work with its arguments or its input raises Incompatible.
    """

    name: ClassVar[str]
    listed: ClassVar[bool] = True
    """Whether `names` has the norm. A task replaces a name that is not listed."""
    source: ClassVar[str] = ""
    """The publication with its year, such as "Ioffe & Szegedy 2015", or empty."""
    also_called: ClassVar[tuple[str, ...]] = ()
    """Other names, such as "SyncBatchNorm", for which messages suggest this norm.

    Other spellings of `name` are not needed: "BatchNorm2d" and "BN" suggest "batch"."""
    axes: ClassVar[str] = ""
    """The inputs that an output depends on in training; empty if unknown.

    The words are those of `normbench footprint`, but without numbers, such as
    "one sample, one group of channels, all positions"."""
    uses_other_samples: ClassVar[bool] = False
    """In training, an output depends on other samples of the batch."""
    differs_in_eval: bool = False
    """Evaluation computes a different function than training.

    An option may turn it off for an instance; see `differs_with`."""
    honours_mask: ClassVar[bool] = False
    """Values at masked positions never change the results at real positions."""
    fixed_map_in_eval: bool = False
    """Evaluation applies one fixed map to every position, real or masked.

    An instance that does not differ in evaluation has no fixed map."""
    exact_gradient: ClassVar[bool] = True
    """The backward pass is the derivative of the forward pass."""
    loss_scaling: ClassVar[bool] = True
    """The norm works with the loss scaling of fp16: its backward pass is linear."""
    contains_activation: ClassVar[bool] = False
    """The norm ends in a non-linearity, so the model adds no activation after it.

    All other norms are odd functions at initialization: norm(-x) = -norm(x)."""
    fixed_spatial: ClassVar[bool] = False
    """Parameters have the spatial shape of the first input; all inputs must have it."""

    channel_axis: int = 1
    """The axis of the channels in the input of `__call__`; see `norms.placement`."""
    one_call: bool = False
    """The norm handles `chunks` above 1.

    A subclass with a `forward` of its own does not inherit it. If it is set to False on
    an instance, a Ghost calls this norm once per chunk."""
    chunks: int = 1
    """The number of equal parts of the batch with statistics of their own.

    A `Ghost` sets it for a call. Each part is a chunk of consecutive samples."""
    equal_weights: bool = False
    """The running statistics after a call are the mean over its chunks.

    With False, they are those after the chunks one after another."""
    counting: bool = True
    """A training forward adds 1 to the count of forwards, if the norm has one.

    At momentum None it adds the number of norm batches, as torch's BatchNorm would if
    it were called once for each."""
    forwards_per_step: int = 1
    """The number of training forwards per optimizer step; set by the factory."""
    penalty: Tensor | None = None
    deterministic: bool = True
    """Evaluation draws no random numbers and changes no buffer."""
    conditions: int | None = None
    """The number of affine maps; None if the norm ignores `condition`."""
    eps: float
    momentum: float | None
    running_mean: Tensor
    running_var: Tensor

    def __init_subclass__(cls, name: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__ and "one_call" not in cls.__dict__:
            cls.one_call = False  # not inherited: the new `forward` may ignore `chunks`
        if name:  # base classes have the name "" and are not registered
            cls.name = name
            REGISTRY.add(name, cls)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    @classmethod
    def differs_with(cls, options: Mapping[str, object]) -> bool:
        """Return `differs_in_eval` of an instance with `options`, without making it."""
        return cls.differs_in_eval and options.get("track_running_stats") is not False

    def __call__(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        if isinstance(x, Proxy):
            return self._traced(x, mask, condition)
        check_input(self, x, mask, condition)
        if x.numel() == 0:
            return self._pass_through(x)
        y: Tensor
        if x.dtype not in HALF_PRECISION or self._has_tensor_of(x.dtype):
            y = super().__call__(x, mask, condition)
            return y
        with torch.autocast(x.device.type, enabled=False):
            y = super().__call__(x.float(), mask, condition)
        return y.to(x.dtype)

    def _traced(self, x: Proxy, *others: Tensor | None) -> Tensor:
        """Return the proxy of a call while torch.fx traces a network.

        The norm is one node of the graph, because its checks need a real input.
        """

        tracer = x.tracer
        assert isinstance(tracer, Tracer)

        def as_node(*arguments: Any) -> Any:
            path = tracer.path_of_module(self)
            return tracer.create_proxy("call_module", path, arguments, {})

        return cast(Tensor, tracer.call_module(self, as_node, (x, *others), {}))

    def _pass_through(self, x: Tensor) -> Tensor:
        """Return a copy of an input without values.

        The gradient of every parameter is 0. Statistics and counters do not change. In
        training, the penalty becomes None.
        """
        if self.training:
            self.penalty = None
        y = x.clone()
        for parameter in self.parameters():
            if not isinstance(parameter, UninitializedParameter):
                y = y + 0 * parameter.sum()
        return y

    def _has_tensor_of(self, dtype: torch.dtype) -> bool:
        tensors = (*self.parameters(), *self.buffers())
        return any(tensor.dtype == dtype for tensor in tensors)

    def extra_repr(self) -> str:
        texts = [str(self.channels)]
        if isinstance(groups := getattr(self, "num_groups", None), int):
            texts.append(f"num_groups={groups}")
        if self.channel_axis != 1:
            texts.append(f"channel_axis={self.channel_axis}")
        return ", ".join(texts)


class Affine(Norm, name=""):
    """Base class of norms with `eps` and, if `affine`, a gain and a bias per channel.

    weight (ones), bias (zeros): (C,), or None without `affine`.
    """

    def __init__(
        self, channels: int, *, eps: PositiveFloat = 1e-5, affine: bool = True
    ) -> None:
        super().__init__(channels)
        self.eps = eps
        self.weight, self.bias = affine_parameters(channels, affine)


class AffineWithOptionalBias(Affine, name=""):
    """As Affine, with the option `bias` of torch.nn.LayerNorm."""

    def __init__(
        self,
        channels: int,
        *,
        eps: PositiveFloat = 1e-5,
        affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__(channels, eps=eps, affine=affine)
        if not bias:
            self.bias = None


def affine_parameters(
    channels: int, affine: bool
) -> tuple[nn.Parameter | None, nn.Parameter | None]:
    """Return a gain (ones) and a bias (zeros), both (C,), or None for both."""
    if not affine:
        return None, None
    return nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Return `values` in a shape that broadcasts with x (N, C, *spatial).

    `values` is (C,), (N, C), or (k, C) for k equal parts of the N samples.
    """
    if values.dim() < 2:
        values = values.view(1, -1)
    elif (k := values.shape[0]) not in (1, x.shape[0]):  # an export fixes `len(x)`
        values = values.repeat_interleave(x.shape[0] // k, 0)
    return values.view(*values.shape, *(1,) * (x.dim() - 2))


def of_condition(table: Tensor, condition: Tensor | None, x: Tensor) -> Tensor:
    """Return row `condition` (N,), or 0, of `table` (conditions, C), to broadcast."""
    if condition is None:
        return per_channel(table[0], x)
    return per_channel(F.embedding(condition, table), x)


def require_several(count: int, norm: Norm, x: Tensor, advice: str) -> None:
    """Raise Incompatible if a statistic has only `count` <= 1 values."""
    if count <= 1:
        raise Incompatible(
            f"norm={norm.name} needs more than one value per statistic, but an input "
            f"of shape {tuple(x.shape)} gives it {count}; {advice}"
        )


def require_positions(norm: Norm, x: Tensor) -> None:
    """Raise Incompatible if `x` has only one position."""
    count = math.prod(x.shape[2:])
    require_several(count, norm, x, "raise the resolution or the length")


def require_groups(norm: Norm, x: Tensor, num_groups: int) -> None:
    """Raise Incompatible if a group of channels of a sample has only one value."""
    count = math.prod(x.shape[1:]) // num_groups
    require_several(count, norm, x, "use fewer groups or a higher resolution")


def make(
    name: str,
    channels: int,
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Norm:
    """Return a new norm by its name, after a check of its options.

    All parameters and buffers are created on `device`, which may be "meta"; None means
    torch's default device. Those of a floating-point type are created in torch's
    default type, and then converted to `dtype` if it is given. Counters and
    permutations keep their integer type.

    Raises RequestError for an unknown name or option and a type that is not floating
    point, Incompatible if the options do not fit `channels`.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise RequestError(f"norm={name}: dtype={dtype} is not a floating-point type")
    cls, checked = REGISTRY.get(name), REGISTRY.options(name, options)
    with nullcontext() if device is None else torch.device(device):
        norm = cls(channels, **checked)
    return norm if dtype is None else norm.to(dtype)


def names() -> list[str]:
    """Return the sorted names of all norms."""
    return REGISTRY.names()
