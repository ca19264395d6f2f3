"""Probes: on cases with known answers, and in runs, which they do not change."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.config.composition import compose
from normbench.errors import RequestError
from normbench.norms.base import make, names
from normbench.norms.ghost import Ghost
from normbench.probes.base import Trained
from normbench.probes.discrepancy import discrepancy
from normbench.probes.pad_statistics import pad_statistics
from normbench.probes.regrouped import _regroup, regrouped
from normbench.probes.statistic_noise import statistic_noise
from normbench.probes.style_leakage import rotation, style_leakage
from tests.conftest import SMALL, Run

CHANNELS = 32


def trained(
    norm: nn.Module, *inputs: Tensor, batch: int, norm_batch: int | None = None
) -> Trained:
    """A network that is `norm` alone, trained on `inputs` (N, ...) in this order."""
    task: Any = SimpleNamespace(
        training_inputs=lambda index: tuple(i[index] for i in inputs)
    )
    batches = torch.arange(len(inputs[0])).split(batch)
    return Trained(task, norm, [norm], batches, norm_batch or batch)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm_batch", [1, 4])
@pytest.mark.parametrize("name", ["layer_position", "none"])
def test_the_noise_of_independent_values_is_that_of_their_number(
    name: str, norm_batch: int
) -> None:
    x = 3 + 10 * normal(256, CHANNELS, 25)
    found = statistic_noise(
        trained(make(name, CHANNELS), x, batch=8, norm_batch=norm_batch)
    )
    n = norm_batch * 25
    # 64 batches of 32 channels: the standard error of a deviation is 1.6 %.
    assert found["mean_noise"] == pytest.approx(1 / math.sqrt(n), rel=0.06)
    assert found["std_noise"] == pytest.approx(1 / math.sqrt(2 * (n - 1)), rel=0.06)
    assert found["effective_samples"] == pytest.approx(n, rel=0.12)


def test_positions_that_are_alike_count_once() -> None:
    x = normal(256, CHANNELS, 1).expand(-1, -1, 25)
    found = statistic_noise(trained(make("none", CHANNELS), x, batch=4))
    assert found["effective_samples"] == pytest.approx(4, rel=0.12)


def test_noise_leaves_pads_out() -> None:
    x = normal(64, CHANNELS, 6)
    mask = torch.arange(6) < torch.arange(64)[:, None] % 4 + 2
    norm = make("batch", CHANNELS)
    zeroed, large = (
        statistic_noise(
            trained(norm, torch.where(mask[:, None], x, pad), mask, batch=4)
        )
        for pad in (0.0, 1e4)
    )
    assert zeroed == large
    assert zeroed["effective_samples"] == pytest.approx(14, rel=0.25)


def test_one_value_has_no_deviation_and_one_batch_no_spread() -> None:
    norm = make("none", CHANNELS)
    single = statistic_noise(trained(norm, normal(64, CHANNELS, 1), batch=1))
    assert single["mean_noise"] == pytest.approx(1, rel=0.1)
    assert math.isnan(single["std_noise"])
    once = statistic_noise(trained(norm, normal(4, CHANNELS, 9), batch=4))
    assert all(math.isnan(value) for value in once.values())


def test_noise_is_the_same_whatever_the_norm_is() -> None:
    x = normal(32, 8, 6, 6)
    condition = torch.zeros(32, dtype=torch.int64)

    class Alone(nn.Module):
        def __init__(self, norm: nn.Module) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            output: Tensor = self.norm(x, condition=condition)
            return output

    found = []
    for name in names():
        model = Alone(make(name, 8))
        model(x, condition)  # some make their parameters now
        network = trained(model, x, condition, batch=8, norm_batch=4)
        found.append(
            statistic_noise(
                Trained(network.task, model, [model.norm], network.batches, 4)
            )
        )
    assert len(found) > 20
    assert all(noise == found[0] for noise in found)


def padded() -> tuple[Tensor, Tensor]:
    """Two norm batches: half of the first are pads of value 3; the second has none."""
    first = torch.tensor([[[1.0, -1, 3, 3]], [[1, -1, 3, 3]]])
    second = torch.tensor([[[1.0, -1, 1, -1]], [[1, -1, 1, -1]]])
    mask = torch.tensor([[True, True, False, False]] * 2 + [[True] * 4] * 2)
    return torch.cat([first, second]), mask


@pytest.mark.parametrize("name", ["batch", "batch_masked", "none"])
def test_pads_move_the_statistics_as_the_law_of_total_variance_says(name: str) -> None:
    found = pad_statistics(trained(make(name, 1), *padded(), batch=2))
    variance = 0.5 * 1 + 0.25 * 3**2
    scale = math.log(variance) / 2
    assert found == pytest.approx(
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


def test_a_network_without_a_mask_has_no_pads() -> None:
    assert pad_statistics(trained(make("batch", 1), padded()[0], batch=2)) == {}


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
def test_discrepancy_takes_pads_as_the_norm_does(name: str) -> None:
    x, mask = normal(4, 1, 6), torch.arange(6).expand(4, -1) < 4
    x = torch.where(mask[:, None], x, 5.0)
    norm = make(name, 1)
    var, mean = torch.var_mean(x[:, 0][mask])
    norm.running_mean.fill_(mean)
    norm.running_var.fill_(var)
    found = discrepancy(trained(norm, x, mask, batch=4))
    if name == "batch_masked":
        assert found == pytest.approx({"mean": 0, "std": 0}, abs=1e-6)
    else:
        assert found["mean"] > 0.5


def test_discrepancy_is_of_each_ghost_batch() -> None:
    x = normal(8, 4, 5)
    norm = make("batch", 4)
    found = discrepancy(trained(Ghost(norm, 2), x, batch=8, norm_batch=2))
    parts = [torch.var_mean(part, (0, 2)) for part in x.split(2)]
    expected = [mean.abs().div((var + norm.eps).sqrt()).mean() for var, mean in parts]
    assert found["mean"] == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)


@pytest.mark.parametrize("name", names())
def test_every_norm_with_running_statistics_has_a_discrepancy(name: str) -> None:
    norm = make(name, 8)
    found = discrepancy(trained(norm, normal(8, 8, 6), batch=8))
    if not norm.differs_in_eval:
        assert found == {}
    else:
        assert found["std"] > 0
        assert ("mean" in found) == hasattr(norm, "running_mean")


def pictures(draw: Callable[[Tensor], Tensor]) -> Trained:
    """A network that gives `draw(picture)`, on 32 crops of differing colours."""
    dice = torch.Generator().manual_seed(0)
    colours = torch.rand(32, 3, 1, 1, generator=dice)
    crops = (colours + 0.2 * torch.randn(32, 3, 8, 8, generator=dice)).clamp(0, 1)

    class Network(nn.Module):
        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            assert condition.shape == x.shape[:1]
            return draw(x)

    task: Any = SimpleNamespace(
        inputs=lambda index: (crops[index], index % 2),
        splits={"test": torch.arange(32)},
    )
    return Trained(task, Network(), [], [torch.arange(4)], 4)


def test_a_network_that_returns_its_input_tells_all_of_it() -> None:
    found = style_leakage(pictures(lambda x: x))
    assert found.keys() == {"brightness", "contrast", "hue"}
    assert all(0.97 < value <= 1 for value in found.values()), found


def test_a_network_that_does_not_look_tells_nothing() -> None:
    found = style_leakage(pictures(lambda x: torch.full_like(x, 0.3)))
    assert all(abs(value) < 1e-6 for value in found.values()), found


def test_a_network_that_tells_one_thing_tells_that() -> None:
    found = style_leakage(pictures(lambda x: x.mean((1, 2, 3), True).expand_as(x)))
    assert found["brightness"] > 0.97
    assert max(found["contrast"], found["hue"]) < 0.2


def test_what_instance_normalization_removes_cannot_be_read() -> None:
    norm = make("instance", 3)
    found = style_leakage(pictures(lambda x: torch.sigmoid(norm(x))))
    assert abs(found["brightness"]) < 0.05
    assert abs(found["contrast"]) < 0.05


def test_a_rotation_of_colours_keeps_grey_and_length() -> None:
    (third,) = rotation(torch.tensor([2 * math.pi / 3]))
    red, green, blue = torch.eye(3)
    torch.testing.assert_close(third @ red, green)
    torch.testing.assert_close(third @ green, blue)
    (any_turn,) = rotation(torch.tensor([0.7]))
    torch.testing.assert_close(any_turn @ any_turn.T, torch.eye(3))
    torch.testing.assert_close(any_turn @ torch.ones(3), torch.ones(3))


def test_regrouping_permutes_the_groups_and_nothing_else() -> None:
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
    """`norm` on 8 channels, as the logits of 8 classes; the norm's groups are right."""
    dice = torch.Generator().manual_seed(0)
    x, labels = torch.randn(64, 8, 4, generator=dice), torch.randint(8, (64,))

    def evaluate(model: nn.Module, split: str, batch_size: int) -> dict[str, float]:
        assert split == "test"
        logits = model(x).square().mean(2)
        loss = F.cross_entropy(logits, labels).item()
        error = (logits.argmax(1) != labels).double().mean().item()
        return {"loss": loss, "error": error}

    task: Any = SimpleNamespace(evaluate=evaluate, primary_metric="error")
    return Trained(task, norm, [norm], [torch.arange(8)], 8)


