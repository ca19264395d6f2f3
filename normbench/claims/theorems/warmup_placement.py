"""Check which placements of a norm leave a path around every sublayer."""

from typing import get_args

import torch
from torch import Tensor, nn

from normbench.claims.theorems.base import Finding, difference, finding, theorem
from normbench.claims.theorems.networks import built, small, with_norm
from normbench.tasks.networks.transformer import Encoder, EncoderLayer, NormPosition

DEPTH = 6
NORMS = ("layer_position", "rms")


@theorem("path-around-sublayers")
def path_around_sublayers() -> Finding:
    """With sublayers that return 0, the layers are the identity unless they are post.

    The Transformer has six layers in float64. Its sublayers return 0, since the weights
    and biases of their last maps are 0. Then pre, peri and res_post return the hidden
    states, and their gradient, unchanged. In the control, post, norms change both.
    """
    deviations: dict[str, float] = {}
    controls: dict[str, float] = {}
    for position in get_args(NormPosition):
        figures = controls if position == "post" else deviations
        for norm in NORMS:
            changes = _changes_by_layers(position, norm)
            for quantity, change in changes.items():
                figures[f"{quantity}, {norm}, {position}"] = change
    return finding(
        deviations,
        controls,
        "with pre, peri and res_post six layers change hidden states and gradients by "
        "{deviation:.1g} at most, with post by {control:.2g} at least ({weakest})",
    )


def _changes_by_layers(position: NormPosition, norm: str) -> dict[str, float]:
    """Return by how much layers with empty sublayers change states and gradients."""
    config = small(
        "transformer", f"task.depth={DEPTH}", f"task.norm_position={position}"
    )
    task, network = built(with_norm(config, norm), torch.float64)
    encoder = network.model
    assert isinstance(encoder, Encoder)
    tokens, mask = task.inputs(task.splits["train"][:4])
    states = encoder.token(tokens).detach().requires_grad_()
    direction = torch.randn_like(states)
    after: Tensor = states
    for layer in encoder.layers:
        assert isinstance(layer, EncoderLayer)
        for last in (layer.attention_out, layer.feed_forward[-1]):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        after = layer(after, mask)
    (gradient,) = torch.autograd.grad((after * direction).sum(), states)
    return {
        "states": difference(after.detach(), states.detach()),
        "gradients": difference(gradient, direction),
    }
