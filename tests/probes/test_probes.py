"""Probes on cases with known results."""

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.norms.base import make, names
from normbench.norms.ghost import Ghost
from normbench.probes.base import Trained
from normbench.probes.discrepancy import discrepancy
from normbench.probes.pad_statistics import pad_statistics
from normbench.probes.regrouped import _regroup, regrouped
from normbench.probes.statistic_noise import statistic_noise
from normbench.probes.style_leakage import rotation, style_leakage

CHANNELS = 32
NO_OPTIMIZER: Any = None  # for probes that do not use it


def trained(
    norm: nn.Module, *inputs: Tensor, batch: int, norm_batch: int | None = None
) -> Trained:
    """Return a network of one norm, trained on `inputs` (N, ...) in this order."""
    task: Any = SimpleNamespace(
        training_inputs=lambda index: tuple(i[index] for i in inputs)
    )
    batches = torch.arange(len(inputs[0])).split(batch)
    return Trained(task, norm, [norm], batches, norm_batch or batch, NO_OPTIMIZER)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm_batch", [1, 4])
@pytest.mark.parametrize("name", ["layer_position", "none"])
def test_the_noise_of_independent_values_depends_on_their_number(
    name: str, norm_batch: int
) -> None:
    x = 3 + 10 * normal(256, CHANNELS, 25)
    noise = statistic_noise(
        trained(make(name, CHANNELS), x, batch=8, norm_batch=norm_batch)
    )
    n = norm_batch * 25
    # 64 batches of 32 channels: the relative standard error of a noise is 1.6 %.
    assert noise["mean_noise"] == pytest.approx(1 / math.sqrt(n), rel=0.06)
    assert noise["std_noise"] == pytest.approx(1 / math.sqrt(2 * (n - 1)), rel=0.06)
    assert noise["effective_samples"] == pytest.approx(n, rel=0.12)


def test_positions_with_equal_values_count_as_one_sample() -> None:
    x = normal(256, CHANNELS, 1).expand(-1, -1, 25)
    noise = statistic_noise(trained(make("none", CHANNELS), x, batch=4))
    assert noise["effective_samples"] == pytest.approx(4, rel=0.12)


def test_noise_leaves_pads_out() -> None:
    x = normal(64, CHANNELS, 6)
    mask = torch.arange(6) < torch.arange(64)[:, None] % 4 + 2
    norm = make("batch", CHANNELS)
    with_zeros, with_large_values = (
        statistic_noise(
            trained(norm, torch.where(mask[:, None], x, pad), mask, batch=4)
        )
        for pad in (0.0, 1e4)
    )
    assert with_zeros == with_large_values
    assert with_zeros["effective_samples"] == pytest.approx(14, rel=0.25)


def test_noise_is_nan_with_one_value_per_batch_or_with_one_batch() -> None:
    norm = make("none", CHANNELS)
    single_values = statistic_noise(trained(norm, normal(64, CHANNELS, 1), batch=1))
    assert single_values["mean_noise"] == pytest.approx(1, rel=0.1)
    assert math.isnan(single_values["std_noise"])
    single_batch = statistic_noise(trained(norm, normal(4, CHANNELS, 9), batch=4))
    assert all(math.isnan(value) for value in single_batch.values())


def test_noise_does_not_depend_on_the_norm() -> None:
    x = normal(32, 8, 6, 6)
    condition = torch.zeros(32, dtype=torch.int64)

    class OneNorm(nn.Module):
        def __init__(self, norm: nn.Module) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            output: Tensor = self.norm(x, condition=condition)
            return output

    noises = []
    for name in names():
        model = OneNorm(make(name, 8))
        model(x, condition)  # some norms make their parameters in the first pass
        network = trained(model, x, condition, batch=8, norm_batch=4)
        noises.append(statistic_noise(replace(network, norms=[model.norm])))
    assert len(noises) > 20
    assert all(noise == noises[0] for noise in noises)


