"""Real folders of pictures: hidden files, copies, parts, names that are not UTF-8."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import data_made
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


def add_hidden_files(root: Path) -> None:
    """Add the files that systems and programs leave in folders; none is a picture."""
    for name in HIDDEN:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("no picture")
    for name in ("._06.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (root / "class 0" / name).write_text("no picture")
    (root / "lost+found").chmod(0)


def test_hidden_files_are_left_out(root: Path, tmp_path: Path) -> None:
    test = tmp_path / "test"
    shutil.copytree(root, test)
    for path in test.rglob("*.*"):
        path.write_bytes(path.read_bytes() + b"\0")  # not copies of the training images
    before = [data(root).hash_files(), data(root, test_path=str(test)).hash_files()]
    without = loaded(root)
    add_hidden_files(root)
    add_hidden_files(test)
    after = [data(root).hash_files(), data(root, test_path=str(test)).hash_files()]
    assert after == before
    images = loaded(root)
    assert images.classes == without.classes and images.facts == without.facts
    assert images.facts["skipped_images"] == 0
    assert all((images.splits[p] == without.splits[p]).all() for p in images.splits)
    assert "hidden or system files" in " ".join(images.notes.understood)
    assert not images.notes.warnings
    (root / "lost+found").chmod(0o700)
    (test / "lost+found").chmod(0o700)


def test_hidden_files_are_not_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = data_made.options("content_folder", tmp_path, monkeypatch)
    (tmp_path / "content" / "class 0").mkdir()
    content_folder = REGISTRY.get("content_folder")
    before = content_folder(**options).hash_files()
    add_hidden_files(tmp_path / "content")
    assert content_folder(**options).hash_files() == before
    assert content_folder(**options).load(0).facts["skipped_images"] == 0
    (tmp_path / "content" / "lost+found").chmod(0o700)


def test_hidden_parent_folders_hide_nothing(root: Path) -> None:
    inside = root.parent / ".cache" / "__MACOSX"
    shutil.copytree(root, inside)
    assert data(inside).hash_files() == data(root).hash_files()


def test_the_fingerprint_of_a_folder_never_changes(tmp_path: Path) -> None:
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
    assert config.data.options["fingerprint"] == expected
    assert expected == "fb59eb09fc73415e261dbde1617e3de5"
    assert run_id(config) == "95451097bc94d344"  # as in the first version


def test_copies_are_noticed_and_are_in_one_part(root: Path, tmp_path: Path) -> None:
    before = data(root).hash_files()
    for i in (1, 4, 7):
        [original] = (root / "class 1").glob(f"{i:02}.*")
        shutil.copy(original, original.with_stem(f"{original.stem} copy"))
    (root / "class 0" / "empty 1.png").touch()
    (root / "class 0" / "empty 2.png").touch()
    for seed in range(10):
        images = loaded(root, seed)
        stems = [sample.path.stem for sample in data(root)._layout.samples]
        stems = [stem for stem in stems if not stem.startswith("empty")]
        parts = {stems[i]: part for part, index in images.splits.items() for i in index}
        for stem in ("01", "04", "07"):
            assert parts[stem] == parts[f"{stem} copy"]
    [warning] = images.notes.warnings
    assert "3 of 33 pictures are copies of another picture (class 1/01" in warning
    # With copies, an earlier version drew another split, so the fingerprint differs.
    for path in (root / "class 0").glob("empty*"):
        path.unlink()
    with_copies = data(root).hash_files()
    for path in (root / "class 1").glob("* copy.*"):
        path.write_bytes(path.read_bytes() + b"\0")
    assert len({before, with_copies, data(root).hash_files()}) == 3
    test = tmp_path / "test" / "class 0"
    test.mkdir(parents=True)
    shutil.copy(root / "class 0" / "06.png", test)
    [warning] = loaded(root, test_path=str(test.parent)).notes.warnings
    assert "data.test_path: 1 pictures are copies of training pictures" in warning


def test_copies_of_photographs_are_in_one_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = data_made.options("content_folder", tmp_path, monkeypatch)
    for i in range(3):
        grey = Image.new("L", (40, 30), 60 * i)
        for copy in range(3):
            grey.save(tmp_path / "content" / f"{3 * i + copy}.png")
    photographs = REGISTRY.get("content_folder")(**options).load(0)
    greys = (photographs.crops[:, 0, 0, 0] * 255 / 60).round().int()
    parts = [set(greys[index].tolist()) for index in photographs.splits.values()]
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


def test_other_layouts_are_refused_with_advice(tmp_path: Path) -> None:
    for case, (names, words) in LAYOUTS.items():
        root = tmp_path / case
        for i, name in enumerate(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(bytes([i]))
        with pytest.raises(RequestError) as refused:
            data(root).hash_files()
        assert words.format(root=root) in str(refused.value), case
        assert len(str(refused.value).splitlines()) == 1


def test_parts_have_several_usual_names(tmp_path: Path) -> None:
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
    [warning] = loaded(root).notes.warnings
    assert "train is used as a class" in warning


def test_records_and_doctor_describe_the_folder(root: Path, run: Run) -> None:
    (root / "dogs").mkdir()
    (root / "phones").mkdir()
    (root / "phones" / "a.HEIC").write_text("a phone's")
    (root / "class 1" / "b.heic").write_text("a phone's")
    add_hidden_files(root)
    given = ["data=folder", f"data.path={root}", *TINY]
    finished = run(*given)
    understood, left_out, warning = finished.data_notes
    assert understood == (
        "data.path: 30 samples of 3 classes: class 0 10, class 1 10, class 2 10"
    )
    assert "data.path: left out 2 .heic, 1 .txt, " in left_out
    assert "folders without pictures are not classes: dogs, phones (1 .heic)" in warning
    assert finished.facts["left_out_files"] == 3 and finished.facts["classes"] == 3
    run_folder = store.run_folder(root.parent / "runs", finished.run_id)
    record = store.read(run_folder)
    assert record is not None and record.data_notes == finished.data_notes
    doctor = CliRunner().invoke(app, ["doctor", *given, "--json"])
    findings = [f for f in json.loads(doctor.stdout) if f["what"] == "data"]
    assert [(f["level"], f["why"]) for f in findings[1:]] == [
        ("ok", understood),
        ("ok", left_out),
        ("warning", warning.removeprefix("warning: ")),
    ]
    (root / "lost+found").chmod(0o700)


def test_gif_jfif_and_avif_are_pictures(root: Path) -> None:
    red = Image.new("RGB", (20, 20), "red")
    red.save(root / "class 0" / "a.gif")
    red.save(root / "class 1" / "a.JFIF", format="JPEG")
    count = 32
    if "AVIF" in pictures.decoders():
        red.save(root / "class 2" / "a.avif")
        count = 33
    images = loaded(root)
    assert len(images.labels) == count
    assert images.facts["skipped_images"] == 0


def test_pictures_without_a_decoder_in_pillow_are_skipped(
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


on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="names are bytes on Linux"
)
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
    assert store.read(store.run_folder(tmp_path / "runs", finished.run_id)) == finished
    names = {os.fsencode(path.name) for path in listed(root).pictures}
    assert b"caf\xe9.png" in names
    hash_files.cache_clear()
    (root / "class 0" / f"{CAFE}.png").rename(root / "class 0" / "caf\u00e9.png")
    renamed = compose(["data=folder", f"data.path={root}", *TINY]).data.options
    assert renamed["fingerprint"] != finished.config.data.options["fingerprint"]


@on_linux
def test_a_path_that_is_not_utf8_is_refused_in_one_line(
    root: Path, tmp_path: Path, command: Command
) -> None:
    folder = root.rename(tmp_path / CAFE)
    (tmp_path / f"{CAFE}.csv").write_text("text,label\nx,a\n")
    with pytest.raises(RequestError, match=r"data\.path=.*/caf\\xe9 is not UTF-8"):
        data(folder)
    with pytest.raises(RequestError, match=r"data\.path=.*caf\\xe9\.csv is not UTF-8"):
        REGISTRY.get("text_csv")(path=str(tmp_path / f"{CAFE}.csv"))
    commands = [
        ["train", "task=cnn", "data=folder", f"data.path={folder}"],
        ["train", "task=cnn", "--results", f"{tmp_path}/{CAFE}/results"],
        ["stylize", "0123", f"{CAFE}.png"],
    ]
    for arguments in commands:
        refused = command(*arguments)
        assert refused.returncode == 2, arguments
        assert "is not UTF-8: " in refused.stderr and r"caf\xe9" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1 and not refused.stdout
    refused = command("results", NORMBENCH_RESULTS=CAFE)
    assert refused.returncode == 2
    assert "NORMBENCH_RESULTS is not UTF-8" in refused.stderr
