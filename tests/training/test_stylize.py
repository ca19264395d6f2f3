"""Style by path, VGG16's features, and a trained network on pictures of any size."""

import hashlib
import json
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_made
import numpy as np
import pytest
import torch
from conftest import SMALL, Command, Run
from PIL import Image
from typer.testing import CliRunner, Result

from normbench.cli import app
from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.config.schema import Choice, RunRecord
from normbench.data.base import REGISTRY, Photographs
from normbench.errors import RequestError
from normbench.records.store import Results, run_folder
from normbench.tasks.networks import perceptual
from normbench.tasks.style import gram
from normbench.training import network, stylization

SIZES = [(64, 64), (63, 65), (1, 1), (5, 7), (3, 200), (150, 97)]


@pytest.fixture
def by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return data_made.options("content_folder", tmp_path / "material", monkeypatch)


def given(by_path: dict[str, Any]) -> list[str]:
    return [f"data.{k}={v}" for k, v in by_path.items()]


# Data by path


def loaded(by_path: dict[str, Any], seed: int = 0, **options: Any) -> Photographs:
    checked = REGISTRY.options("content_folder", by_path | options)
    data: Photographs = REGISTRY.get("content_folder")(**checked).load(seed)
    return data


def test_crops_are_of_the_pictures_and_no_picture_is_in_two_parts(
    by_path: dict[str, Any],
) -> None:
    for i in range(9):
        grey = Image.new("L", (40 + i, 30), 20 * i)
        grey.save(Path(by_path["path"]) / f"{i}.png")
    data = loaded(by_path)
    assert data.crops.shape == (24, 3, 16, 16)
    assert data.styles.shape == (2, 3, 128, 128)
    shown = (data.crops[:, 0, 0, 0] * 255 / 20).round().int()
    flat = (shown * 20.0)[:, None, None, None].expand_as(data.crops)
    torch.testing.assert_close(data.crops * 255, flat)
    parts = [set(shown[index].tolist()) for index in data.splits.values()]
    assert [len(part) for part in parts] == [5, 2, 2]
    assert len(set.union(*parts)) == 9
    assert loaded(by_path, seed=1).key != data.key


def test_pictures_that_cannot_be_read_are_skipped_and_counted(
    by_path: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    (Path(by_path["path"]) / "4.png").write_text("no picture")
    assert loaded(by_path).facts["skipped_images"] == 1
    assert "4.png is no picture" in caplog.text
    with pytest.raises(RequestError, match=r"data\.strict=true, and 1 of the"):
        loaded(by_path, strict=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"style_paths": []}, "data.style_paths is not set"),
        ({"style_paths": ["/no/where"]}, "data.style_paths=/no/where does not exist"),
        ({"crop": 32}, "data.crop=32 does not fit into data.shorter_side=20"),
    ],
)
def test_what_is_no_style_is_refused(
    options: dict[str, Any], words: str, by_path: dict[str, Any]
) -> None:
    with pytest.raises(RequestError) as refused:
        compose(["task=style", "data=content_folder", *given(by_path | options)])
    assert words in str(refused.value)


def test_a_style_that_is_no_picture_is_refused(by_path: dict[str, Any]) -> None:
    Path(by_path["style_paths"][1]).write_text("no picture")
    with pytest.raises(RequestError, match=r"style 1\.png is no picture"):
        loaded(by_path)


# VGG16


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
    monkeypatch.setattr(perceptual, "VGG16_SHA256", begins)
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
    vgg16: object, run: Run, by_path: dict[str, Any]
) -> None:
    overrides = [*SMALL["style"][:3], "data=content_folder", *given(by_path)]
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


def test_vgg16_without_network_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    nowhere = "http://127.0.0.1:9/vgg16-397923af.pth"
    monkeypatch.setattr(perceptual, "VGG16_URL", nowhere)
    with pytest.raises(RequestError, match=r"task\.perceptual=vgg16 needs .*fetched"):
        perceptual.Vgg16()
    assert downloaded(tmp_path) == []


def downloaded(tmp_path: Path) -> list[str]:
    names = [path.name for path in (tmp_path / "data").iterdir()]
    return [name for name in names if not name.endswith(".lock")]


