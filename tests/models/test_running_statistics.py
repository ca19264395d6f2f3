"""Running statistics of a user's network: recomputed, compared and evaluated."""

import copy

import pytest
import torch
from networks_made import UNet
from torch import nn
from torch.optim.swa_utils import update_bn

import normbench
from normbench.errors import RequestError
from normbench.models.statistics import evaluate, gaps

GENERATOR = torch.Generator().manual_seed(3)
IMAGES = [torch.randn(8, 3, 16, 16, generator=GENERATOR) * 2 + 1 for _ in range(4)]
LABELLED = [(x, torch.arange(8) % 4) for x in IMAGES]


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(1568, 4),
    )


def test_recalibrate_equals_update_bn_of_torch_and_keeps_the_momentum() -> None:
    ours, theirs = UNet(), UNet()
    theirs.load_state_dict(ours.state_dict())
    ours.eval()
    normbench.recalibrate(ours, IMAGES)
    update_bn(IMAGES, theirs)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)
    assert not ours.training and ours.down[1].momentum == 0.1


def test_recalibrate_treats_swapped_norms_as_those_of_torch() -> None:
    model = UNet()
    swapped = normbench.swap(model, "keep", in_place=False).model
    normbench.recalibrate(model, IMAGES)
    normbench.recalibrate(swapped, IMAGES)
    for key, value in model.state_dict().items():
        if "running" in key:
            torch.testing.assert_close(swapped.state_dict()[key], value)


def test_recalibrate_without_batches_changes_nothing() -> None:
    model = UNet()
    normbench.recalibrate(model, IMAGES)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RequestError, match="at least one batch"):
        normbench.recalibrate(model, [])
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())


def test_recalibrate_takes_the_first_part_of_a_batch_as_torch_does() -> None:
    alone, paired = UNet(), UNet()
    paired.load_state_dict(alone.state_dict())
    normbench.recalibrate(alone, IMAGES)
    normbench.recalibrate(paired, [[x, torch.rand(8)] for x in IMAGES])
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(paired.state_dict()[key], value)


def test_a_batch_that_fails_leaves_the_running_statistics() -> None:
    model = UNet()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError):
        normbench.recalibrate(model, [IMAGES[0], IMAGES[0][:, :1]])
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    assert model.training


def test_a_gap_closes_when_the_statistics_are_recomputed() -> None:
    model = classifier()
    (before,) = gaps(model, IMAGES)
    assert before.layer == "1" and before.mean > 0.2 and before.std > 0.1
    normbench.recalibrate(model, IMAGES)
    (after,) = gaps(model, IMAGES)
    assert after.mean < 0.05 and after.std < 0.05
    # By hand, for the first batch alone.
    norm, x = model[1], model[0](IMAGES[0]).detach().double()
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    expected = (norm.running_mean.double() - mean).abs() / (var + norm.eps).sqrt()
    assert gaps(model, IMAGES[:1])[0].mean == pytest.approx(float(expected.mean()))


def test_evaluations_use_three_kinds_of_statistics() -> None:
    model = classifier()
    result = evaluate(model, LABELLED)
    assert result is not None and result.samples == 32
    recalibrated = copy.deepcopy(model)
    normbench.recalibrate(recalibrated, IMAGES)
    for network, kind in ((model, "running"), (recalibrated, "recomputed")):
        with torch.no_grad():
            logits = torch.cat([network.eval()(x) for x in IMAGES])
        target = torch.cat([target for _, target in LABELLED])
        loss = nn.functional.cross_entropy(logits, target)
        error = (logits.argmax(1) != target).float().mean()
        assert result.loss[kind] == pytest.approx(float(loss), rel=1e-4)
        assert result.error[kind] == pytest.approx(float(error))
    with torch.no_grad():
        model.eval()[1].train()
        logits = torch.cat([model(x) for x in IMAGES])
    loss = nn.functional.cross_entropy(logits, target)
    assert result.loss["batch"] == pytest.approx(float(loss), rel=1e-4)


def test_data_without_targets_have_no_evaluations_and_others_are_refused() -> None:
    assert evaluate(classifier(), IMAGES) is None
    assert evaluate(classifier(), []) is None
    with pytest.raises(RequestError, match=r"outputs \(N, classes\).*\(8, 2, 16, 16\)"):
        evaluate(UNet(), LABELLED)
