"""Norms with a random state, inputs for them, and comparisons of norms."""

from collections.abc import Callable, Sequence
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.norms import Norm, make, names

Options = dict[str, object]

CHANNELS = 16
SHAPES = [(5, CHANNELS), (5, CHANNELS, 7), (5, CHANNELS, 4, 3)]
MODES = (True, False)
"""The values of `training`."""
ORDERS = ("contiguous", "strided", "random_each_layer", "random_each_forward")
VARIANTS: dict[str, list[Options]] = {
    "batch": [{"momentum": None}, {"track_running_stats": False}],
    "batch_masked": [{"momentum": None}, {"track_running_stats": False}],
    "group": [{"num_groups": 4}],
    "group_permuted": [{"order": order} for order in ORDERS],
    "layer_position": [{"bias": False}],
    "layer_sample": [{"bias": False}],
    "rms": [{"unit_offset": True}],
}
"""Options that the contract suite tests in addition to the defaults of a norm."""
CASES = [(name, o) for name in names() for o in ({}, *VARIANTS.get(name, []))]

every_norm = pytest.mark.parametrize("name", names())
every_case = pytest.mark.parametrize(
    ("name", "options"),
    CASES,
    ids=["-".join([name, *(f"{k}={v}" for k, v in o.items())]) for name, o in CASES],
)


def made(name: str, shape: tuple[int, ...], **options: object) -> Norm:
    """Return a float64 norm for inputs of `shape`, in training, with a random state.

    Parameters and running statistics are between 0.4 and 0.9.
    """
    norm = make(name, shape[1], **options).double()
    if any(is_lazy(parameter) for parameter in norm.parameters()):
        norm(torch.zeros(shape, dtype=torch.float64))
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.4, 0.9)
    return norm.train()


def made_float32(name: str, shape: Sequence[int]) -> Norm:
    """A float32 norm for `shape`, in training, with random parameters."""
    norm = make(name, shape[1])
    if any(is_lazy(parameter) for parameter in norm.parameters()):
        norm(torch.zeros(*shape))
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.4, 0.9)
    return norm.train()


def like(name: str, other: Norm, **options: object) -> Norm:
    """Return the norm `name` with the parameters and buffers of `other`."""
    norm = make(name, other.channels, **options).double()
    state = other.state_dict()
    norm.load_state_dict({key: state[key] for key in norm.state_dict()})
    return norm.train(other.training)


def sample(*shape: int) -> Tensor:
    """Return a float64 input (N, C, *spatial) with a different mean in each channel."""
    return torch.randn(shape, dtype=torch.float64) * 2 + by_channel(
        torch.linspace(0, 2, shape[1], dtype=torch.float64), len(shape)
    )


def padded(shape: tuple[int, ...]) -> Tensor:
    """Return a mask (N, T) with i + 1 real positions in sample i."""
    return torch.arange(shape[2]) < torch.arange(1, shape[0] + 1)[:, None]


def by_channel(values: Tensor, dim: int) -> Tensor:
    """Return `values` (C,) as (1, C, 1, ...) with `dim` dimensions."""
    return values.view(1, -1, *(1,) * (dim - 2))


def affine(norm: Norm, z: Tensor) -> Tensor:
    """Apply the gain and the bias of `norm` to `z`."""
    return z * by_channel(norm.weight, z.dim()) + by_channel(norm.bias, z.dim())


def once(norm: Norm, *args: Tensor) -> Tensor:
    """Return one forward of a copy, so that `norm` does not change."""
    return deepcopy(norm)(*args)


def results(
    function: Callable[..., Tensor],
    x: Tensor,
    *args: Tensor | None,
    of: nn.Module | None = None,
    grad: Tensor | None = None,
) -> list[Tensor]:
    """Return function(x, *args) and the gradients of x and of the parameters of `of`.

    `of` is the function itself by default; `grad` is the gradient of the result.
    """
    module = function if of is None else of
    assert isinstance(module, nn.Module)
    x = x.detach().requires_grad_()
    y = function(x, *args)
    if grad is None:
        grad = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).cos().view(y.shape)
    inputs = [x, *module.parameters()]
    return [
        y.detach(), *torch.autograd.grad(y, inputs, grad, materialize_grads=True)
    ]  # fmt: skip


def assert_close(ours: object, theirs: object, case: object = "") -> None:
    """Call torch.testing.assert_close; the message starts with `case`."""
    torch.testing.assert_close(ours, theirs, msg=lambda text: f"{case}: {text}")


def same_state(ours: nn.Module, theirs: nn.Module) -> bool:
    """Return whether both state dicts are equal to the last bit."""
    a, b = ours.state_dict(), theirs.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def running(module: nn.Module) -> list[Tensor]:
    """Return copies of the floating-point buffers."""
    return [b.clone() for b in module.buffers() if b.is_floating_point()]


def rows(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the values of the (real) positions: (values per channel, C)."""
    last = x.movedim(1, -1)
    return last.flatten(0, -2) if mask is None else last[mask]


def moments(x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance (C,) over the (real) positions."""
    return rows(x, mask).mean(0), rows(x, mask).var(0, correction=0)


def assert_same_buffers(ours: Norm, theirs: nn.Module) -> None:
    """Compare the buffers that `theirs` has."""
    for key, value in theirs.named_buffers():
        assert_close(ours.get_buffer(key), value, key)


def assert_same(ours: Norm, theirs: nn.Module, x: Tensor, *args: Tensor) -> None:
    """Compare results and buffers in two training forwards and in evaluation."""
    for training in (True, True, False):
        ours.train(training), theirs.train(training)
        expected = results(theirs, x, *args)
        assert_close(results(ours, x, *args)[: len(expected)], expected, training)
    assert_same_buffers(ours, theirs)
