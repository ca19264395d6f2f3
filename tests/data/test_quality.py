"""Images of low quality, and training batches of one quality or class."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from normbench.claims.theorems import networks as small_networks
from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.data.base import REGISTRY, Images
from normbench.data.reading.quality import CONTRAST, NOISE, with_low_quality
from normbench.errors import RequestError
from normbench.tasks.base import Task
from normbench.training import loop
from normbench.training.network import make_task

SHAPES = ["task=cnn", "data=shapes", "data.size=16", "data.samples=500"]


def load(low_quality: float, seed: int = 0) -> Images:
    options = {"size": 16, "samples": 500, "low_quality": low_quality}
    shapes = REGISTRY.get("shapes")
    return shapes(**REGISTRY.options("shapes", options)).load(seed)


def task(*overrides: str) -> Task:
    return make_task(compose([*SHAPES, *overrides]), torch.device("cpu"))


def epoch(task: Task, batch_size: int, number: int = 0) -> Tensor:
    """Return the training batches of an epoch: (batches, batch_size)."""
    train = task.splits["train"]
    within = task.sort_within_batch
    batches = loop.micro_batches(
        train, 0, batch_size, 1, task.batch_by, sort_within_batch=within
    )
    per_epoch = len(train) // batch_size
    steps = range(number * per_epoch + 1, (number + 1) * per_epoch + 1)
    return torch.stack([batches(step)[0] for step in steps])


def test_low_quality_is_a_fixed_random_share_and_changes_nothing_else() -> None:
    plain, mixed = load(0.0), load(0.5)
    assert plain.quality is None
    assert isinstance(plain.images, Tensor)
    assert isinstance(mixed.images, Tensor)
    low = mixed.quality == 0
    assert low.sum() == 250
    assert set(mixed.quality.tolist()) == {0, 1}
    assert torch.equal(mixed.labels, plain.labels)
    for name, split in plain.splits.items():
        assert torch.equal(mixed.splits[name], split)
        assert 0.3 < low[split].double().mean() < 0.7, name
    for label in range(4):
        assert 0.35 < low[plain.labels == label].double().mean() < 0.65
    assert torch.equal(mixed.images[~low], plain.images[~low])
    assert torch.equal(mixed.images, load(0.5).images)
    assert not torch.equal(load(0.5, seed=1).quality, mixed.quality)
    assert (load(0.2).quality == 0).sum() == 100


def test_images_of_low_quality_follow_the_formula() -> None:
    images = torch.randn(400, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    changed, quality = with_low_quality(images, 0.99, seed=0)
    assert quality is not None
    x, y = images[quality == 0].flatten(0, 1), changed[quality == 0].flatten(0, 1)
    weights = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    blurred = F.pad(x[:, None], [2] * 4, mode="reflect")[:, 0]
    for axis in (1, 2):
        windows = blurred.unfold(axis, 5, 1)
        blurred = windows @ weights
    mean = x.mean((1, 2), keepdim=True)
    noise = y - mean - CONTRAST * (blurred - mean)
    assert noise.std().item() == pytest.approx(NOISE, rel=0.02)
    assert abs(noise.mean()) < 4 * NOISE / noise.numel() ** 0.5
    assert noise.abs().max() < 6 * NOISE


def test_a_batch_has_the_samples_of_one_quality() -> None:
    sorted_task = task("data.low_quality=0.5", "task.batching=quality")
    quality = load(0.5).quality
    assert quality is not None
    epochs = [epoch(sorted_task, 16, number) for number in range(2)]
    for batches in epochs:
        means = quality[batches].double().mean(1)
        assert ((means > 0) & (means < 1)).sum() <= 1
        assert {0.0, 1.0} <= set(means.tolist())
        # The order of the batches is random: they are not sorted by quality.
        assert (means.diff().abs() > 0.5).sum() > 3
        train = sorted_task.splits["train"]
        assert len(batches.flatten().unique()) == batches.numel()
        assert len(train) - batches.numel() < 16
    assert not torch.equal(*epochs)
    mixed = quality[epoch(task("data.low_quality=0.5"), 16)].double().mean(1)
    assert ((mixed > 0) & (mixed < 1)).all()


def test_a_batch_has_the_samples_of_one_class_or_of_two() -> None:
    by_class = task("task.batching=class")
    labels = load(0.0).labels
    batches = epoch(by_class, 16)
    counts = torch.tensor([len(batch.unique()) for batch in labels[batches]])
    assert counts.max() <= 2
    assert (counts == 2).sum() <= 3  # four classes have three borders
    assert len(batches.flatten().unique()) == batches.numel()
    # An epoch leaves out random samples, not those of the last class.
    assert labels[batches.flatten()].bincount().min() > 60
    assert all(len(batch.unique()) > 2 for batch in labels[epoch(task(), 16)])


def test_norm_batches_can_be_of_one_quality_in_random_batches() -> None:
    words = ["data.low_quality=0.5", "task.batching=quality"]
    within = task(*words, "task.batching_scope=norm_batch")
    batches, random = epoch(within, 16), epoch(task("data.low_quality=0.5"), 16)
    assert torch.equal(batches.sort().values, random.sort().values)
    quality = load(0.5).quality
    assert quality is not None
    assert (quality[batches].diff() >= 0).all()
    assert not torch.equal(batches, random)
    # At most one of the four norm batches of a batch has both qualities.
    halves = quality[batches].view(-1, 4, 4).double().mean(2)
    assert ((halves > 0) & (halves < 1)).sum(1).max() <= 1


def test_only_norms_that_use_other_samples_notice_sorted_norm_batches() -> None:
    differences = {}
    for norm in ("batch", "group"):
        words = [*SHAPES, "task.network=plain", "task.width=8", f"norm={norm}"]
        words += ["tracker=none", "batch_size=16", "norm_batch=4", "warmup=0.0"]
        sort = ["task.batching=class", "task.batching_scope=norm_batch"]
        states = []
        for more in ([], sort):
            config = compose([*words, *more])
            step = small_networks.trained(config, steps=3)
            states.append(step.state["stem.weight"])
        differences[norm] = float((states[0] - states[1]).abs().max())
    assert differences["group"] < 1e-12
    assert differences["batch"] > 1e-3


def test_batches_of_one_quality_need_two_qualities() -> None:
    with pytest.raises(RequestError, match=r"set data\.low_quality=0\.5"):
        task("task.batching=quality")
    with pytest.raises(RequestError, match=r"batching_scope=norm_batch does not apply"):
        task("task.batching_scope=norm_batch")
    with pytest.raises(RequestError, match=r"data\.low_quality=1\.0: .*less than 1"):
        compose([*SHAPES, "data.low_quality=1.0"])


def test_the_run_id_depends_on_batching_and_low_quality_that_are_used() -> None:
    default = run_id(compose([]))
    assert run_id(compose(["task.batching=random", "data.low_quality=0"])) == default
    ids = {
        run_id(compose(words))
        for words in (
            ["task.batching=class"],
            ["data.low_quality=0.5"],
            ["data.low_quality=0.5", "task.batching=quality"],
            ["task.batching=class", "task.batching_scope=norm_batch"],
        )
    }
    assert len(ids | {default}) == 5