@pytest.mark.parametrize("name", ["group", "group_permuted"])
def test_only_groups_that_can_differ_make_a_difference(name: str) -> None:
    for num_groups in (1, 8):
        found = regrouped(classifier(make(name, 8, num_groups=num_groups)))
        assert found == pytest.approx(
            {"error_increase": 0, "loss_increase": 0}, abs=1e-6
        )
    found = regrouped(classifier(make(name, 8, num_groups=2)))
    assert abs(found["loss_increase"]) > 1e-4


def test_a_norm_without_groups_has_nothing_to_regroup() -> None:
    assert regrouped(classifier(make("instance", 8))) == {}


ALL = {
    "cnn": ["statistic_noise", "discrepancy", "regrouped"],
    "transformer": ["statistic_noise", "discrepancy", "pad_statistics"],
    "style": ["statistic_noise", "discrepancy", "style_leakage"],
}


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("task", SMALL)
def test_probes_change_no_metric_and_no_id(
    run: Run, tmp_path: Path, task: str, norm: str
) -> None:
    batch_size = 4 if task == "style" else 32
    request = [*SMALL[task], f"norm={norm}", f"batch_size={batch_size}", "norm_batch=2"]
    asked = f"probes=[{','.join(ALL[task])}]"
    plain = run(*request, results=tmp_path / "without")
    probed = run(*request, asked, results=tmp_path / "with")
    assert probed.status == "ok", probed.error
    assert probed.run_id == plain.run_id
    assert probed.metrics == plain.metrics
    assert plain.probes == {}
    found = {name.split("/")[0] for name in probed.probes}
    without = "regrouped" if norm == "batch" else "discrepancy"
    assert found == set(ALL[task]) - {without}
    assert None not in probed.probes.values()


