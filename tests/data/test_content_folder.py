"""The data set `content_folder`: the user's photographs and style pictures."""

from pathlib import Path
from typing import Any

import data_made
import pytest
import torch
from PIL import Image

from normbench.config.composition import compose
from normbench.data.base import REGISTRY, Photographs
from normbench.errors import RequestError


@pytest.fixture
def by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return data_made.options("content_folder", tmp_path / "material", monkeypatch)


def loaded(by_path: dict[str, Any], seed: int = 0, **options: Any) -> Photographs:
    checked = REGISTRY.options("content_folder", by_path | options)
    data: Photographs = REGISTRY.get("content_folder")(**checked).load(seed)
    return data


def test_crops_show_the_pictures_and_no_picture_is_in_two_parts(
    by_path: dict[str, Any],
) -> None:
    for i in range(9):
        grey = Image.new("L", (40 + i, 30), 20 * i)
        grey.save(Path(by_path["path"]) / f"{i}.png")
    data = loaded(by_path)
    assert data.crops.shape == (24, 3, 16, 16)
    assert data.styles.shape == (2, 3, 128, 128)
    assert data.shown is not None and data.shown.shape == (2, 3, 256, 256)
    greys = (data.crops[:, 0, 0, 0] * 255 / 20).round().int()
    flat = (greys * 20.0)[:, None, None, None].expand_as(data.crops)
    torch.testing.assert_close(data.crops * 255, flat)
    parts = [set(greys[index].tolist()) for index in data.splits.values()]
    assert [len(part) for part in parts] == [5, 2, 2]
    assert len(set.union(*parts)) == 9
    assert loaded(by_path, seed=1).key != data.key


def test_pictures_that_cannot_be_read_are_skipped_and_counted(
    by_path: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    (Path(by_path["path"]) / "4.png").write_text("no picture")
    assert loaded(by_path).facts["skipped_images"] == 1
    assert "4.png cannot be decoded" in caplog.text
    with pytest.raises(RequestError, match=r"data\.strict=true, and 1 of the"):
        loaded(by_path, strict=True)


def test_wrong_styles_and_sizes_are_refused(by_path: dict[str, Any]) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"style_paths": []}, "data.style_paths is not set"),
        ({"style_paths": ["/no/where"]}, "data.style_paths=/no/where does not exist"),
        ({"crop": 32}, "data.crop=32 does not fit into data.shorter_side=20"),
    ]
    for options, message in cases:
        words = [f"data.{k}={v}" for k, v in (by_path | options).items()]
        with pytest.raises(RequestError, match=message.replace(".", r"\.")):
            compose(["task=style", "data=content_folder", *words])
    Path(by_path["style_paths"][1]).write_text("no picture")
    with pytest.raises(RequestError, match=r"style 1\.png cannot be decoded"):
        loaded(by_path)
