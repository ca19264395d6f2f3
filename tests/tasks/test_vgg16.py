"""VGG16 as the perceptual network: its features, its runs and its download."""

import hashlib
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import data_made
import pytest
import torch
from conftest import SMALL, Run

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.errors import RequestError
from normbench.tasks.networks import perceptual
from normbench.tasks.style import gram
from normbench.training import network


@pytest.fixture
def vgg16(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """torchvision's VGG16 with weights of its own, where they are looked for."""
    from torchvision.models import vgg16

    torch.manual_seed(0)
    with torch.device("meta"):
        features = vgg16().features[:23]
    features = features.to_empty(device="cpu")
    for parameter in features.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    folder = tmp_path_factory.mktemp("data")
    state = OrderedDict((f"features.{k}", v) for k, v in features.state_dict().items())
    file = folder / "vgg16-397923af.pth"
    torch.save(state, file)
    begins = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(perceptual, "VGG16_SHA256_START", begins)
    monkeypatch.setenv("NORMBENCH_DATA", str(folder))
    perceptual.perceptual_network.cache_clear()
    yield features
    perceptual.perceptual_network.cache_clear()
    shutil.rmtree(folder)


def test_vgg16_s_features_are_torchvision_s(vgg16: torch.nn.Sequential) -> None:
    x = torch.rand(2, 3, 24, 40, requires_grad=True)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    y, expected = (x - mean) / std, []
    for i, layer in enumerate(vgg16):
        y = layer(y.clone())  # its ReLUs are in place
        if i in {3, 8, 15, 22}:  # relu1_2, relu2_2, relu3_3, relu4_3
            expected.append(y.clone())
    states = torch.get_rng_state()
    own = perceptual.perceptual_network(torch.device("cpu"), "vgg16")
    assert torch.equal(torch.get_rng_state(), states)
    features = own(x)
    for mine, theirs, stride in zip(features, expected, own.strides, strict=True):
        torch.testing.assert_close(mine, theirs)
        assert mine.shape[2:] == (24 // stride, 40 // stride)
    features[-1].sum().backward()
    assert x.grad is not None and x.grad.any()
    assert not any(parameter.requires_grad for parameter in own.parameters())


def test_a_run_with_vgg16_is_another_run_and_says_so(
    vgg16: object, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = data_made.options("content_folder", tmp_path / "material", monkeypatch)
    overrides = [*SMALL["style"][:3], "data=content_folder"]
    overrides += [f"data.{key}={value}" for key, value in paths.items()]
    overrides += ["budget.max_steps=1", "evaluations=1"]
    other = run(*overrides, "task.perceptual=vgg16")
    assert other.status == "ok", other.error
    assert other.config.task.options["perceptual"] == "vgg16"
    default = compose(["budget=smoke", *overrides])
    assert run_id(default) != other.run_id
    task: Any = network.make_task(other.config, torch.device("cpu"))
    assert [len(t) for t in task.style_targets] == [2] * 4
    assert task.content_targets.shape == (24, 128, 8, 8)
    relu1_2 = task.perceptual(task.styles)[0]
    torch.testing.assert_close(task.style_targets[0], gram(relu1_2))


def test_vgg16_is_downloaded_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files() -> list[str]:
        names = [path.name for path in (tmp_path / "data").iterdir()]
        return [name for name in names if not name.endswith(".lock")]

    monkeypatch.setenv("NORMBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    nowhere = "http://127.0.0.1:9/vgg16-397923af.pth"
    monkeypatch.setattr(perceptual, "VGG16_URL", nowhere)
    with pytest.raises(
        RequestError, match=r"task\.perceptual=vgg16 needs .*downloaded"
    ):
        perceptual.Vgg16()
    assert files() == []
    served = tmp_path / "vgg16-397923af.pth"
    served.write_bytes(b"half of it")
    monkeypatch.setattr(perceptual, "VGG16_URL", served.as_uri())
    with pytest.raises(RequestError, match="invalid hash value"):
        perceptual.Vgg16()
    assert files() == []
    (tmp_path / "data" / ".vgg16").mkdir()  # as left by a process that was killed
    (tmp_path / "data" / ".vgg16" / "part").write_bytes(b"half")
    right = hashlib.sha256(served.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(perceptual, "VGG16_SHA256_START", right)
    assert perceptual._vgg16_file().read_bytes() == b"half of it"
    assert files() == [served.name]
    (tmp_path / "data" / served.name).write_bytes(b"half of")  # an incomplete copy
    with pytest.raises(RequestError, match=r"397923af\.pth is damaged: its SHA-256"):
        perceptual.Vgg16()