def test_a_record_with_probes_answers_a_request_for_fewer(run: Run) -> None:
    request = [*SMALL["cnn"], "norm=batch"]
    one = run(*request, "probes=[statistic_noise]")
    both = run(*request, "probes=[statistic_noise,discrepancy]")
    assert both.probes.keys() > one.probes.keys()
    for fewer in ("[]", "[discrepancy]", "[discrepancy,statistic_noise]"):
        assert run(*request, f"probes={fewer}") == both


def test_the_probes_see_the_batches_of_training_in_their_order(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from normbench.probes.base import PROBES
    from normbench.training import loop

    seen: list[Trained] = []

    def look(trained: Trained) -> dict[str, float]:
        """Remember the network."""
        seen.append(trained)
        return {"norms": float(len(trained.norms))}

    monkeypatch.setitem(PROBES._functions, "look", look)
    monkeypatch.setitem(PROBES._data, "look", object)
    record = run(
        *SMALL["cnn"], "batch_size=8", "accumulate=2", "seed=3", "probes=[look]"
    )
    assert record.probes == {"look/norms": 9}
    (network,) = seen
    order = loop.epoch_order(network.task.splits["train"], 3, 0)
    assert {len(batch) for batch in network.batches} == {4}
    joined = torch.cat(list(network.batches))
    assert torch.equal(joined, order[: len(order) // 8 * 8])
    assert network.norm_batch == 4


@pytest.mark.parametrize(
    ("task", "probe", "says"),
    [
        ("cnn", "pad_statistics", "measures networks on Tokens; task=cnn is on Images"),
        ("transformer", "style_leakage", "Photographs; task=transformer is on Tokens"),
        ("cnn", "statistics_noise", "unknown; did you mean 'statistic_noise'"),
    ],
)
def test_a_probe_that_cannot_be_is_refused(task: str, probe: str, says: str) -> None:
    with pytest.raises(RequestError, match=f"probes={probe} .*{says}"):
        compose([f"task={task}", f"probes=[{probe}]"])