def padded() -> tuple[Tensor, Tensor]:
    """Return values and mask of two norm batches: only the first has pads (value 3)."""
    first = torch.tensor([[[1.0, -1, 3, 3]], [[1, -1, 3, 3]]])
    second = torch.tensor([[[1.0, -1, 1, -1]], [[1, -1, 1, -1]]])
    mask = torch.tensor([[True, True, False, False]] * 2 + [[True] * 4] * 2)
    return torch.cat([first, second]), mask


@pytest.mark.parametrize("name", ["batch", "batch_masked", "none"])
def test_pads_change_the_statistics_by_the_law_of_total_variance(name: str) -> None:
    variance = 0.5 * 1 + 0.25 * 3**2
    scale = math.log(variance) / 2
    assert pad_statistics(trained(make(name, 1), *padded(), batch=2)) == pytest.approx(
        {
            "scale": scale / 2,
            "scale_spread": scale / math.sqrt(2),
            "shift": 1.5 / 2,
            "shift_spread": 1.5 / math.sqrt(2),
            "variance_share": 0.25 * 3**2 / variance / 2,
            "pad_share": 0.25,
            "pad_share_spread": 0.5 / math.sqrt(2),
        }
    )


@pytest.mark.parametrize("name", ["batch", "batch_masked", "batch_renorm"])
def test_discrepancy_is_the_distance_of_the_running_statistics(name: str) -> None:
    x = 2 + 3 * normal(8, 4, 50)
    var, mean = torch.var_mean(x, (0, 2))

    def measured(shift: float, scale: float) -> dict[str, float]:
        norm = make(name, 4)
        norm.running_mean.copy_(mean + shift * var.sqrt())
        norm.running_var.copy_(var * scale**2)
        return discrepancy(trained(norm, x, batch=8))

    assert measured(0, 1) == pytest.approx({"mean": 0, "std": 0}, abs=1e-6)
    assert measured(0.5, 1) == pytest.approx({"mean": 0.5, "std": 0}, abs=1e-5)
    assert measured(-0.5, 2) == pytest.approx({"mean": 0.5, "std": 1}, abs=1e-5)


@pytest.mark.parametrize("name", ["batch", "batch_masked"])
def test_discrepancy_includes_pads_only_if_the_norm_does(name: str) -> None:
    x, mask = normal(4, 1, 6), torch.arange(6).expand(4, -1) < 4
    x = torch.where(mask[:, None], x, 5.0)
    norm = make(name, 1)
    var, mean = torch.var_mean(x[:, 0][mask])
    norm.running_mean.fill_(mean)
    norm.running_var.fill_(var)
    measured = discrepancy(trained(norm, x, mask, batch=4))
    if name == "batch_masked":
        assert measured == pytest.approx({"mean": 0, "std": 0}, abs=1e-6)
    else:
        assert measured["mean"] > 0.5


def test_discrepancy_is_measured_per_ghost_batch() -> None:
    x = normal(8, 4, 5)
    norm = make("batch", 4)
    measured = discrepancy(trained(Ghost(norm, 2), x, batch=8, norm_batch=2))
    var, mean = torch.var_mean(x.view(4, 2, 4, 5), (1, 3))
    expected = mean.abs().div((var + norm.eps).sqrt()).mean().item()
    assert measured["mean"] == pytest.approx(expected, rel=1e-4)


def test_every_norm_with_running_statistics_has_a_discrepancy() -> None:
    for name in names():
        norm = make(name, 8)
        measured = discrepancy(trained(norm, normal(8, 8, 6), batch=8))
        if not norm.differs_in_eval:
            assert measured == {}, name
        else:
            assert measured["std"] > 0, name
            assert ("mean" in measured) == hasattr(norm, "running_mean"), name


