"""Measure the time and memory of norms, compared with the fastest equal layer.

A measurement covers the forward and the backward on one device. Both layers get the
input as in a network: the norm gets a (N, C, T) view of the tokens, and torch's layer
gets the memory layout that its kernel is made for.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.benchmark import Timer

from normbench.errors import Incompatible, RequestError, did_you_mean
from normbench.norms import REGISTRY, Ghost, make
from normbench.norms.groups import NUM_GROUPS, channels_per_group

SHAPES = {
    "image": (32, 16, 28, 28),
    "tokens": (32, 64, 64),
    "style": (4, 32, 32, 32),
}
"""(N, C, *spatial) of the input, as in the default network of each task."""

BLOCK_SECONDS = 0.01
GHOST_BATCH = 2


@dataclass(frozen=True)
class Cost:
    """The cost of one forward and backward of a norm on one shape.

    Times are medians in microseconds. `ratio` is the median over paired blocks of the
    norm's time divided by the reference's time. `peak_kib` is the maximum memory that
    tensors of the norm use at one time. This memory does not include the input, the
    parameters, the output gradient and the workspace inside a CPU kernel. If the norm
    has no reference layer, `reference`, `reference_microseconds` and `ratio` are None.
    `ghost_ratio` is the median over paired blocks of the time with ghost batches of
    GHOST_BATCH samples divided by the time without them. It is None for a norm that
    uses each sample alone.
    If the norm does not work on the shape, `incompatible` is the reason, and nothing is
    measured.
    """

    norm: str
    shape: str
    microseconds: float | None = None
    peak_kib: float | None = None
    reference: str | None = None
    reference_microseconds: float | None = None
    ratio: float | None = None
    ghost_ratio: float | None = None
    incompatible: str | None = None


@dataclass(frozen=True)
class Reference:
    """A layer that computes the same function as a norm."""

    description: str
    layer: nn.Module
    channels_last: bool = False
    """The layer takes (N, T, C) instead of (N, C, T)."""


def measure_all(
    names: Sequence[str], shapes: Sequence[str], device: torch.device, blocks: int
) -> Iterator[Cost]:
    """Measure the norms `names` on the shapes `shapes`, on one thread.

    An empty sequence means all. Raises RequestError for an unknown name or shape.
    """
    for shape in shapes:
        if shape not in SHAPES:
            close = did_you_mean(shape, SHAPES)
            raise RequestError(f"shape {shape!r} is unknown; {close}")
    for name in names:
        REGISTRY.get(name)  # raises RequestError for an unknown name
    if device.index is not None:  # some torch functions use the current device
        torch.cuda.set_device(device)
    torch.set_num_threads(1)
    for name in names or REGISTRY.names():
        for shape in shapes or SHAPES:
            yield measure(name, shape, {}, device, blocks)


def measure(
    name: str, shape: str, options: dict[str, Any], device: torch.device, blocks: int
) -> Cost:
    """Measure the norm `name` with `options` on the shape called `shape`."""
    size = SHAPES[shape]
    x = torch.randn(size, device=device)
    view = x.transpose(1, 2).contiguous().transpose(1, 2) if x.dim() == 3 else x
    condition = torch.zeros(size[0], dtype=torch.int64, device=device)
    try:
        norm = make(name, size[1], **options).to(device).train()
        norm(view, None, condition)
    except Incompatible as reason:
        return Cost(name, shape, incompatible=str(reason))
    norm_step = step(lambda x: norm(x, None, condition), view)
    equal = reference(name, size, options)
    steps = [norm_step]
    if equal is not None:
        layer = equal.layer.to(device).train()
        steps.append(step(layer, view.transpose(1, 2) if equal.channels_last else x))
    if norm.uses_other_samples:
        ghost = Ghost(norm, GHOST_BATCH)
        steps.append(step(lambda x: ghost(x, None, condition), view))
    count = runs_per_block(norm_step)
    rounds = [[seconds_per_run(run, count) for run in steps] for _ in range(blocks)]
    norm_times, *other_times = zip(*rounds, strict=True)
    cost = Cost(
        name, shape, median_microseconds(norm_times), peak_kib(norm_step, device)
    )
    if equal is not None:
        layer_times, *other_times = other_times
        cost = replace(
            cost,
            reference=equal.description,
            reference_microseconds=median_microseconds(layer_times),
            ratio=median_ratio(norm_times, layer_times),
        )
    if norm.uses_other_samples:
        (ghost_times,) = other_times
        cost = replace(cost, ghost_ratio=median_ratio(ghost_times, norm_times))
    return cost


def reference(
    name: str, size: tuple[int, ...], options: dict[str, Any]
) -> Reference | None:
    """Return the fastest equal layer of torch or timm, or None if none is known.

    `size` is (N, C, *spatial), or (N, C, T) for tokens. The layers of timm are used if
    timm is installed.
    """
    channels, tokens = size[1], len(size) == 3
    grouping = {"num_groups": NUM_GROUPS, **options}
    groups = channels // (channels_per_group(grouping, channels) or channels)
    match name:
        case "batch" | "batch_masked" if tokens:
            flat = _FlatBatchNorm(channels)
            return Reference("nn.BatchNorm1d on (N T, C)", flat, channels_last=True)
        case "batch" | "batch_masked":
            return Reference("nn.BatchNorm2d", nn.BatchNorm2d(channels))
        case "layer_sample":
            return Reference("nn.GroupNorm(1)", nn.GroupNorm(1, channels))
        case "layer_shape":
            return Reference("nn.LayerNorm", nn.LayerNorm(size[1:]))
        case "instance":
            return Reference("nn.GroupNorm(C)", nn.GroupNorm(channels, channels))
        case "group":
            return Reference("nn.GroupNorm", nn.GroupNorm(groups, channels))
        case "layer_position":
            return _channels_last_reference(
                "nn.LayerNorm", nn.LayerNorm(channels), tokens
            )
        case "rms":
            return _channels_last_reference(
                "nn.RMSNorm", nn.RMSNorm(channels, eps=1e-5), tokens
            )
        case "dyt":
            return Reference("tanh", _Tanh(channels, tokens), channels_last=tokens)
        case "local_response":
            response = nn.LocalResponseNorm(5, alpha=5e-4, k=2.0)
            return Reference("nn.LocalResponseNorm", response)
        case "filter_response" if not tokens:
            return _timm_reference("FilterResponseNormTlu2d", channels)
        case "evonorm_s0" if not tokens:
            return _timm_reference("EvoNorm2dS0", channels, groups=groups)
        case "evonorm_b0" if not tokens:
            return _timm_reference("EvoNorm2dB0", channels)
    return None


def _channels_last_reference(
    description: str, layer: nn.Module, tokens: bool
) -> Reference:
    if not tokens:
        layer = _ChannelsMoved(layer)
    return Reference(description, layer, channels_last=tokens)


def _timm_reference(name: str, channels: int, **options: int) -> Reference | None:
    try:
        import timm.layers
    except ImportError:
        return None
    return Reference(f"timm {name}", getattr(timm.layers, name)(channels, **options))


class _FlatBatchNorm(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).view(x.shape)


class _ChannelsMoved(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.movedim(1, -1)).movedim(-1, 1)
        return y


class _Tanh(nn.Module):
    def __init__(self, channels: int, channels_last: bool) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.5))
        shape = (channels,) if channels_last else (channels, 1, 1)
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.alpha * x) * self.weight + self.bias


def step(layer: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """Return a function that does one forward and backward of `layer` on `x`."""
    leaf = x.detach().requires_grad_()
    gradient = torch.randn_like(layer(leaf))

    def forward_and_backward() -> None:
        leaf.grad = None
        torch.autograd.backward(layer(leaf), gradient)

    return forward_and_backward


def runs_per_block(run: Callable[[], None]) -> int:
    """Return how many calls of `run` take about BLOCK_SECONDS."""
    run()
    seconds = Timer("run()", globals={"run": run}).timeit(3).mean
    return max(1, round(BLOCK_SECONDS / seconds))


def seconds_per_run(run: Callable[[], None], count: int) -> float:
    """Return the mean seconds of `count` calls of `run`, including CUDA kernels."""
    seconds: float = Timer("run()", globals={"run": run}).timeit(count).mean
    return seconds


def median_microseconds(seconds: Sequence[float]) -> float:
    """Return the median, converted to microseconds."""
    return round(1e6 * statistics.median(seconds), 1)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of paired times."""
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)


def peak_kib(run: Callable[[], None], device: torch.device) -> float:
    """Return the maximum memory in use at one time during a call of `run`, in KiB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / 1024
    live = _LiveStorages()
    with live:
        run()
    return live.peak / 1024


class _LiveStorages(TorchDispatchMode):
    """Tracks the total size of the live tensors that operators have created."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        # Each key identifies a storage. The size of the storage is in bytes.
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = {_storage(t).cdata for t in _tensors(args)}
        outputs = result if isinstance(result, tuple | list) else [result]
        for tensor in _tensors(outputs):
            storage = _storage(tensor)
            if storage.cdata not in inputs:  # the output is not a view of an input
                size = tensor.untyped_storage().nbytes()
                self._live[storage.cdata] = (storage, size)
        self._live = {
            address: (storage, size)
            for address, (storage, size) in self._live.items()
            if not storage.expired()
        }
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]


def _storage(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())
