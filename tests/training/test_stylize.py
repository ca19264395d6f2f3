"""A trained style network on pictures of any size."""

import json
import shutil
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
from normbench.config.schema import Choice, RunRecord
from normbench.errors import RequestError
from normbench.records.store import Results, run_folder
from normbench.training import network, stylization

SIZES = [(64, 64), (63, 65), (1, 1), (5, 7), (3, 200), (150, 97)]


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


def test_a_picture_of_any_size_gives_one_of_its_size(
    trained: tuple[RunRecord, Path],
) -> None:
    finished, results = trained
    model = stylization.load(finished, run_folder(results, finished.run_id))
    for size in SIZES:
        x = torch.rand(3, *size)
        y = stylization.stylize(model, x, 0)
        assert y.shape == x.shape
        assert 0 <= y.min() and y.max() <= 1, size
        if min(size) >= 6 and not (size[0] % 2 or size[1] % 2):
            with torch.no_grad():
                assert torch.equal(y, model(x[None], torch.tensor([0]))[0]), size


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


def test_bad_input_is_refused_before_anything_is_written(
    stylized: Stylize, tmp_path: Path
) -> None:
    data_made.picture(tmp_path / "good.png")
    data_made.picture(tmp_path / "folder" / "good.png")
    (tmp_path / "bad.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    for arguments, message in (
        (["no.png"], "IMAGE=no.png does not exist"),
        (["good.png", "bad.png"], "bad.png cannot be decoded"),
        (["empty.png"], "IMAGE=empty.png is empty"),
        (["folder"], "IMAGE=folder is a folder; name a file"),
        (["good.png", "--style", "2"], "has 2 styles, 0 to 1"),
        (["good.png", "--output-dir", "bad.png"], "bad.png cannot be created"),
        (["good.png", "folder/good.png"], "several pictures would be written to"),
    ):
        done = stylized(*arguments)
        assert done.exit_code == 2, arguments
        assert message in done.output and "Traceback" not in done.output
        assert not (tmp_path / "stylized").exists()
    done = stylized("any.png", run="0123")
    assert done.exit_code == 2 and "no run in" in done.output


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
    with pytest.raises(RequestError, match=r"and keep_weights=true"):
        stylization.load(finished, copied)
    config = compose([*SMALL["cnn"], "tracker=none"])
    other = finished.model_copy(update={"config": config})
    with pytest.raises(RequestError, match="has task=cnn; only runs with"):
        stylization.load(other, folder)
    shaped = finished.config.model_copy(update={"norm": Choice(name="layer_shape")})
    with pytest.raises(RequestError, match="has parameters for each position"):
        stylization.load(finished.model_copy(update={"config": shaped}), folder)


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
