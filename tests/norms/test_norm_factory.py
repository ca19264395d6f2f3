"""What a model normalizes with: the factory, the ghost batches."""

from copy import deepcopy

import pytest
import torch
from layers_made import assert_close
from torch import Tensor, nn

from normbench.errors import Incompatible, RequestError
from normbench.norms import REGISTRY, Ghost, Norm, NormFactory, make, names

C = 16
every_norm = pytest.mark.parametrize("name", names())
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


# Ghost.


@every_batch_norm
def test_ghost_of_the_whole_batch_and_in_evaluation_is_the_norm(name):
    norm = make(name, C)
    x = torch.randn(6, C, 5)
    assert torch.equal(Ghost(deepcopy(norm), 6)(x), deepcopy(norm)(x))
    norm(x)
    assert torch.equal(Ghost(deepcopy(norm), 4).eval()(x), norm.eval()(x))


def test_ghost_refuses_a_batch_it_cannot_divide():
    for samples in (2, 6):
        message = f"norm_batch=4 .* a batch of {samples}"
        with pytest.raises(RequestError, match=message):
            Ghost(make("batch", C), 4)(torch.randn(samples, C, 5))


def test_ghost_passes_conditions_on_and_means_penalties(unlisted):
    class Penalised(Norm, name="penalised"):
        # As users write it, with all names.
        def forward(
            self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
        ) -> Tensor:
            assert condition is not None
            self.penalty = x.square().mean() if self.training else None
            return x * condition[:, None]

    x, condition = torch.randn(6, C), torch.arange(6)
    for norm_batch in (2, 6):
        ghost = Ghost(make("penalised", C), norm_batch)
        assert_close(ghost(x, None, condition), x * condition[:, None])
        assert_close(ghost.norm.penalty, x.square().mean())
        assert not hasattr(ghost, "penalty")


# The factory.


@every_norm
def test_factory_leaves_the_random_stream_alone_and_remembers(name):
    factory = NormFactory(name, {}, norm_batch=2)
    before = torch.get_rng_state()
    model = nn.Sequential(factory(C), factory(2 * C, nn.ReLU))
    assert torch.equal(torch.get_rng_state(), before)
    assert [m for m in model.modules() if m in factory.modules] == factory.modules
    norms = [m for m in model.modules() if isinstance(m, Norm)]
    assert [norm.channels for norm in norms] == [C, 2 * C]
    parameters = [id(p) for norm in norms for p in norm.parameters()]
    assert [id(p) for p in factory.parameters()] == parameters
    ghosts = [isinstance(module, Ghost) for module in factory.modules]
    assert ghosts == [REGISTRY.get(name).uses_other_samples] * 2


def test_factory_hides_the_random_numbers_a_norm_draws(unlisted):
    class Random(Norm, name="random"):
        def __init__(self, channels: int) -> None:
            super().__init__(channels)
            self.weight = nn.Parameter(torch.randn(channels))

    before = torch.get_rng_state()
    NormFactory("random", {}, norm_batch=2)(C)
    assert torch.equal(torch.get_rng_state(), before)


def test_factory_adds_the_activation_unless_the_norm_has_its_own(unlisted):
    class Active(Norm, name="active"):
        contains_activation = True

        def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
            return x

    x = torch.randn(4, C)
    assert torch.equal(NormFactory("none", {}, 1)(C, nn.ReLU)(x), x.relu())
    assert torch.equal(NormFactory("none", {}, 1)(C)(x), x)
    assert torch.equal(NormFactory("active", {}, 1)(C, nn.ReLU)(x), x)


def test_factory_passes_options_and_masks_on():
    layer = NormFactory("batch_masked", {"affine": False}, 4)(C)
    assert not list(layer.parameters())
    x, mask = torch.randn(4, C, 5), (torch.arange(5) < 3).expand(4, 5)
    assert_close(layer(x, mask), make("batch_masked", C, affine=False)(x, mask))


def test_factory_refuses_what_the_norm_refuses():
    with pytest.raises(RequestError, match=r"norm\.groups is not"):
        NormFactory("group", {"groups": 8}, 1)(C)
    with pytest.raises(Incompatible, match="num_groups=8 does not divide 12"):
        NormFactory("group", {}, 1)(12)


def test_factory_refuses_fewer_affine_maps_than_conditions():
    def layer(name: str, **options: object) -> nn.Module:
        return NormFactory(name, options, 1, conditions=3)(C)

    layer("conditional_instance", conditions=3)
    layer("instance")
    with pytest.raises(Incompatible, match=r"2 affine maps, but .* 3 conditions"):
        layer("conditional_instance", conditions=2)


@every_batch_norm
def test_the_chunks_of_one_step_move_statistics_as_far_as_one(name):
    x = torch.randn(3, C, 5, dtype=torch.float64) + 2
    alone = make(name, C).double()
    alone(x)
    for forwards in (1, 4):
        factory = NormFactory(name, {}, norm_batch=3, chunks=forwards)
        layer = factory(C).double()
        layer(x.repeat(forwards, 1, 1))
        for key, buffer in alone.named_buffers():
            if buffer.is_floating_point():
                assert_close(layer.norm.get_buffer(key), buffer, (key, forwards))
