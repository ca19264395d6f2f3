"""Makes norms with random parameters and their inputs, and compares norms."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normbench.norms import Norm, make


def made(name: str, shape: tuple[int, ...], **options: object) -> Norm:
    """Return a float64 norm for `shape`, in training mode, with random parameters.

    Parameters and running statistics are between 0.4 and 0.9, so that no gate is at a
    limit.
    """
    norm = make(name, shape[1], **options).double()
    if any(is_lazy(parameter) for parameter in norm.parameters()):
        norm(torch.zeros(shape, dtype=torch.float64))
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.4, 0.9)
    return norm.train()


def like(name: str, other: Norm, **options: object) -> Norm:
    """Return the norm `name` with the parameters and buffers of `other`.

    `other` may have more parameters and buffers.
    """
    norm = make(name, other.channels, **options).double()
    state = other.state_dict()
    norm.load_state_dict({key: state[key] for key in norm.state_dict()})
    return norm.train(other.training)


def sample(*shape: int) -> Tensor:
    """Return a float64 input (N, C, *spatial) with a different mean per channel."""
    return torch.randn(shape, dtype=torch.float64) * 2 + by_channel(
        torch.linspace(0, 2, shape[1], dtype=torch.float64), len(shape)
    )


def padded(shape: tuple[int, ...]) -> Tensor:
    """Return a mask (N, T): sample i has i + 1 real positions."""
    return torch.arange(shape[2]) < torch.arange(1, shape[0] + 1)[:, None]


def by_channel(values: Tensor, dim: int) -> Tensor:
    """Return `values` (C,) as a view (1, C, 1, ...) with `dim` dimensions."""
    return values.view(1, -1, *(1,) * (dim - 2))


def affine(norm: Norm, z: Tensor) -> Tensor:
    """Apply the gain and the bias of `norm` to `z`."""
    return z * by_channel(norm.weight, z.dim()) + by_channel(norm.bias, z.dim())


def once(norm: Norm, *args: Tensor) -> Tensor:
    """Return the output of a copy of `norm`, so that `norm` does not change."""
    return deepcopy(norm)(*args)


def results(
    function: Callable[..., Tensor],
    x: Tensor,
    *args: Tensor | None,
    of: nn.Module | None = None,
    grad: Tensor | None = None,
) -> list[Tensor]:
    """Return function(x, *args) and the gradients of x and of the parameters of `of`.

    `of` is `function` itself by default. `grad` is the gradient of the output.
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
    """Call torch.testing.assert_close with a message that begins with `case`."""
    torch.testing.assert_close(ours, theirs, msg=lambda text: f"{case}: {text}")


def same_state(ours: nn.Module, theirs: nn.Module) -> bool:
    """Return whether both state dicts are equal to the last bit."""
    a, b = ours.state_dict(), theirs.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def running(module: nn.Module) -> list[Tensor]:
    """Return copies of the floating-point buffers."""
    return [b.clone() for b in module.buffers() if b.is_floating_point()]
