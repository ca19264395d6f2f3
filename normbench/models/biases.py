"""Find biases that have no effect, because a norm subtracts the mean of each channel.

A bias adds a constant to each channel. `Biases` follows the outputs of convolutions and
linear layers of torch, through modules that keep such a constant, to the norms that
subtract it. Functions between the layers, such as a transposition, are not followed.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.padding import _CircularPadNd, _ReflectionPadNd, _ReplicationPadNd
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _MaxPoolNd,
)

from normbench.models.layers import Layer, layers

_CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
_FORWARDS = {cls.forward for cls in (*_CONVOLUTIONS, nn.Linear)}
"""A class with another forward may do more than add its bias."""

_KEEP_CONSTANTS = (
    *(nn.Identity, nn.Upsample),
    *(_CircularPadNd, _ReflectionPadNd, _ReplicationPadNd),
    *(_AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _MaxPoolNd),
)
"""Modules f with f(x + c) = f(x) + c' for constants c and c' of each channel.

Padding with zeros is not one of them: the constant is missing at the border."""


class Biases:
    """Follows the outputs of layers with a bias in one forward of a copy of `model`.

    Call `called` or `used` for everything that uses a tensor. `redundant` then returns
    the layers whose bias has no effect in training. Whether a norm or a dropout is in
    training mode is that of `model`, because the copy may have another mode.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = dict(model.named_modules())
        self.adding = {name: m for name, m in modules.items() if _adds_bias(m)}
        self.keeping = {
            name for name, m in modules.items() if _keeps_constants(m, model.training)
        }
        self.subtracting = {
            name: layer
            for name, module, layer in layers(model)
            if _subtracts_means(module, layer, model.training)
        }
        self._outputs: list[tuple[str, Tensor]] = []
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._subtracted: list[tuple[Tensor, int]] = []
        self._used: set[int] = set()

    def called(self, name: str, x: Tensor | None, output: object) -> None:
        """Note a call of a norm or of a module of `adding` or `keeping`."""
        if x is None or not isinstance(output, Tensor):
            self.used([x])
            return
        if output is not x:
            self._used.discard(id(output))  # of an earlier tensor with this id
        if name in self.adding:
            self._outputs.append((name, output))
        elif name in self.keeping:
            if output is not x:
                self._kept.append((x, output))
        elif name in self.subtracting and x.dim() > 1:
            axis = self.subtracting[name].channel_axis
            self._subtracted.append((x, axis % x.dim()))
        else:
            self.used([x])

    def used(self, tensors: Iterable[object]) -> None:
        """Note tensors that something else uses, or that the network returns."""
        self._used |= {id(x) for x in tensors if isinstance(x, Tensor)}

    def redundant(self) -> list[str]:
        """Return the names of layers of which all outputs are only subtracted."""
        used = set(self._used)
        axes: dict[int, set[int]] = {}  # the axes of which the mean is subtracted
        for x, axis in self._subtracted:
            axes.setdefault(id(x), set()).add(axis)
        for x, y in reversed(self._kept):
            if id(y) in used or id(y) not in axes:
                used.add(id(x))
            axes.setdefault(id(x), set()).update(axes.get(id(y), ()))
        effective = {
            name
            for name, y in self._outputs
            if id(y) in used or axes.get(id(y)) != {_axis(self.adding[name], y)}
        }
        return [n for n in dict(self._outputs) if n not in effective]


def _adds_bias(module: nn.Module) -> bool:
    """Return whether a module is a convolution or linear layer of torch with a bias."""
    has_bias = isinstance(getattr(module, "bias", None), nn.Parameter)
    return type(module).forward in _FORWARDS and has_bias


def _axis(module: nn.Module, output: Tensor) -> int:
    """Return the axis of an output to which the bias is added."""
    return output.dim() - 1 if isinstance(module, nn.Linear) else 1


def _keeps_constants(module: nn.Module, training: bool) -> bool:
    """Return whether a module keeps a constant of each channel in training."""
    if not type(module).__module__.startswith("torch.nn.modules."):
        return False  # a subclass may do more
    if isinstance(module, _DropoutNd):
        return module.p == 0 or (training and not module.training)
    if isinstance(module, _AvgPoolNd):
        return not module.count_include_pad or module.padding in _NO_PADDING
    return isinstance(module, _KEEP_CONSTANTS)


_NO_PADDING = (0, (0,), (0, 0), (0, 0, 0))


def _subtracts_means(module: nn.Module, layer: Layer, training: bool) -> bool:
    """Return whether a norm subtracts the mean of each single channel in training.

    A BatchNorm in evaluation mode in a network in training mode does not.
    """
    if layer.kind == "group":
        return getattr(module, "num_groups", None) == layer.channels
    if layer.kind == "instance" and not layer.difference:
        return True
    kinds = ("batch", "batch_masked", "instance")
    return layer.kind in kinds and (module.training or not training)
