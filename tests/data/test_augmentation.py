"""Augmentation: its effects, and that it depends only on seed, epoch and sample."""

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, Run
from torch.nn import functional as F

from normbench.data.base import REGISTRY
from normbench.data.reading.augmentation import (
    Augmentation,
    InMemory,
    augmented,
    uniform,
)
from normbench.errors import RequestError, Stopped
from normbench.records.store import Results
from normbench.training import experiment

ALL: list[Augmentation] = ["crop", "flip", "cutout"]
INDEX = torch.arange(64)


def pictures(side: int = 16) -> torch.Tensor:
    """Return pictures in which all pixels differ and none is 0."""
    return torch.arange(1, 64 * 3 * side * side + 1).float().view(64, 3, side, side)


def test_uniform_numbers_are_uniform_and_independent() -> None:
    u = uniform(0, 0, np.arange(20_000), 4)
    assert 0 <= u.min() and u.max() < 1
    assert np.abs(u.mean(0) - 0.5).max() < 0.01
    assert np.abs(u.var(0) - 1 / 12).max() < 0.002
    others = [u[:-1, 0], uniform(0, 1, np.arange(1, 20_000), 1)[:, 0]]
    others += [uniform(1, 0, np.arange(1, 20_000), 1)[:, 0], u[1:, 1], u[1:, 0]]
    correlations = np.corrcoef(others)
    assert np.abs(correlations - np.eye(5)).max() < 0.03


def test_the_reference_stream() -> None:
    """Compare with published numbers: the first ones of SplitMix64 for seed 1234567."""
    from normbench.data.reading.augmentation import _mixed

    counter = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert _mixed(np.uint64(1234567) + counter).tolist() == expected


def test_a_crop_is_a_window_of_the_padded_picture() -> None:
    x = pictures()
    padded = F.pad(x, (2, 2, 2, 2))
    windows = set()
    for epoch in range(4):
        for sample, got in enumerate(augmented(x, ["crop"], 0, epoch, INDEX)):
            places = [
                (i, j)
                for i, j in itertools.product(range(5), repeat=2)
                if torch.equal(padded[sample, :, i : i + 16, j : j + 16], got)
            ]
            assert len(places) == 1
            windows |= set(places)
    assert len(windows) == 25


def test_a_flip_mirrors_half_of_the_pictures() -> None:
    x = pictures()
    flipped = 0
    for epoch in range(8):
        y = augmented(x, ["flip"], 0, epoch, INDEX)
        same = (y == x).flatten(1).all(1)
        assert ((y == x.flip(3)).flatten(1).all(1) ^ same).all()
        flipped += int((~same).sum())
    assert 0.4 < flipped / 512 < 0.6


def test_cutout_hides_a_square_in_all_channels() -> None:
    x = pictures()
    hidden = augmented(x, ["cutout"], 0, 0, INDEX) == 0
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    assert torch.equal(augmented(x, ["cutout"], 0, 0, INDEX)[~hidden], x[~hidden])
    sides = {(int(h[0].any(1).sum()), int(h[0].any(0).sum())) for h in hidden}
    assert max(sides) == (8, 8)
    assert all(4 <= side <= 8 for pair in sides for side in pair)
    for h in hidden[:, 0]:
        assert h.sum() == h.any(1).sum() * h.any(0).sum()


def test_a_sample_depends_on_the_epoch_and_not_on_the_batch() -> None:
    x = pictures()
    whole = augmented(x, ALL, 3, 2, INDEX)
    order = torch.randperm(64)
    assert torch.equal(augmented(x[order], ALL, 3, 2, order), whole[order])
    alone = [augmented(x[i : i + 1], ALL, 3, 2, INDEX[i : i + 1]) for i in range(64)]
    assert torch.equal(torch.cat(alone), whole)
    for seed, epoch in ((3, 3), (4, 2)):
        other = augmented(x, ALL, seed, epoch, INDEX)
        assert (other != whole).flatten(1).any(1).float().mean() > 0.9


def test_bytes_are_standardised_and_only_training_augments() -> None:
    pixels = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    images = InMemory(pixels, mean, std, ALL, seed=0)
    expected = pixels.double() / 255 - torch.tensor(mean).double()[:, None, None]
    expected /= torch.tensor(std).double()[:, None, None]
    torch.testing.assert_close(images.batch(INDEX).double(), expected)
    assert not torch.equal(images.batch(INDEX, epoch=0), images.batch(INDEX))


def test_the_order_of_the_option_does_not_matter() -> None:
    given = {"augment": ["cutout", "crop"]}
    assert REGISTRY.options("mnist5k", given)["augment"] == ["crop", "cutout"]
    with pytest.raises(RequestError, match=r"data\.augment=.*once"):
        REGISTRY.options("mnist5k", {"augment": ["crop", "crop"]})


OVERRIDES = [*SMALL["cnn"], "data.augment=[crop,flip,cutout]", "batch_size=16"]


@pytest.mark.slow
def test_augmentation_changes_the_metrics(run: Run) -> None:
    assert run(*OVERRIDES).metrics != run(*OVERRIDES, "data.augment=[]").metrics


@pytest.mark.slow
def test_a_resumed_run_with_augmentation_has_the_same_metrics(
    run: Run, tmp_path: Path
) -> None:
    """Stop within an epoch, between two epochs, and after the last step."""
    more = ["budget.max_steps=400", "budget.epochs=3", "norm=batch"]
    whole = run(*OVERRIDES, *more)
    for stop_after in (7, 187, 400):
        folder = tmp_path / f"stopped {stop_after}"
        stop = iter([False] * (stop_after - 1) + [True])
        with pytest.raises(Stopped):
            experiment.run_one(whole.config, Results(folder), stop=partial(next, stop))
        assert (
            experiment.run_one(whole.config, Results(folder)).metrics == whole.metrics
        )


def test_accumulating_sees_the_same_pictures(run: Run) -> None:
    whole = run(*OVERRIDES, "norm=group", "budget.max_steps=1")
    accumulated = run(*OVERRIDES, "norm=group", "budget.max_steps=1", "accumulate=4")
    for metric, value in whole.metrics.items():
        assert value == pytest.approx(accumulated.metrics[metric], abs=1e-4)
