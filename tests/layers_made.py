"""Norms with a random state, their inputs, and how two of them are compared."""

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.norms import Norm, make


def made(name: str, shape: tuple[int, ...], **options: object) -> Norm:
    """A float64 norm for `shape`, in training, with a random state.

    Parameters and running statistics are positive and below 1, away from the ends of
    any gate.
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
    """The norm `name` with those parameters and buffers of `other` that it has."""
    norm = make(name, other.channels, **options).double()
    state = other.state_dict()
    norm.load_state_dict({key: state[key] for key in norm.state_dict()})
    return norm.train(other.training)


def sample(*shape: int) -> Tensor:
    """A float64 input (N, C, *spatial) with another mean in each channel."""
    return torch.randn(shape, dtype=torch.float64) * 2 + by_channel(
        torch.linspace(0, 2, shape[1], dtype=torch.float64), len(shape)
    )


def padded(shape: tuple[int, ...]) -> Tensor:
    """A mask (N, T): sample i has i + 1 real positions."""
    return torch.arange(shape[2]) < torch.arange(1, shape[0] + 1)[:, None]


def by_channel(values: Tensor, dim: int) -> Tensor:
    """`values` (C,) as (1, C, 1, ...) with `dim` dimensions."""
    return values.view(1, -1, *(1,) * (dim - 2))


def affine(norm: Norm, z: Tensor) -> Tensor:
    """The gain and bias of `norm`, applied to `z`."""
    return z * by_channel(norm.weight, z.dim()) + by_channel(norm.bias, z.dim())


def once(norm: Norm, *args: Tensor) -> Tensor:
    """One forward of a copy: `norm` is as it was."""
    return deepcopy(norm)(*args)


def results(
    function: Callable[..., Tensor],
    x: Tensor,
    *args: Tensor | None,
    of: nn.Module | None = None,
    grad: Tensor | None = None,
) -> list[Tensor]:
    """function(x, *args), then the gradients of x and of the parameters of `of`.

    `of` is the function itself by default.
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
    """As torch.testing.assert_close; the message begins with `case`."""
    torch.testing.assert_close(ours, theirs, msg=lambda text: f"{case}: {text}")


def same_state(ours: nn.Module, theirs: nn.Module) -> bool:
    """Whether both state dicts are equal to the last bit."""
    a, b = ours.state_dict(), theirs.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def running(module: nn.Module) -> list[Tensor]:
    """Copies of the floating-point buffers."""
    return [b.clone() for b in module.buffers() if b.is_floating_point()]
