"""Check the arguments of a norm."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from normbench.errors import RequestError

if TYPE_CHECKING:
    from normbench.norms.base import Norm


def check_input(
    norm: "Norm", x: Tensor, mask: Tensor | None, condition: Tensor | None
) -> None:
    """Raise RequestError if a type or a shape breaks the contract of Norm.

    A mask of a wrong shape could otherwise broadcast without an error.
    """
    axis, shape = norm.channel_axis, tuple(x.shape)
    if not x.is_floating_point() or x.dim() < 2 or shape[axis] != norm.channels:
        layout = f"{norm.channels}, ..." if axis == 1 else f"..., {norm.channels}"
        expected = f"it needs (N, {layout}), floating point"
        if x.dim() and shape[0] == norm.channels and x.is_floating_point():
            expected += (
                f"; its first axis has {norm.channels} values, so the batch axis seems "
                "to be missing: use x.unsqueeze(0)"
            )
        raise _wrong_argument(norm, "an input", x, expected)
    positions = (shape[0], *shape[2:]) if axis == 1 else shape[:-1]
    if mask is not None and (mask.dtype != torch.bool or mask.shape != positions):
        expected = f"an input of shape {shape} needs {positions}, bool"
        raise _wrong_argument(norm, "a mask", mask, expected)
    if condition is not None and (
        condition.dtype != torch.int64 or condition.shape != shape[:1]
    ):
        expected = f"an input of shape {shape} needs ({shape[0]},), int64"
        raise _wrong_argument(norm, "a condition", condition, expected)


def _wrong_argument(
    norm: "Norm", argument: str, value: Tensor, expected: str
) -> RequestError:
    return RequestError(
        f"norm={norm.name} was given {argument} of shape {tuple(value.shape)} and type "
        f"{value.dtype}; {expected}"
    )
