"""The statistics a trained network can be evaluated with."""

from copy import deepcopy

import pytest
import torch
from layers_made import assert_close, running, same_state
from torch import nn
from torch.optim.swa_utils import update_bn

from normbench.norms import (
    REGISTRY,
    Norm,
    NormFactory,
    names,
    recompute_statistics,
    use_batch_statistics,
)

C = 8
every_differing_norm = pytest.mark.parametrize(
    "name", [name for name in names() if REGISTRY.get(name).differs_in_eval]
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def network(name: str, norm_batch: int) -> tuple[nn.Sequential, NormFactory]:
    """A network in evaluation mode, a few training forwards old."""
    factory = NormFactory(name, {}, norm_batch)
    model = nn.Sequential(
        nn.Conv1d(3, C, 3),
        factory(C, nn.ReLU),
        nn.Dropout(),
        nn.Conv1d(C, C, 3),
        factory(C),
    )
    for _ in range(3):
        model(torch.randn(8, 3, 9) * 3)
    return model.eval(), factory


def norms(model: nn.Module) -> list[Norm]:
    return [m for m in model.modules() if isinstance(m, Norm)]


def momenta(model: nn.Module) -> list[float]:
    return [norm.momentum for norm in norms(model)]


@every_differing_norm
def test_batch_statistics_are_those_of_training_without_dropout(name):
    model, factory = network(name, norm_batch=4)
    x = torch.randn(8, 3, 9)
    running_output = model(x)
    use_batch_statistics(factory.modules)
    y = model(x)
    model.train()
    model[2].eval()
    assert_close(y, model(x))
    assert not torch.allclose(y, running_output)
    assert_close(y, torch.cat([model(x[:4]), model(x[4:])]))


def test_norms_that_do_not_differ_are_left_alone():
    for name in ("group", "layer_position"):
        model, factory = network(name, norm_batch=4)
        before = deepcopy(model)
        use_batch_statistics(factory.modules)
        recompute_statistics(model, factory.modules, [torch.randn(8, 3, 9)])
        assert not any(module.training for module in model.modules())
        assert same_state(model, before)


@every_differing_norm
def test_recomputed_statistics_are_the_mean_over_all_chunks(name):
    for norm_batch in (8, 2):
        model, factory = network(name, norm_batch)
        batches = list(torch.randn(3, 8, 3, 9))
        chunks = []
        for chunk in torch.cat(batches).split(norm_batch):
            twin = deepcopy(model)
            for norm in norms(twin):
                norm.train()
                norm.momentum = 1.0
            twin(chunk)
            chunks.append(running(twin))

        before = momenta(model)
        recompute_statistics(model, factory.modules, batches)
        means = [torch.stack(values).mean(0) for values in zip(*chunks, strict=True)]
        assert_close(running(model), means, norm_batch)
        assert momenta(model) == before
        assert not any(module.training for module in model.modules())

        after = deepcopy(model)
        model(batches[0])
        assert same_state(model, after)


def test_recomputed_statistics_equal_torch_update_bn():
    model, factory = network("batch", norm_batch=8)
    theirs = nn.Sequential(
        nn.Conv1d(3, C, 3), nn.BatchNorm1d(C), nn.ReLU(), nn.Conv1d(C, C, 3),
        nn.BatchNorm1d(C),
    )  # fmt: skip
    for convolution in (0, 3):
        theirs[convolution].load_state_dict(model[convolution].state_dict())
    batches = list(torch.randn(4, 8, 3, 9))
    recompute_statistics(model, factory.modules, batches)
    update_bn(batches, theirs)
    assert_close(running(model), running(theirs))
    assert_close(model(batches[0]), theirs.eval()(batches[0]))


@every_differing_norm
def test_a_failed_or_empty_pass_leaves_the_norms_as_they_were(name):
    model, factory = network(name, norm_batch=8)
    before = deepcopy(model)

    def broken(batch: torch.Tensor) -> None:
        raise ValueError("no such batch")

    with pytest.raises(ValueError, match="no such batch"):
        recompute_statistics(broken, factory.modules, [torch.randn(8, 3, 9)])
    recompute_statistics(model, factory.modules, [])
    assert momenta(model) == momenta(before)
    assert not any(module.training for module in model.modules())
    assert same_state(model, before)
