"""The 1,797 digits inside scikit-learn."""

import torch
from sklearn.datasets import load_digits

from normbench.data.digits import MEAN, STD, WHITE, Digits
from normbench.data.reading.augmentation import as_source


def test_the_digits_are_those_of_scikit_learn() -> None:
    data, original = Digits().load(0), load_digits()
    assert data.images.shape == (1797, 1, 8, 8)
    assert (data.images.dtype, data.labels.dtype) == (torch.float32, torch.int64)
    images = as_source(data.images).batch(torch.arange(1797))
    pixels = (images * STD + MEAN) * WHITE
    expected = torch.from_numpy(original.images).float()[:, None]
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-4)
    assert data.labels.tolist() == original.target.tolist()
    assert abs(images.mean()) < 1e-3
    assert abs(images.std() - 1) < 1e-3
    sizes = {part: len(index) for part, index in data.splits.items()}
    assert sizes == {"train": 1078, "val": 180, "test": 539}


def test_larger_digits_are_interpolated() -> None:
    small = as_source(Digits().load(3).images).batch(torch.arange(1797))
    for size in (14, 16):
        data = Digits(size=size).load(3)
        images = as_source(data.images).batch(torch.arange(1797))
        assert images.shape == (1797, 1, size, size)
        assert torch.equal(data.splits["test"], Digits().load(3).splits["test"])
        # Interpolation repeats the corners and stays between the values.
        corners = images[:, :, :: size - 1, :: size - 1]
        torch.testing.assert_close(corners, small[:, :, ::7, ::7])
        assert small.min() - 1e-5 <= images.min() <= images.max() <= small.max() + 1e-5
        assert abs(images.mean() - small.mean()) < 0.01
