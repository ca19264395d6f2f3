"""Assertions for the tests of the user's own networks."""

from torch import nn

from normbench.models.forward import Example
from normbench.models.independence import Mode, Of, leak
from normbench.models.layers import readable


def assert_independent(
    model: nn.Module, example: Example, of: Of = "other_samples", *, pad: int = 0
) -> None:
    """Raise AssertionError if outputs of `model` depend on what `of` names.

    `of` is "other_samples", "pads" or "surroundings"; see `models.independence.leak`.
    The norms are in the mode of the model: call `model.eval()` first to test
    evaluation. The model does not change.
    """
    mode: Mode = "train" if model.training else "eval"
    measured = leak(model, example, of, mode, pad=pad)
    if measured.leaks:
        where = f", first in layer {readable(measured.layer)}" if measured.layer else ""
        raise AssertionError(
            f"in mode {mode}, the output depends on {of.replace('_', ' ')}: it moves "
            f"by {measured.change:.2g} of the largest output{where}"
        )
