"""Put a norm into a network that passes its arguments in another form."""

from collections.abc import Mapping

from torch import Tensor, nn

from normbench.norms.base import Norm


def place(norm: Norm, channel_axis: int, after: Mapping[str, nn.Module]) -> None:
    """Make `norm` accept inputs whose channels are at `channel_axis`, 1 or -1.

    The modules `after`, such as an activation, are applied to the result in their
    order. They become children of `norm` with their names. Parameters and buffers of
    `norm` keep their names. Hooks of `norm` get tensors in the form of the network.
    """
    norm.channel_axis = channel_axis
    for name, module in after.items():
        norm.add_module(name, module)
    if channel_axis != 1 or after:
        forward = PlacedForward(norm, tuple(after))
        norm.forward = forward  # of this instance only


class PlacedForward:
    """The forward of a norm between two changes of the layout, and what follows it."""

    def __init__(self, norm: Norm, after: tuple[str, ...]) -> None:
        self.norm, self.after = norm, after

    def __call__(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        norm = self.norm
        x = x.movedim(norm.channel_axis, 1)
        y: Tensor = type(norm).forward(norm, x, mask, condition)
        y = y.movedim(1, norm.channel_axis)
        for name in self.after:
            y = norm.get_submodule(name)(y)
        return y
