"""Ghost batches: chunks in one call equal the chunks one after another."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from layers_made import made, running, sample
from torch import Tensor

from normbench.errors import Incompatible
from normbench.norms import (
    REGISTRY,
    Ghost,
    Norm,
    NormFactory,
    make,
    names,
    recompute_statistics,
    use_batch_statistics,
)
from normbench.norms.layers.batch import BatchNorm
from normbench.norms.statistics import BatchStatistics, batch_moments

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


@every_batch_norm
def test_a_constant_channel_and_one_sample_per_chunk(name):
    x = torch.ones(4, C, 3, dtype=torch.float64)
    norm = made(name, x.shape)
    theirs = trained(deepcopy(norm), 4, x, None)
    assert_equal(in_one_call(Ghost(norm, 1), x, None), theirs, name)


@every_batch_norm
def test_at_momentum_one_the_last_chunk_stays(name):
    x = sample(6, C, 5)
    norm = made(name, x.shape)
    norm.momentum = 1.0
    theirs = trained(deepcopy(norm), 3, x, None)
    assert_equal(in_one_call(Ghost(norm, 2), x, None), theirs, name)


@every_batch_norm
def test_a_ghost_on_16_bit_inputs_and_on_the_meta_device(name):
    norm, x = make(name, C), sample(6, C, 5).float()
    y = Ghost(deepcopy(norm), 2)(x.bfloat16())
    expected = Ghost(deepcopy(norm), 2)(x.bfloat16().float())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected.bfloat16())
    narrow = Ghost(deepcopy(norm).bfloat16(), 2)(x.bfloat16())
    torch.testing.assert_close(narrow.float(), expected, rtol=0.1, atol=0.1)
    with torch.device("meta"):
        mask = torch.ones(6, 5, dtype=torch.bool)
        y = Ghost(make(name, C), 2)(torch.randn(6, C, 5), mask)
    assert y.shape == (6, C, 5) and y.is_meta


MASKED = [name for name in names() if REGISTRY.get(name).honours_mask]
MASKED = [name for name in MASKED if REGISTRY.get(name).uses_other_samples]


@pytest.mark.parametrize("name", MASKED)
def test_a_chunk_with_one_real_position_is_refused_on_a_cpu(name):
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[2:4] = torch.arange(10).view(2, 5) < 1
    with pytest.raises(Incompatible, match=r"a mask of shape \(2, 5\) has 1;"):
        Ghost(make(name, C), 2)(torch.randn(6, C, 5), mask)


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("equal_weights", [False, True])
def test_elsewhere_such_a_chunk_leaves_the_running_statistics(
    name, equal_weights, monkeypatch
):
    """What a device other than the CPU does."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    x, mask = sample(6, C, 5), torch.rand(6, 5) < 0.6
    mask[0] = mask[4] = True
    mask[2:4] = torch.arange(10).view(2, 5) < 1
    norm, whole = made(name, x.shape), torch.tensor([0, 1, 4, 5])
    norm.equal_weights = equal_weights
    without = deepcopy(norm)
    ghost = Ghost(norm, 2)
    y, *gradients = in_one_call(ghost, x, mask)[: 2 + len(list(norm.parameters()))]
    assert all(t.isfinite().all() for t in (y, *gradients))
    Ghost(without, 2)(x[whole], mask[whole])
    buffers = [name for name, _ in norm.named_buffers() if name.startswith("running")]
    for buffer in buffers:
        ours, theirs = norm.get_buffer(buffer), without.get_buffer(buffer)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


# Norms that are called once per chunk.


class Plain(BatchStatistics, name=""):
    """As users write it: without a word about chunks."""

    name = "plain"

    def forward(self, x: Tensor, mask: Tensor | None = None, *_: object) -> Tensor:
        if not self.training:
            return self.batch_norm(x, self.weight, self.bias)
        count = self.count(x, mask)
        mean, var = batch_moments(x, mask, count)
        self.update(mean, var, count)
        return self.standardize(x, mean, var, self.weight, self.bias)


