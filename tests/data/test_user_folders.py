"""Folders as users have them: hidden things, copies, parts, and names of any bytes."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import data_made
import numpy as np
import pytest
from conftest import Command, Run
from data_made import image_folder
from PIL import Image
from typer.testing import CliRunner

from normbench.cli import app
from normbench.config.composition import compose, hash_files
from normbench.config.identity import run_id
from normbench.data.base import REGISTRY, Images
from normbench.data.reading import pictures
from normbench.data.reading.listing import listed
from normbench.errors import RequestError
from normbench.records import store

TINY = ["task=cnn", "data.size=14", "task.stem_stride=2", "task.width=8"]
TINY += ["batch_size=4", "budget.max_steps=1", "tracker=none"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    image_folder(tmp_path / "images", monkeypatch)
    return tmp_path / "images"


def data(root: Path, **options: Any) -> Any:
    return REGISTRY.get("folder")(path=str(root), size=16, **options)


def loaded(root: Path, seed: int = 0, **options: Any) -> Images:
    images: Images = data(root, **options).load(seed)
    return images


HIDDEN = [
    ".ipynb_checkpoints/a.jpg",
    ".Trash-1000/files/a.jpg",
    "__MACOSX/class 0/b.jpg",
    "lost+found/a.jpg",
    "System Volume Information/a.jpg",
    "$RECYCLE.BIN/S-1/a.jpg",
    "@eaDir/a.jpg",
    "class 0/.hidden.jpg",
    "class 1/.thumbnails/a.jpg",
    "class 1/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
    "class 2/deep/.ipynb_checkpoints/a.jpg",
]


def hide(root: Path) -> None:
    """What systems and programs leave in folders, none of which can be decoded."""
    for name in HIDDEN:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("no picture")
    for name in ("._06.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (root / "class 0" / name).write_text("no picture")
    (root / "lost+found").chmod(0)


def test_hidden_things_are_no_data(root: Path, tmp_path: Path) -> None:
    test = tmp_path / "test"
    shutil.copytree(root, test)
    for path in test.rglob("*.*"):
        path.write_bytes(path.read_bytes() + b"\0")  # no copies of the others
    before = [data(root).hash_files(), data(root, test_path=str(test)).hash_files()]
    seen = loaded(root)
    hide(root)
    hide(test)
    after = [data(root).hash_files(), data(root, test_path=str(test)).hash_files()]
    assert after == before
    hidden = loaded(root)
    assert hidden.classes == seen.classes and hidden.facts == seen.facts
    assert hidden.facts["skipped_images"] == 0
    assert all((hidden.splits[p] == seen.splits[p]).all() for p in seen.splits)
    assert "hidden or system files" in " ".join(hidden.notes.understood)
    assert not hidden.notes.warnings
    (root / "lost+found").chmod(0o700)
    (test / "lost+found").chmod(0o700)


def test_hidden_things_are_no_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = data_made.options("content_folder", tmp_path, monkeypatch)
    (tmp_path / "content" / "class 0").mkdir()
    made = REGISTRY.get("content_folder")
    before = made(**given).hash_files()
    hide(tmp_path / "content")
    assert made(**given).hash_files() == before
    assert made(**given).load(0).facts["skipped_images"] == 0
    (tmp_path / "content" / "lost+found").chmod(0o700)


def test_a_dot_in_the_place_of_the_folder_hides_nothing(root: Path) -> None:
    inside = root.parent / ".cache" / "__MACOSX"
    shutil.copytree(root, inside)
    assert data(inside).hash_files() == data(root).hash_files()


def test_a_folder_without_hidden_things_keeps_its_fingerprint(tmp_path: Path) -> None:
    content = {"a/1.png": b"one", "a/2.jpg": b"two"}
    content |= {"b/\u00fc/\u82b1.PNG": b"three", "b/4.webp": b"four"}
    for name, data in content.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    lines = [
        f"{name}\0{hashlib.sha256(content[name]).hexdigest()}\n"
        for name in sorted(content, key=lambda name: Path(name))
    ]
    config = compose(["task=cnn", "data=folder", f"data.path={tmp_path}"])
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()[:32]
    assert (
        config.data.options["fingerprint"]
        == expected
        == "fb59eb09fc73415e261dbde1617e3de5"
    )
    assert run_id(config) == "95451097bc94d344"  # as of the first version


def test_copies_are_noticed_and_are_in_one_part(root: Path, tmp_path: Path) -> None:
    before = data(root).hash_files()
    for i in (1, 4, 7):
        [one] = (root / "class 1").glob(f"{i:02}.*")
        shutil.copy(one, one.with_stem(f"{one.stem} copy"))
    (root / "class 0" / "empty 1.png").touch()
    (root / "class 0" / "empty 2.png").touch()
    for seed in range(10):
        images = loaded(root, seed)
        labels = [s.path.stem for s in data(root)._layout.samples]
        labels = [stem for stem in labels if not stem.startswith("empty")]
        places = {
            labels[i]: part for part in images.splits for i in images.splits[part]
        }
        for stem in ("01", "04", "07"):
            assert places[stem] == places[f"{stem} copy"]
    [told] = images.notes.warnings
    assert "3 of 33 pictures are copies of another picture (class 1/01" in told
    # Another split than an earlier version drew is another run.
    for path in (root / "class 0").glob("empty*"):
        path.unlink()
    with_copies = data(root).hash_files()
    for path in (root / "class 1").glob("* copy.*"):
        path.write_bytes(path.read_bytes() + b"\0")
    assert len({before, with_copies, data(root).hash_files()}) == 3
    test = tmp_path / "test" / "class 0"
    test.mkdir(parents=True)
    shutil.copy(root / "class 0" / "06.png", test)
    [told] = loaded(root, test_path=str(test.parent)).notes.warnings
    assert (
        "data.test_path: 1 pictures are copies of training pictures in data.pa" in told
    )


def test_copies_of_photographs_are_in_one_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = data_made.options("content_folder", tmp_path, monkeypatch)
    for i in range(3):
        grey = Image.new("L", (40, 30), 60 * i)
        for copy in range(3):
            grey.save(tmp_path / "content" / f"{3 * i + copy}.png")
    photographs = REGISTRY.get("content_folder")(**given).load(0)
    shown = (photographs.crops[:, 0, 0, 0] * 255 / 60).round().int()
    parts = [set(shown[index].tolist()) for index in photographs.splits.values()]
    assert sorted(map(sorted, parts)) == [[0], [1], [2]]
    assert "6 of 9 pictures are copies of another" in photographs.notes.warnings[0]


LAYOUTS: dict[str, tuple[list[str], str]] = {
    "two parts": (
        ["train/a/1.png", "train/b/1.png", "val/a/2.png", "val/b/2.png"],
        "the folders train, val, which are parts, not classes; name the folder of one "
        "part: data.path={root}/train data.test_path={root}/val",
    ),
    "three parts": (
        ["Train/a/1.png", "valid/a/2.png", "test/a/3.png"],
        "data.path={root}/Train data.test_path={root}/test",
    ),
    "one part": (["training/a/1.png", "training/b/1.png"], "data.path={root}/training"),
    "parts beside others": (
        ["train/a/1.png", "val/a/1.png", "samples/1.png"],
        "data.path={root}/train data.test_path={root}/val",
    ),
    "parts without classes": (
        ["train/1.png", "test/2.png"],
        "are parts, not classes; its layout must be",
    ),
    "a folder too high": (
        ["flowers/a/1.png", "flowers/b/1.png"],
        "only one class, flowers; at least two are needed; if its subfolders are the "
        "classes, use data.path={root}/flowers",
    ),
    "one class": (["a/1.png", "a/2.png"], "only one class, a; at least two are needed"),
    "kinds that are not read": (
        ["a/1.heic", "b/2.svg"],
        "has no images, only 1 .heic, 1 .svg; its layout",
    ),
}


def test_other_layouts_are_refused_with_what_would_be_right(tmp_path: Path) -> None:
    for case, (names, words) in LAYOUTS.items():
        root = tmp_path / case
        for i, name in enumerate(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(bytes([i]))
        with pytest.raises(RequestError) as refused:
            data(root).hash_files()
        assert words.format(root=root) in str(refused.value), case
        assert len(str(refused.value).splitlines()) == 1


def test_parts_are_known_by_any_usual_name(tmp_path: Path) -> None:
    pairs = ["training_set test_set", "seg_train seg_test", "train2017 val2017"]
    pairs += ["images-train images-val", "Train Test1", "TRAINING eval.2"]
    for pair in pairs:
        root = tmp_path / pair
        for part in pair.split():
            for name in ("cats", "dogs"):
                (root / part / name).mkdir(parents=True)
                (root / part / name / "a.png").write_bytes(b"picture")
        training, held_out = (root / part for part in pair.split())
        with pytest.raises(RequestError) as refused:
            data(root).hash_files()
        option = f"data.path={training} data.test_path={held_out}"
        assert option in str(refused.value), pair


def test_a_class_may_have_the_name_of_a_part(root: Path) -> None:
    (root / "class 1").rename(root / "train")
    assert loaded(root).classes == ("class 0", "class 2", "train")
    [told] = loaded(root).notes.warnings
    assert "train is used as a class" in told


def test_what_was_understood_is_said(root: Path, run: Run) -> None:
    (root / "dogs").mkdir()
    (root / "phones").mkdir()
    (root / "phones" / "a.HEIC").write_text("a phone's")
    (root / "class 1" / "b.heic").write_text("a phone's")
    hide(root)
    given = ["data=folder", f"data.path={root}", *TINY]
    finished = run(*given)
    understood, left_out, warning = finished.data_notes
    assert understood == (
        "data.path: 30 samples of 3 classes: class 0 10, class 1 10, class 2 10"
    )
    assert "data.path: left out 2 .heic, 1 .txt, " in left_out
    assert "folders without pictures are not classes: dogs, phones (1 .heic)" in warning
    assert finished.facts["left_out_files"] == 3 and finished.facts["classes"] == 3
    place = store.run_folder(root.parent / "runs", finished.run_id)
    read = store.read(place)
    assert read is not None and read.data_notes == finished.data_notes
    said = CliRunner().invoke(app, ["doctor", *given, "--json"])
    findings = [f for f in json.loads(said.stdout) if f["what"] == "data"]
    assert [(f["level"], f["why"]) for f in findings[1:]] == [
        ("ok", understood),
        ("ok", left_out),
        ("warning", warning.removeprefix("warning: ")),
    ]
    (root / "lost+found").chmod(0o700)


def test_gif_jfif_and_avif_are_pictures(root: Path) -> None:
    before = loaded(root)
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(root / "class 0" / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(root / "class 1" / "a.JFIF", format="JPEG")
    if "AVIF" in pictures.decoders():
        frames[0].save(root / "class 2" / "a.avif")
    images = loaded(root)
    assert len(images.labels) - len(before.labels) == 2 + (
        "AVIF" in pictures.decoders()
    )
    assert images.facts["skipped_images"] == 0
    first = pictures.centre_square(root / "class 0" / "a.gif", 8)
    assert first[:, 0, 0].tolist() == [255, 0, 0]


def test_a_decoder_that_pillow_lacks_skips_its_pictures(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (20, 20)).save(root / "class 2" / "a.gif")
    fingerprint = data(root).hash_files()
    monkeypatch.setattr(pictures, "FORMATS", ("BMP", "JPEG", "NOSUCH", "PNG", "WEBP"))
    pictures.decoders.cache_clear()
    try:
        assert loaded(root, workers=0).facts["skipped_images"] == 1
    finally:
        pictures.decoders.cache_clear()
    assert "its format is none of BMP, JPEG, PNG, WEBP" in caplog.text
    assert data(root).hash_files() == fingerprint


def test_no_picture_starts_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow opens files by their content, and has Ghostscript draw an EPS."""
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch '{tmp_path}/started'\n")
    ghostscript.chmod(ghostscript.stat().st_mode | stat.S_IXUSR)
    path = tmp_path / "e.png"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
        b"%%EOF\n"
    )
    program = (
        "import sys; from pathlib import Path\n"
        "from normbench.data.reading import pictures\n"
        "pictures.read_picture(Path(sys.argv[1]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, path],
        env=os.environ | {"PATH": f"{ghostscript.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = ended.stderr.splitlines()[-1]
    assert "its format is none of AVIF, BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP" in told
    assert not (tmp_path / "started").exists()


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there")
CAFE = os.fsdecode(b"caf\xe9")


@on_linux
def test_names_in_a_folder_may_be_of_any_bytes(
    root: Path, run: Run, tmp_path: Path
) -> None:
    (root / "class 1").rename(root / CAFE)
    (root / "class 0" / "06.png").rename(root / "class 0" / f"{CAFE}.png")
    (root / CAFE / f"bad {CAFE}.png").write_text("no picture")
    finished = run("data=folder", f"data.path={root}", *TINY)
    assert finished.status == "ok", finished.error
    assert r"caf\xe9 10, class 0 10, class 2 10" in finished.data_notes[0]
    place = store.run_folder(tmp_path / "runs", finished.run_id)
    assert store.read(place) == finished
    found = {os.fsencode(path.name) for path in listed(root).pictures}
    assert b"caf\xe9.png" in found
    hash_files.cache_clear()
    (root / "class 0" / f"{CAFE}.png").rename(root / "class 0" / "caf\u00e9.png")
    other = compose(["data=folder", f"data.path={root}", *TINY])
    assert (
        other.data.options["fingerprint"] != finished.config.data.options["fingerprint"]
    )


@on_linux
def test_a_path_that_is_not_utf8_is_refused_in_one_line(
    root: Path, tmp_path: Path, command: Command
) -> None:
    there = root.rename(tmp_path / CAFE)
    (tmp_path / f"{CAFE}.csv").write_text("text,label\nx,a\n")
    with pytest.raises(RequestError, match=r"data\.path=.*/caf\\xe9 is not UTF-8"):
        data(there)
    with pytest.raises(RequestError, match=r"data\.path=.*caf\\xe9\.csv is not UTF-8"):
        REGISTRY.get("text_csv")(path=str(tmp_path / f"{CAFE}.csv"))
    commands = [
        ["train", "task=cnn", "data=folder", f"data.path={there}"],
        ["train", "task=cnn", "--results", f"{tmp_path}/{CAFE}/results"],
        ["stylize", "0123", f"{CAFE}.png"],
    ]
    for arguments in commands:
        ended = command(*arguments)
        assert ended.returncode == 2, arguments
        assert "is not UTF-8: " in ended.stderr and r"caf\xe9" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1 and not ended.stdout
    ended = command("results", NORMBENCH_RESULTS=CAFE)
    assert ended.returncode == 2 and "NORMBENCH_RESULTS is not UTF-8" in ended.stderr


def test_a_bomb_is_one_line_whatever_it_is(tmp_path: Path) -> None:
    heads = {
        "ppm.png": b"P6 60000 60000 255\n",
        "bmp.png": b"BM"
        + bytes(8)
        + bytes([54, 0, 0, 0, 40, 0, 0, 0])
        + (60000).to_bytes(4, "little") * 2
        + b"\1\0\x18\0"
        + bytes(24),
        "gif.png": b"GIF89a" + b"\xff\xff\xff\xff" + b"\0\0\0",
    }
    for name, head in heads.items():
        (tmp_path / name).write_bytes(head + bytes(100))
        with pytest.raises(pictures.UnreadablePicture) as refused:
            pictures.read_picture(tmp_path / name)
        assert len(str(refused.value).splitlines()) == 1, name
        assert str(refused.value).startswith(str(tmp_path / name)), name
    noise = np.zeros((4, 4, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "fine.png")
    assert pictures.read_picture(tmp_path / "fine.png").size == (4, 4)
