"""Ghost batches: chunks in one call equal the chunks one after another."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from layers_made import made, running, sample
from torch import Tensor

from normbench.errors import Incompatible
from normbench.norms import REGISTRY, Ghost, Norm, names

C = 8
every_batch_norm = pytest.mark.parametrize(
    "name", [name for name in names() if REGISTRY.get(name).uses_other_samples]
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def unlisted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a test define norms that no other test sees."""
    monkeypatch.setattr(REGISTRY, "_classes", dict(REGISTRY._classes))


def trained(norm: Norm, chunks: int, x: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Return all that a training forward and backward of `chunks` chunks computes.

    Here each chunk is a call of the norm, and all calls see the same count of forwards.
    """
    norm.counting = False
    x = x.detach().requires_grad_()
    masks = [None] * chunks if mask is None else mask.chunk(chunks)
    outputs, penalties = [], []
    for part, part_mask in zip(x.chunk(chunks), masks, strict=True):
        outputs.append(norm(part, part_mask))
        if norm.penalty is not None:
            penalties.append(norm.penalty)
    if penalties:
        norm.penalty = torch.stack(penalties).mean()
    return after(norm, torch.cat(outputs), x)


def in_one_call(ghost: Ghost, x: Tensor, mask: Tensor | None) -> list[Tensor]:
    x = x.detach().requires_grad_()
    return after(ghost.norm, ghost(x, mask), x)


def after(norm: Norm, y: Tensor, x: Tensor) -> list[Tensor]:
    """Return y, the penalty, the gradients and the floating-point buffers."""
    loss = (y * torch.linspace(-1, 2, y.numel()).cos().view(y.shape)).sum()
    penalties = []
    if norm.penalty is not None:
        penalties = [norm.penalty.detach()]
        loss = loss + norm.penalty
    inputs = [x, *norm.parameters()]
    gradients = torch.autograd.grad(loss, inputs, materialize_grads=True)
    return [y.detach(), *penalties, *gradients, *running(norm)]


def assert_equal(ours: list[Tensor], theirs: list[Tensor], case: object) -> None:
    torch.testing.assert_close(
        ours, theirs, rtol=1e-12, atol=1e-12, msg=lambda text: f"{case}: {text}"
    )


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
}


@every_batch_norm
@pytest.mark.parametrize("forwards", [0, 100])
def test_one_call_equals_the_chunks_one_after_another(name, forwards):
    """Before the warm-up of norms that have one, and in the middle of it."""
    for norm_batch, spatial in [(1, (3,)), (2, (2, 3)), (2, (5,)), (3, ()), (4, (3,))]:
        x = sample(12, C, *spatial)
        norm = made(name, x.shape)
        if hasattr(norm, "num_batches_tracked"):
            norm.num_batches_tracked.fill_(forwards)
        masks = [None]
        if spatial and norm.honours_mask:  # two real positions in every chunk
            masks.append(torch.rand(12, *spatial) < 0.6)
            masks[1].view(12, -1)[:, :2] = True
        for layout, change in CHANGES.items():
            for mask in masks:
                case = (norm_batch, spatial, layout, mask is not None)
                ghost, alone = Ghost(deepcopy(norm), norm_batch), deepcopy(norm)
                try:
                    theirs = trained(alone, 12 // norm_batch, change(x), mask)
                except Incompatible:
                    with pytest.raises(Incompatible):
                        ghost(change(x), mask)
                    assert len(spatial) == 0, case
                    continue
                ours = in_one_call(ghost, change(x), mask)
                assert_equal(ours, theirs, case)
                assert ghost.norm.num_batches_tracked == forwards + 1
                assert ghost.norm.chunks == 1
