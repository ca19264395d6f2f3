"""Images in files: what is read, in which order, and what is skipped."""

import logging
import shutil
import struct
import time
import zlib
from pathlib import Path
from threading import enumerate as enumerate_
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from data_made import image_folder, picture
from PIL import Image

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.data import folder
from normbench.data.base import REGISTRY, Images
from normbench.data.reading import image_files, pictures
from normbench.data.reading.augmentation import InMemory
from normbench.data.reading.listing import listed
from normbench.errors import RequestError, Stopped
from normbench.records import store
from normbench.records.store import Results
from normbench.training import experiment

SMALL_MEMORY = 1e-7


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    image_folder(tmp_path / "images", monkeypatch)
    return tmp_path / "images"


def loaded(root: Path, seed: int = 0, **options: Any) -> Images:
    given = {"path": str(root), "size": 16, **options}
    images: Images = REGISTRY.get("folder")(**REGISTRY.options("folder", given)).load(
        seed
    )
    return images


def bomb(path: Path, side: int = 100_000) -> None:
    """A PNG of a few bytes that says that it has so many pixels squared."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = (
        chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


BROKEN = {
    "truncated.jpg": cut,
    "truncated.png": cut,
    "text.jpg": lambda path: path.write_text("no picture"),
    "empty.png": lambda path: path.write_bytes(b""),
    "bomb.png": bomb,
}


def break_some(root: Path) -> list[str]:
    for name, harm in BROKEN.items():
        harm(picture(root / "class 1" / name))
    return sorted(BROKEN)


def test_a_folder_is_its_pictures_and_their_classes(root: Path) -> None:
    data = loaded(root)
    assert data.classes == ("class 0", "class 1", "class 2")
    assert data.labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert data.images.shape == (30, 3, 16, 16)
    assert isinstance(data.images, InMemory)
    with Image.open(root / "class 0" / "06.png") as file:
        scale = 16 / min(file.size)
        size = tuple(round(side * scale) for side in file.size)
        small = file.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - 16) // 2, (size[1] - 16) // 2
    expected = np.asarray(small)[top : top + 16, left : left + 16] / 255
    expected = (expected - image_files.MEAN) / image_files.STD
    got = data.images.batch(torch.tensor([2]))[0].permute(1, 2, 0)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_in_memory_and_images_in_files_are_the_same(
    workers: int, root: Path
) -> None:
    options = {"augment": ["crop", "flip"], "workers": workers}
    kept = loaded(root, **options)
    read = loaded(root, **options, memory_gb=SMALL_MEMORY)
    assert isinstance(read.images, image_files.ImageFiles) and isinstance(
        kept.images, InMemory
    )
    order = torch.randperm(30)
    read.images.expect(order, 4)
    read.images.expect(torch.arange(30))  # an evaluation within the epoch
    for batch in order.split(7):
        assert torch.equal(read.images.batch(batch, 4), kept.images.batch(batch, 4))
        held_out = batch.sort().values  # in another order than told
        assert torch.equal(read.images.batch(held_out), kept.images.batch(held_out))
    again = torch.tensor([3, 3, 1])
    assert torch.equal(read.images.batch(again), kept.images.batch(again))


def test_for_cuda_a_batch_is_copied_from_pinned_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = loaded(root, memory_gb=SMALL_MEMORY, workers=0).images
    assert isinstance(images, image_files.ImageFiles)
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(
        torch.Tensor, "pin_memory", lambda x: pinned.append(x.clone()) or pinned[-1]
    )
    index = torch.arange(3)
    on_cpu = images.batch(index)
    assert not pinned
    copied: list[tuple[torch.Tensor, torch.device, bool]] = []

    def copy(x: torch.Tensor, device: torch.device, non_blocking: bool) -> torch.Tensor:
        copied.append((x, device, non_blocking))
        return x

    monkeypatch.setattr(torch.Tensor, "to", copy)
    cuda = torch.device("cuda")
    assert torch.equal(images.to(cuda).batch(index), on_cpu)
    source, device, non_blocking = copied[0]
    assert source is pinned[0] and device == cuda and non_blocking


@pytest.mark.slow
def test_a_run_is_the_same_from_memory_and_from_files_and_resumed(
    root: Path, run: Run, tmp_path: Path
) -> None:
    overrides = ["task=cnn", "data=folder", f"data.path={root}", "data.size=16"]
    overrides += ["data.augment=[crop,flip,cutout]", "batch_size=4", "budget.epochs=3"]
    kept = run(*overrides)
    files = [f"data.memory_gb={SMALL_MEMORY}", "data.workers=1"]
    read = run(*overrides, *files, results=tmp_path / "read")
    assert kept.run_id == read.run_id
    assert kept.metrics == read.metrics and kept.steps == 10
    assert kept.facts == {"skipped_images": 0, "left_out_files": 1, "classes": 3}
    stop = iter([False] * 6 + [True])
    with pytest.raises(Stopped):
        experiment.run_one(
            read.config, Results(tmp_path / "stopped"), stop=lambda: next(stop)
        )
    assert (
        experiment.run_one(read.config, Results(tmp_path / "stopped")).metrics
        == read.metrics
    )


@pytest.mark.parametrize("memory_gb", [1.0, SMALL_MEMORY])
def test_broken_images_are_named_skipped_and_counted(
    memory_gb: float, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = loaded(root)
    names = break_some(root)
    with caplog.at_level(logging.WARNING):
        data = loaded(root, memory_gb=memory_gb)
    assert data.facts["skipped_images"] == 5
    [told] = [record.getMessage() for record in caplog.records]
    assert "skipped: 5 of 35 images cannot be read" in told
    assert all(str(root / "class 1" / name) in told for name in names[:3])
    assert "has more than" in told and "and 2 more" in told
    everything = torch.arange(30)
    assert not isinstance(data.images, torch.Tensor)
    assert not isinstance(whole.images, torch.Tensor)
    assert torch.equal(data.images.batch(everything), whole.images.batch(everything))
    assert torch.equal(data.labels, whole.labels)
    with pytest.raises(RequestError, match=r"data\.strict=true, and 5 of 35 images"):
        loaded(root, memory_gb=memory_gb, strict=True)


def test_a_record_of_skipped_images_is_none_of_a_strict_run(
    root: Path, run: Run, tmp_path: Path
) -> None:
    cut(root / "class 1" / "01.png")
    given = ["task=cnn", "data=folder", f"data.path={root}", "data.size=16"]
    given += ["batch_size=4", "budget.max_steps=1"]
    lenient = run(*given, results=tmp_path / "results")
    assert lenient.facts["skipped_images"] == 1
    place = store.run_folder(tmp_path / "results", lenient.run_id)
    assert store.satisfies(place, lenient, lenient.config)
    data = lenient.config.data.model_copy(update={"strict": True})
    strict = lenient.config.model_copy(update={"data": data})
    assert run_id(strict) == lenient.run_id
    with pytest.raises(RequestError, match=r"data\.strict=true, and 1 of 30 images"):
        experiment.run_one(strict, Results(tmp_path / "results"))
    assert store.read(place) == lenient


def test_how_files_are_read_is_no_part_of_the_identity(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["task=cnn", "data=folder", f"data.path={root}"]
    ids = {
        run_id(compose([*given, *more]))
        for more in ([], ["data.workers=0"], ["data.strict=true"], ["data.memory_gb=9"])
    }
    assert len(ids) == 1
    assert run_id(compose([*given, "data.size=32"])) not in ids
    # Which options say that is the data set's own word.
    monkeypatch.setattr(folder.Folder, "not_hashed", frozenset({"strict"}))
    more = [*given, "data.workers=0"]
    assert run_id(compose(more)) != run_id(compose(given))


def test_a_test_folder_is_the_test_part(root: Path, tmp_path: Path) -> None:
    test = tmp_path / "test"
    shutil.copytree(root / "class 1", test / "class 1")
    data = loaded(root, test_path=str(test))
    assert sorted(data.splits["test"].tolist()) == list(range(30, 40))
    assert data.labels[data.splits["test"]].tolist() == [1] * 10
    shutil.copytree(root / "class 1", test / "zebra")
    with pytest.raises(RequestError, match=r"has classes that .* lacks: zebra"):
        loaded(root, test_path=str(test))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda root: picture(root / "loose.png"),
            r"images outside of class folders \(loose\.png\)",
        ),
        (lambda root: shutil.rmtree(root / "class 0"), "only one class, class 2"),
        (lambda root: [cut(p) for p in (root / "class 1").iterdir()], "no image of"),
    ],
)
def test_a_folder_of_another_layout_is_refused(
    change: Any, words: str, root: Path
) -> None:
    if "one class" in words:
        shutil.rmtree(root / "class 1")
    change(root)
    with pytest.raises(RequestError, match=words):
        loaded(root)


def test_test_images_are_not_trained_on(root: Path, tmp_path: Path) -> None:
    inside = root / "test"
    shutil.copytree(root / "class 1", inside / "class 1")
    given = ["task=cnn", "data=folder", f"data.path={root}"]
    with pytest.raises(RequestError, match="are one inside the other, so the network"):
        compose([*given, f"data.test_path={inside}"])
    link = tmp_path / "link"
    link.symlink_to(root, target_is_directory=True)
    for same in (root, link):
        with pytest.raises(RequestError, match="are the same, so the network would"):
            compose([*given, f"data.test_path={same}"])
    beside = inside.rename(tmp_path / "images of the test")  # a name that begins alike
    assert compose([*given, f'data.test_path="{beside}"'])


def test_links_to_folders_are_followed_and_end(root: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    for name in ("class 0", "class 1"):
        (tmp_path / "linked" / name).symlink_to(root / name, target_is_directory=True)
    (root / "class 0" / "above").symlink_to(root, target_is_directory=True)
    found = listed(tmp_path / "linked").pictures
    assert len(found) == 20
    (root / "class 0" / "itself").symlink_to(root / "class 0")
    assert listed(tmp_path / "linked").pictures == found


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(RequestError, match=r"no images, only 1 \.txt; its layout"):
        loaded(tmp_path)


# One picture


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    lying = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "lying.jpg", exif=exif)
    assert pictures.read_picture(tmp_path / "lying.jpg").size == (20, 40)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_picture_becomes_colours(mode: str, tmp_path: Path) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    path = tmp_path / f"grey.{suffix}"
    if mode == "I;16":
        Image.fromarray(np.full((9, 12), 128 * 256, np.uint16)).save(path)
    else:
        Image.new("L", (12, 9), 255 if mode == "1" else 128).convert(mode).save(path)
    square = pictures.centre_square(path, 8)
    assert square.shape == (3, 8, 8) and square.dtype == torch.uint8
    expected = 255 if mode == "1" else 128
    assert (square.int() - expected).abs().max() <= 2


def pgm(path: Path, white: int, plain: bool = False) -> None:
    """Black, half of white, and white."""
    values = [0, white // 2, white]
    if plain:
        path.write_text(f"P2 3 1 {white}\n{' '.join(map(str, values))}\n")
    else:
        content = b"".join(value.to_bytes(2, "big") for value in values)
        path.write_bytes(b"P5 3 1 %d\n" % white + content)


def tiff_of_12_bits(path: Path) -> None:
    """Black, half of white, and white, two values in three bytes."""
    content = bytes.fromhex("000800fff0") + b"\0"
    sizes = [(256, 3), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1)]
    sizes += [(278, 1), (279, 5)]
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sizes)
    head = b"II*\0" + struct.pack("<I", 8 + len(content))
    path.write_bytes(head + content + struct.pack("<H", len(sizes)) + tags + bytes(4))


DEEP = {
    "16 bits.pgm": lambda path: pgm(path, 65535),
    "12 bits.pgm": lambda path: pgm(path, 4095),
    "white is 1000.pgm": lambda path: pgm(path, 1000),
    "plain.pgm": lambda path: pgm(path, 4095, plain=True),
    "12 bits.tif": tiff_of_12_bits,
    **{
        f"16 bits.{suffix}": lambda path: Image.fromarray(
            np.array([[0, 32767, 65535]], np.uint16)
        ).save(path)
        for suffix in ("png", "tif")
    },
}


@pytest.mark.parametrize("name", DEEP)
def test_of_a_deep_picture_the_upper_eight_bits_are_used(
    name: str, tmp_path: Path
) -> None:
    DEEP[name](tmp_path / name)
    black, half, white = np.asarray(pictures.read_picture(tmp_path / name))[0]
    assert black.tolist() == [0] * 3 and white.tolist() == [255] * 3
    assert set(half.tolist()) <= {127, 128}


@pytest.mark.parametrize("kind", ["int16", "int32", "uint32", "float32"])
def test_a_picture_of_unknown_white_is_skipped_and_named(
    kind: str, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = root / "class 1" / f"{kind}.tif"
    Image.fromarray(np.linspace(0, 1, 600).reshape(20, 30).astype(kind)).save(path)
    assert loaded(root).facts["skipped_images"] == 1
    assert f"{path} has signed or 32-bit values" in caplog.text


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert (pictures.centre_square(tmp_path / "clear.png", 8) == 255).all()
    assert pictures.read_picture(tmp_path / "clear.png").mode == "RGBA"


def test_a_line_is_not_scaled_to_a_picture_of_gigabytes(tmp_path: Path) -> None:
    Image.new("L", (1, 100_000)).save(tmp_path / "line.png")
    with pytest.raises(
        pictures.UnreadablePicture, match=r"1x100000 .* become 64x6400000"
    ):
        pictures.centre_square(tmp_path / "line.png", 64)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_a_clear_error(name: str, tmp_path: Path) -> None:
    path = picture(tmp_path / name)
    BROKEN[name](path)
    with pytest.raises(pictures.UnreadablePicture) as refused:
        pictures.read_picture(path)
    assert str(refused.value).startswith(str(path))
    assert len(str(refused.value).splitlines()) == 1


def test_the_bound_on_pixels_is_the_one_that_is_told(tmp_path: Path) -> None:
    bound = Image.MAX_IMAGE_PIXELS
    assert bound is not None
    side = round(bound**0.5 * 1.2)  # Pillow itself refuses twice the bound
    bomb(tmp_path / "large.png", side)
    with pytest.raises(
        pictures.UnreadablePicture, match=f"has more than {bound} pixels"
    ):
        pictures.read_picture(tmp_path / "large.png")


def test_many_threads_decode_in_order_and_an_unfinished_reader_ends(root: Path) -> None:
    paths = listed(root).pictures * 10
    cut(paths[7])
    images = list(image_files.decoded(paths, 16, 4))
    assert len(images) == len(paths)
    for path, image in zip(paths, images, strict=True):
        if path == paths[7]:
            assert isinstance(image, pictures.UnreadablePicture)
        else:
            assert isinstance(image, torch.Tensor)
            assert torch.equal(image, pictures.centre_square(path, 16)), path
    reader = image_files.decoded(paths, 16, 2)
    next(reader)
    reader.close()
    end = time.monotonic() + 60
    while any(thread.name.startswith("normbench-decode") for thread in enumerate_()):
        assert time.monotonic() < end
        time.sleep(0.01)