def test_a_norm_in_a_loop_equals_one_in_one_call():
    x = sample(6, C, 5)
    for mask in (None, torch.arange(5).expand(6, 5) < 3):
        plain, batch = Plain(C).double(), make("batch_masked", C).double()
        theirs = in_one_call(Ghost(batch, 2), x, mask)
        assert_equal(in_one_call(Ghost(plain, 2), x, mask), theirs, mask)
        assert plain.num_batches_tracked == batch.num_batches_tracked == 1
        assert plain.counting


def test_recomputed_statistics_are_the_same_in_a_loop():
    ghosts = [Ghost(norm.double(), 2) for norm in (Plain(C), make("batch", C))]
    batches = sample(12, C, 5).split(6)
    for ghost in ghosts:
        recompute_statistics(ghost, [ghost], batches)
    assert_equal(*(running(ghost) for ghost in ghosts), "")


def test_a_subclass_with_a_forward_of_its_own_says_anew_that_it_knows_chunks(unlisted):
    class Silent(BatchNorm, name="silent"):
        def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
            return x - x.mean((0, 2), keepdim=True)

    class Renamed(BatchNorm, name="renamed"):
        source = "nobody 2026"

    assert Renamed.one_call and not Silent.one_call
    x = sample(6, C, 5)
    apart = torch.cat([Silent(C)(chunk) for chunk in x.split(2)])
    assert_equal([Ghost(Silent(C), 2)(x)], [apart], "")


# Counts.


@pytest.mark.parametrize("name", ["batch_renorm", "power"])
def test_a_warm_up_lasts_optimizer_steps(name):
    """Not micro-batches, and not norm batches."""
    factory = NormFactory(name, {"warmup_steps": 3}, 2, forwards_per_step=2, chunks=3)
    layer = factory(C)
    assert isinstance(layer, Ghost)
    reference = "batch" if name == "batch_renorm" else None
    for step in range(5):
        for _ in range(2):
            x = torch.randn(6, C, 5) * 3 + 1
            norm = layer.norm
            if reference:
                expected = Ghost(make("batch", C), 2)(x)
            else:
                squares = x.view(3, 2, C, 5).square().mean((1, 3)) + norm.eps
                expected = x / squares.sqrt().repeat_interleave(2, 0)[..., None]
            same = torch.allclose(layer(x), expected, atol=1e-4)
            assert same == (step < 3), step
    assert layer.norm.num_batches_tracked == 10


# Evaluation with other statistics.


@every_batch_norm
def test_other_statistics_do_not_depend_on_the_chunks_of_a_forward(name):
    factory = NormFactory(name, {}, norm_batch=2, chunks=4)
    layer = factory(C)
    for _ in range(3):
        layer(torch.randn(8, C, 5) * 2)
    layer.norm.num_batches_tracked.fill_(100)  # in the middle of a warm-up
    x = sample(16, C, 5).float()
    recomputed, outputs = [], []
    for size in (2, 4, 16):
        twin = deepcopy(layer).eval()
        recompute_statistics(twin, [twin], x.split(size))
        assert not twin.norm.equal_weights
        recomputed.append(running(twin))
        twin = deepcopy(layer).eval()
        use_batch_statistics([twin])
        outputs.append(torch.cat([twin(batch) for batch in x.split(size)]))
        assert twin.norm.num_batches_tracked == 100
    for other in (1, 2):
        torch.testing.assert_close(recomputed[other], recomputed[0])
        torch.testing.assert_close(outputs[other], outputs[0], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, about its own code
@every_batch_norm
def test_compiled_a_ghost_computes_the_same(name):
    x = sample(6, C, 5)
    masks = [None]
    if REGISTRY.get(name).honours_mask:
        masks.append(torch.arange(5).expand(6, 5) < 3)
    for mask in masks:
        ghost = Ghost(made(name, x.shape), 2)
        ghost.norm.num_batches_tracked.fill_(100)
        twin = deepcopy(ghost)
        torch._dynamo.reset()
        compiled = torch.compile(ghost)
        for _ in range(2):
            leaf = x.detach().requires_grad_()
            ours = after(ghost.norm, compiled(leaf, mask), leaf)
            theirs = in_one_call(twin, x, mask)
            torch.testing.assert_close(ours, theirs)