def pictures(draw: Callable[[Tensor], Tensor]) -> Trained:
    """Return a network whose output is `draw(crops)`, with crops of 32 colours."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(32, 3, 1, 1, generator=generator)
    noise = torch.randn(32, 3, 8, 8, generator=generator)
    crops = (colours + 0.2 * noise).clamp(0, 1)

    class Network(nn.Module):
        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            assert condition.shape == x.shape[:1]
            return draw(x)

    task: Any = SimpleNamespace(
        inputs=lambda index: (crops[index], index % 2),
        splits={"test": torch.arange(32)},
    )
    return Trained(task, Network(), [], [torch.arange(4)], 4, NO_OPTIMIZER)


def test_leakage_is_one_only_for_what_the_output_contains() -> None:
    torch.manual_seed(0)
    identity = style_leakage(pictures(lambda x: x))
    assert identity.keys() == {"brightness", "contrast", "hue"}
    assert all(0.97 < r2 <= 1 for r2 in identity.values()), identity
    constant = style_leakage(pictures(lambda x: torch.full_like(x, 0.3)))
    assert all(abs(r2) < 1e-6 for r2 in constant.values()), constant
    mean = style_leakage(pictures(lambda x: x.mean((1, 2, 3), True).expand_as(x)))
    assert mean["brightness"] > 0.97
    assert max(mean["contrast"], mean["hue"]) < 0.2
    norm = make("instance", 3)
    normalized = style_leakage(pictures(lambda x: torch.sigmoid(norm(x))))
    assert abs(normalized["brightness"]) < 0.05
    assert abs(normalized["contrast"]) < 0.05


def test_a_rotation_of_colours_keeps_grey_and_length() -> None:
    third_turn, small_turn = rotation(torch.tensor([2 * math.pi / 3, 0.7]))
    red, green, blue = torch.eye(3)
    torch.testing.assert_close(third_turn @ red, green)
    torch.testing.assert_close(third_turn @ green, blue)
    torch.testing.assert_close(small_turn @ small_turn.T, torch.eye(3))
    torch.testing.assert_close(small_turn @ torch.ones(3), torch.ones(3))


def test_regrouping_changes_only_the_groups() -> None:
    x = normal(4, 8, 5)
    norm = make("group", 8, num_groups=2)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    weight, bias = (p.detach().clone() for p in (norm.weight, norm.bias))
    torch.manual_seed(1)
    order = torch.randperm(8)
    grouped = F.group_norm(x[:, order], 2, weight[order], bias[order], norm.eps)
    torch.manual_seed(1)
    _regroup(norm)
    torch.testing.assert_close(norm(x), grouped[:, order.argsort()])


def classifier(norm: nn.Module) -> Trained:
    """Return a network of one norm whose 8 channels are the logits of 8 classes."""
    x, labels = normal(64, 8, 4), torch.randint(8, (64,))

    def evaluate(model: nn.Module, index: Tensor, batch_size: int) -> dict[str, float]:
        assert index is samples["test"]
        logits = model(x).square().mean(2)
        loss = F.cross_entropy(logits, labels).item()
        error = (logits.argmax(1) != labels).double().mean().item()
        return {"loss": loss, "error": error}

    samples = {"test": torch.arange(64)}
    task: Any = SimpleNamespace(
        evaluate=evaluate,
        evaluation_samples=samples.__getitem__,
        evaluation_batch=64,
        fixed_spatial=True,
        primary_metric="error",
    )
    return Trained(task, norm, [norm], [torch.arange(8)], 8, NO_OPTIMIZER)


@pytest.mark.parametrize("name", ["group", "group_permuted"])
def test_regrouping_changes_nothing_if_all_groupings_are_equivalent(name: str) -> None:
    for num_groups in (1, 8):
        increases = regrouped(classifier(make(name, 8, num_groups=num_groups)))
        assert increases == pytest.approx(
            {"error_increase": 0, "loss_increase": 0}, abs=1e-6
        )
    increases = regrouped(classifier(make(name, 8, num_groups=2)))
    assert abs(increases["loss_increase"]) > 1e-4


def test_probes_without_a_mask_or_without_groups_return_nothing() -> None:
    assert pad_statistics(trained(make("batch", 1), padded()[0], batch=2)) == {}
    assert regrouped(classifier(make("instance", 8))) == {}
