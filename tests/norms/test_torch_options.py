"""The options that torch's layers have: momentum=None, track_running_stats, bias."""

from copy import deepcopy

import pytest
import torch
from layers_made import assert_close, assert_same_buffers, made, results, sample
from records_made import A_RECORD
from torch import Tensor, nn

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.config.schema import RunConfig
from normbench.norms import (
    Ghost,
    Norm,
    NormFactory,
    make,
    recompute_statistics,
    use_batch_statistics,
)
from normbench.records.query import mixtures
from normbench.training.evaluation import differs_in_eval

C = 8
BATCH = ("batch", "batch_masked")
CUMULATIVE = (
    *BATCH,
    *("batch_group", "batch_instance", "extended_batch"),
    *("evonorm_b0", "ibn", "switchable"),
)
OPTIONS = (
    {"momentum": None},
    {"track_running_stats": False},
    {"momentum": None, "track_running_stats": False},
    {"momentum": 0.3, "affine": False},
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def pair(
    name: str, shape: tuple[int, ...], **options: object
) -> tuple[Norm, nn.Module]:
    """A norm and torch's layer with the same options, both in float64."""
    cls = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    return make(name, C, dtype=torch.float64, **options), cls(C, **options).double()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", BATCH)
def test_batch_equals_torch_over_several_steps(name: str, options: dict) -> None:
    for shape in ((5, C), (5, C, 7), (4, C, 3, 5)):
        ours, theirs = pair(name, shape, **options)
        for step in range(5):
            if step == 3:  # the state goes both ways, and training continues
                other, twin = pair(name, shape, **options)
                other.load_state_dict(theirs.state_dict())
                twin.load_state_dict(ours.state_dict())
                ours, theirs = other, twin
            x = sample(*shape)
            assert_close(results(ours, x), results(theirs, x), (shape, step))
            assert_same_buffers(ours, theirs)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        x = sample(*shape)
        ours.eval(), theirs.eval()
        assert_close(results(ours, x), results(theirs, x), shape)
        assert ours.differs_in_eval == options.get("track_running_stats", True)


@pytest.mark.parametrize("layout", ["contiguous", "tokens"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", BATCH)
def test_ghost_chunks_equal_torch_on_each_chunk(
    name: str, options: dict, layout: str
) -> None:
    ours, theirs = pair(name, (4, C, 7), **options)
    ghost = Ghost(ours, 2)
    for samples in (6, 2, 8, 4):
        x = sample(samples, C, 7)
        if layout == "tokens":
            x = x.transpose(1, 2).contiguous().transpose(1, 2)
        expected = torch.cat([theirs(part) for part in x.split(2)])
        assert_close(ghost(x), expected)
        if options.get("momentum", 0.1) is not None and ours.differs_in_eval:
            theirs.num_batches_tracked.copy_(ours.num_batches_tracked)  # once a batch
        assert_same_buffers(ours, theirs)
    x = sample(5, C, 7)
    assert_close(ghost.eval()(x), theirs.eval()(x))


def as_calls(norm: Norm, x: Tensor, mask: Tensor) -> Tensor:
    calls = [norm(x[i : i + 2], mask[i : i + 2]) for i in range(0, len(x), 2)]
    return torch.cat(calls)


@pytest.mark.parametrize("name", CUMULATIVE)
def test_a_cumulative_average_weighs_all_norm_batches_alike(name: str) -> None:
    x, mask = sample(8, C, 5), torch.ones(8, 5, dtype=torch.bool)
    mask[:, 3:] = False
    for loop in (False, True):
        ours = Ghost(made(name, x.shape, momentum=None), 2)
        alone = deepcopy(ours.norm)
        last = deepcopy(ours.norm)
        last.momentum = 1.0
        ours.norm.one_call = not loop
        means = []
        for _ in range(2):
            assert_close(ours(x, mask), as_calls(alone, x, mask), loop)
        for part in x.split(2):
            last(part, mask[:2])
            means.append([b.clone() for b in last.buffers() if b.is_floating_point()])
        mean = [torch.stack(each).mean(0) for each in zip(*means, strict=True)]
        for norm in (ours.norm, alone):
            assert norm.num_batches_tracked == 8
            assert_close([b for b in norm.buffers() if b.is_floating_point()], mean)


def test_a_norm_batch_without_statistics_has_no_weight_in_the_average() -> None:
    """Where the count of real positions is not checked, as on a GPU."""
    norm = made("batch_masked", (4, C, 5), momentum=None)
    mean = torch.ones(2, C, dtype=torch.float64)
    norm.chunks = 2
    norm.average(torch.tensor([[1], [3]]), running_mean=mean, running_var=2 * mean)
    assert norm.num_batches_tracked == 1
    assert norm.running_mean.eq(1).all() and norm.running_var.eq(2).all()
    norm.chunks = 1
    norm.average(torch.tensor(1), running_mean=9 * mean[0], running_var=mean[0])
    assert norm.num_batches_tracked == 1 and norm.running_mean.eq(1).all()


def test_the_factory_does_not_scale_a_cumulative_average() -> None:
    factory = NormFactory("batch", {"momentum": None}, 2, forwards_per_step=2, chunks=3)
    factory(C)
    (ghost,) = factory.modules
    assert ghost.norm.momentum is None


def test_recomputed_statistics_keep_the_cumulative_average() -> None:
    factory = NormFactory("batch", {"momentum": None}, norm_batch=2)
    model, x = factory(C).double(), sample(6, C, 5)
    model(x)
    theirs = nn.BatchNorm1d(C, momentum=None).double()
    recompute_statistics(model, factory.modules, x.split(2))
    for part in x.split(2):
        theirs(part)
    norm = factory.modules[0].norm
    assert norm.momentum is None and not norm.training
    assert_close(model(x), theirs.eval()(x))
    use_batch_statistics(factory.modules)
    tracked = norm.num_batches_tracked.clone()
    model(x)
    assert norm.num_batches_tracked == tracked


def test_without_running_statistics_a_mask_counts_in_evaluation() -> None:
    norm = make("batch_masked", C, track_running_stats=False, dtype=torch.float64)
    x, mask = sample(3, C, 5), torch.arange(5).expand(3, 5) < 3
    y = norm.eval()(x, mask)
    rows = nn.BatchNorm1d(C).double()(x.movedim(1, -1)[mask])
    assert_close(y.movedim(1, -1)[mask], rows)
    assert not list(norm.buffers()) and not norm.state_dict().keys() - {
        "weight",
        "bias",
    }


def test_layer_norm_has_a_gain_without_a_bias() -> None:
    ours = make("layer_position", C, bias=False)
    theirs = nn.LayerNorm(C, bias=False)
    nn.init.uniform_(theirs.weight)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, C, 5)
    assert_close(ours(x), theirs(x.movedim(1, -1)).movedim(-1, 1))
    whole = make("layer_sample", C, bias=False)
    group = nn.GroupNorm(1, C)
    group.load_state_dict(whole.state_dict(), strict=False)
    assert_close(whole(x), group(x))
    assert set(whole.state_dict()) == {"weight"}


def test_rms_with_a_unit_offset_is_rms_and_starts_at_zero() -> None:
    ours, plain = make("rms", C, unit_offset=True), make("rms", C)
    assert ours.weight.eq(0).all()
    x = torch.randn(3, C, 5)
    assert torch.equal(ours(x), plain(x))
    nn.init.uniform_(ours.weight)
    plain.weight.data.copy_(1 + ours.weight)
    assert torch.equal(ours(x), plain(x))
    assert make("rms", C, unit_offset=True, affine=False)(x).isfinite().all()


# From the command line, and in records.


@pytest.mark.parametrize(
    ("overrides", "option"),
    [
        (["task=cnn", "norm=batch"], "norm.track_running_stats=true"),
        (["task=cnn", "norm=batch"], "norm.momentum=0.1"),
        (["task=transformer", "norm=layer"], "norm.bias=true"),
        (["task=cnn", "norm=layer"], "norm.bias=true"),
        (["task=cnn", "norm=rms"], "norm.unit_offset=false"),
    ],
)
def test_a_default_keeps_the_id_of_older_runs(overrides: list, option: str) -> None:
    plain = run_id(compose(overrides))
    assert plain == run_id(compose([*overrides, option]))
    key, value = option.split("=")
    other = {"true": "false", "false": "true", "0.1": "null"}[value]
    assert plain != run_id(compose([*overrides, f"{key}={other}"]))


def test_an_older_record_of_layer_norm_has_a_bias() -> None:
    now = compose(["task=transformer", "norm=layer"])
    values = now.model_dump()
    del values["norm"]["bias"]
    config = RunConfig.model_validate(values)
    older, newer = (A_RECORD.model_copy(update={"config": c}) for c in (config, now))
    assert run_id(config) == run_id(now)
    assert mixtures([older, newer], ["norm"]) == []


def test_the_evaluator_knows_that_untracked_norms_do_not_differ() -> None:
    tracked = compose(["norm=batch", "norm.momentum=null"])
    assert tracked.norm.options["momentum"] is None
    assert differs_in_eval(tracked)
    assert not differs_in_eval(
        compose(["norm=batch", "norm.track_running_stats=false"])
    )
    assert not differs_in_eval(compose(["norm=group"]))
