"""The names "keep" and "layer", which a task replaces by a norm for each layer.

`task=module` replaces them: "keep" means the norm that equals the layer of the network,
"layer" means `layer_position` for a layer with the channels in the last axis and
`layer_sample` for others. Neither name is a norm by itself, so `names()` omits both.
"""

from typing import ClassVar

from pydantic import PositiveFloat

from normbench.errors import Incompatible
from normbench.norms.base import Norm

# The hash of the code of a run contains the modules that this module imports.
from normbench.norms.layers import (
    batch,
    frozen_batch,
    grn,
    group,
    instance,
    layer_position,
    layer_sample,
    layer_shape,
    local_response,
    rms,
)

NORMS_OF_LAYERS = (
    *(batch, frozen_batch, grn, group, instance, layer_position, layer_sample),
    *(layer_shape, local_response, rms),
)
"""The modules of the norms that equal layers of torch, torchvision and timm."""


class Keep(Norm, name="keep"):
    """Every layer of the user's network keeps its function and its options.

    Its layers may use other samples and may differ in evaluation. So a run measures
    everything that such norms need.
    """

    listed: ClassVar[bool] = False
    uses_other_samples = True
    differs_in_eval = True

    def __init__(self, channels: int) -> None:
        raise Incompatible(
            "norm=keep keeps the norms of a network of your own; use it with "
            "task=module, or name a norm"
        )


class Layer(Norm, name="layer"):
    """Layer normalization over the axes that are usual for the layer."""

    listed: ClassVar[bool] = False
    source = "Ba et al. 2016"

    def __init__(
        self,
        channels: int,
        *,
        eps: PositiveFloat = 1e-5,
        affine: bool = True,
        bias: bool = True,
    ) -> None:
        raise Incompatible(
            "norm=layer has two meanings, and the task chooses none; use "
            "norm=layer_sample or norm=layer_position"
        )