def test_a_corrupt_download_of_vgg16_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = tmp_path / "vgg16-397923af.pth"
    served.write_bytes(b"half of it")
    monkeypatch.setenv("NORMBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(perceptual, "VGG16_URL", served.as_uri())
    with pytest.raises(RequestError, match="invalid hash value"):
        perceptual.Vgg16()
    assert downloaded(tmp_path) == []
    (tmp_path / "data" / ".vgg16").mkdir()  # as of a process that was killed
    (tmp_path / "data" / ".vgg16" / "part").write_bytes(b"half")
    right = hashlib.sha256(served.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(perceptual, "VGG16_SHA256", right)
    assert perceptual._vgg16_file().read_bytes() == b"half of it"
    assert downloaded(tmp_path) == [served.name]
    (tmp_path / "data" / served.name).write_bytes(b"half of")  # a copy cut short
    with pytest.raises(RequestError, match=r"397923af\.pth is damaged: its SHA-256"):
        perceptual.Vgg16()


# A trained network


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecord, Path]:
    """A run in two styles, and its results folder."""
    from normbench.training.experiment import run_one

    results = tmp_path_factory.mktemp("results")
    overrides = [*SMALL["style"], "budget=smoke", "tracker=none"]
    overrides += ["norm=conditional_instance", "norm.conditions=2"]
    overrides += ["data.styles=[brick,grass]"]
    return run_one(compose(overrides), Results(results)), results


Stylize = Callable[..., Result]


@pytest.fixture
def stylized(
    trained: tuple[RunRecord, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Stylize:
    """The command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    finished, results = trained

    def call(*arguments: object, run: str = finished.run_id) -> Result:
        texts = ["stylize", run, *map(str, arguments), "--results", str(results)]
        return CliRunner().invoke(app, texts)

    return call


def shown(path: Path) -> Any:
    """The pixels (H, W, channels) of a picture."""
    with Image.open(path) as file:
        return np.asarray(file)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_picture_of_any_size_gives_one_of_its_size(
    size: tuple[int, int], trained: tuple[RunRecord, Path]
) -> None:
    finished, results = trained
    model = stylization.load(finished, run_folder(results, finished.run_id))
    x = torch.rand(3, *size)
    y = stylization.drawn(model, x, 0)
    assert y.shape == x.shape
    assert 0 <= y.min() and y.max() <= 1
    if min(size) >= 6 and not (size[0] % 2 or size[1] % 2):
        with torch.no_grad():
            assert torch.equal(y, model(x[None], torch.tensor([0]))[0])


def test_the_command_draws_what_the_run_drew(
    stylized: Stylize, trained: tuple[RunRecord, Path], tmp_path: Path
) -> None:
    finished, _ = trained
    task: Any = network.make_task(finished.config, torch.device("cpu"))
    crop = (task.crops[0] * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(crop).save(tmp_path / "crop.png")
    outputs = []
    for style in (0, 1):
        done = stylized("crop.png", "--style", style, "--output-dir", "out")
        assert done.exit_code == 0, done.output
        name = f"crop-{finished.run_id[:8]}-{style}.png"
        assert done.output.strip() == f"out/{name}"
        outputs.append(shown(tmp_path / "out" / name).astype(int))
    assert outputs[0].shape == crop.shape
    assert np.abs(outputs[0] - outputs[1]).max() > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["crop.png", "out"]


def test_orientation_transparency_and_grey(stylized: Stylize, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 21), "red").save("lying.jpg", exif=exif)
    Image.new("L", (31, 17), 99).save("grey.png")
    clear = np.zeros((12, 18, 4), np.uint8)
    clear[3, 5, 3] = 77
    Image.fromarray(clear).save("clear.png")
    done = stylized("lying.jpg", "grey.png", "clear.png", "--json")
    assert done.exit_code == 0, done.output
    made = json.loads(done.output)
    assert [each["image"] for each in made] == ["lying.jpg", "grey.png", "clear.png"]
    lying, grey, transparent = (shown(Path(each["file"])) for each in made)
    assert lying.shape == (40, 21, 3)
    assert grey.shape == (17, 31, 3)
    assert transparent.shape == (12, 18, 4)
    assert np.array_equal(transparent[:, :, 3], clear[:, :, 3])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no.png"], "IMAGE=no.png does not exist"),
        (["good.png", "bad.png"], "bad.png is no picture that can be read"),
        (["empty.png"], "IMAGE=empty.png is empty"),
        (["folder"], "IMAGE=folder is a folder; name a file"),
        (["good.png", "--style", "2"], "has 2 styles, 0 to 1"),
        (["good.png", "--output-dir", "bad.png"], "bad.png cannot be a folder"),
        (["good.png", "folder/good.png"], "several pictures would be written to"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    arguments: list[str], words: str, stylized: Stylize, tmp_path: Path
) -> None:
    data_made.picture(tmp_path / "good.png")
    data_made.picture(tmp_path / "folder" / "good.png")
    (tmp_path / "bad.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    done = stylized(*arguments)
    assert done.exit_code == 2
    assert words in done.output and "Traceback" not in done.output
    assert not (tmp_path / "stylized").exists()


def test_a_run_that_cannot_draw_is_refused_with_what_would(
    trained: tuple[RunRecord, Path], run: Run, tmp_path: Path
) -> None:
    finished, results = trained
    folder = run_folder(results, finished.run_id)
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    weights = copied / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(RequestError, match=r"weights\.safetensors is damaged"):
        stylization.load(finished, copied)
    weights.unlink()
    with pytest.raises(RequestError, match=r"keep_weights=true trains it again"):
        stylization.load(finished, copied)
    config = compose([*SMALL["cnn"], "tracker=none"])
    other = finished.model_copy(update={"config": config})
    with pytest.raises(RequestError, match="is of task=cnn; only networks of"):
        stylization.load(other, folder)
    shaped = finished.config.model_copy(update={"norm": Choice(name="layer_shape")})
    with pytest.raises(RequestError, match="has parameters for each position"):
        stylization.load(finished.model_copy(update={"config": shaped}), folder)


def test_a_run_that_does_not_exist_is_refused(stylized: Stylize) -> None:
    done = stylized("any.png", run="0123")
    assert done.exit_code == 2 and "no run in" in done.output


@pytest.mark.slow
def test_stylize_needs_neither_data_nor_perceptual_network(
    trained: tuple[RunRecord, Path], command: Command, tmp_path: Path
) -> None:
    finished, results = trained
    data_made.picture(tmp_path / "mine.png", 33, 21)
    done = command(
        *("stylize", finished.run_id, "mine.png", "--results", str(results)),
        NORMBENCH_CACHE=str(tmp_path / "cache"),
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "cache").exists()
    assert shown(tmp_path / done.stdout.strip()).shape == (21, 33, 3)
