"""Check what an evaluation with statistics of other weights depends on."""

import torch
from torch import Tensor

from normbench.claims.theorems.base import Finding, difference, finding, theorem
from normbench.claims.theorems.networks import built, fitted, small, with_norm
from normbench.config.schema import RunConfig
from normbench.training.decay import scale_invariant_weights

STEPS = 5


@theorem("scale-in-evaluation")
def scale_in_evaluation() -> Finding:
    """Shorter weights change batch unless it gets new statistics, and never group.

    An average of weights that differ is shorter than they are. The CNN is trained for 5
    steps in float64, and then all convolutions that a norm follows are multiplied by
    0.8. The logits stay the same with group, and with batch if its statistics are those
    of the new weights (here those of the batch). The controls are batch with the
    running statistics of the old weights, and the affine map without a norm; eps is
    1e-18.
    """
    batch, group, affine = (
        with_norm(small("cnn", "lr=0.05"), name, **options)
        for name, options in (
            ("batch", {"eps": 1e-18}),
            ("group", {"eps": 1e-18}),
            ("affine", {}),
        )
    )
    return finding(
        {
            "group": _change(group, in_training=False),
            "batch, new statistics": _change(batch, in_training=True),
        },
        {
            "batch, old statistics": _change(batch, in_training=False),
            "affine": _change(affine, in_training=False),
        },
        "the logits move by {deviation:.1g} at most ({worst}), and in the controls by "
        "{control:.2g} at least ({weakest})",
    )


def _change(config: RunConfig, *, in_training: bool) -> float:
    """Return the change of the logits when the convolutions become shorter.

    With `in_training`, the norms use the statistics of the batch.
    """
    task, network = built(config, torch.float64)
    fitted(config, task, network, STEPS)
    model = network.model.train(in_training)
    inputs = task.inputs(task.splits["train"][:16])
    with torch.no_grad():
        before: Tensor = model(*inputs)
        for weight in scale_invariant_weights(model):
            weight.mul_(0.8)
        return difference(model(*inputs), before)
