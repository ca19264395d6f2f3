"""Makes small data sets in the file formats of real data sets."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

Options = dict[str, Any]
Made = Callable[[Path, pytest.MonkeyPatch], Options]

PER_FILE = 30
"""Number of images in every CIFAR file."""


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def random_bytes(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def cifar(folder: Path, patch: pytest.MonkeyPatch, source: str) -> Path:
    """Make an archive in the format of CIFAR; let torchvision expect its checksums."""
    cls: Any = getattr(datasets, source)
    fine = source == "CIFAR100"
    classes = 100 if fine else 10
    pixels = random_bytes(6 * PER_FILE, 3 * 32 * 32)
    pixels[:, :1024] //= 2  # red is darker, so that tests detect a wrong channel order
    files = {}
    train = [name for name, _ in cls.train_list]
    parts = np.split(np.arange(5 * PER_FILE), len(train))
    parts.append(np.arange(5 * PER_FILE, 6 * PER_FILE))
    for name, part in zip([*train, cls.test_list[0][0]], parts, strict=True):
        labels = [int(i) % classes for i in part]
        key = "fine_labels" if fine else "labels"
        files[name] = pickle.dumps({"data": pixels[part], key: labels})
    names = [f"class {i}" for i in range(classes)]
    files[cls.meta["filename"]] = pickle.dumps({cls.meta["key"]: names})
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / cls.filename
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{cls.base_folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    patch.setattr(cls, "tgz_md5", md5(archive.read_bytes()))
    patch.setattr(cls, "train_list", [[n, md5(files[n])] for n in train])
    test = cls.test_list[0][0]
    patch.setattr(cls, "test_list", [[test, md5(files[test])]])
    meta = cls.meta["filename"]
    patch.setattr(cls, "meta", cls.meta | {"md5": md5(files[meta])})
    return archive


def mnist(folder: Path, patch: pytest.MonkeyPatch, source: str) -> Path:
    """Make archives in the format of MNIST; let torchvision expect their checksums.

    Return the path of the first archive.
    """
    cls: Any = getattr(datasets, source)
    folder.mkdir(parents=True, exist_ok=True)
    resources = []
    for name, _ in cls.resources:
        count = 100 if name.startswith("train") else 40
        if "images" in name:
            head = struct.pack(">IIII", 0x803, count, 28, 28)
            content = head + random_bytes(count, 28, 28).tobytes()
        else:
            labels = (np.arange(count) % 10).astype(np.uint8)
            content = struct.pack(">II", 0x801, count) + labels.tobytes()
        (folder / name).write_bytes(gzip.compress(content))
        resources.append((name, md5((folder / name).read_bytes())))
    patch.setattr(cls, "resources", resources)
    return folder / str(resources[0][0])


TORCHVISION = {
    "cifar10": ("CIFAR10", cifar),
    "cifar100": ("CIFAR100", cifar),
    "mnist": ("MNIST", mnist),
    "fashion_mnist": ("FashionMNIST", mnist),
}
"""The torchvision class of a data set, and the function that makes its archives."""


def _archives(name: str) -> Made:
    """Return a function that makes the archives of data set `name`."""

    def made(folder: Path, patch: pytest.MonkeyPatch) -> Options:
        source, make = TORCHVISION[name]
        patch.setenv("NORMBENCH_DATA", str(folder / "data"))
        make(folder / "data" / name, patch, source)
        return {}

    return made


def text_csv(folder: Path, _: pytest.MonkeyPatch) -> Options:
    """Make a CSV file of sixty short texts that contain their label."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["good", "bad", "fair"]
    rows = [f'"so {words[i % 3]}, text {i}",{words[i % 3]}' for i in range(60)]
    (folder / "texts.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return {"path": str(folder / "texts.csv"), "vocab_size": 200}


def picture(path: Path, width: int = 40, height: int = 30, seed: int = 0) -> Path:
    """Write a picture of noise in the format of the suffix of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def picture_bomb(path: Path, side: int = 100_000) -> Path:
    """Make a PNG of a few bytes that claims to have `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b""))
    return path


def broken_pictures(folder: Path) -> list[Path]:
    """Make five files that look like pictures and cannot be decoded, sorted by name."""
    truncated = [picture(folder / f"truncated.{kind}") for kind in ("jpg", "png")]
    for path in truncated:
        truncate(path)
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty.png").touch()
    bomb = picture_bomb(folder / "bomb.png")
    return [bomb, folder / "empty.png", folder / "text.jpg", *truncated]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def image_folder(folder: Path, _: pytest.MonkeyPatch) -> Options:
    """Make thirty pictures of three classes, in several formats and sizes."""
    suffixes = ("jpg", "png", "bmp", "webp", "PNG")
    for i in range(30):
        path = folder / f"class {i % 3}" / f"{i:02}.{suffixes[i % 5]}"
        picture(path, 40 + i, 30 + i % 7, seed=i)
    (folder / "class 0" / "notes.txt").write_text("no picture")
    return {"path": str(folder), "size": 16}


def content_folder(folder: Path, _: pytest.MonkeyPatch) -> Options:
    """Make a folder of nine photographs of noise and, beside it, two style pictures."""
    for i in range(9):
        picture(folder / "content" / f"{i}.png", 40 + i, 30, seed=i)
    styles = [picture(folder / f"style {i}.png", seed=20 + i) for i in range(2)]
    return {
        "path": str(folder / "content"),
        "style_paths": [str(style) for style in styles],
        "crop": 16,
        "shorter_side": 20,
        "train_crops": 16,
        "val_crops": 4,
        "test_crops": 4,
    }


def hf(folder: Path, _: pytest.MonkeyPatch) -> Options:
    """Save forty training texts and ten test texts with `save_to_disk` of datasets."""
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["good", "bad"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    texts = [f"so {['good', 'bad'][i % 2]} {'very ' * (i % 4)}{i}" for i in range(50)]
    parts = {"train": range(40), "test": range(40, 50)}
    tables = {
        part: datasets.Dataset.from_dict(
            {"text": [texts[i] for i in rows], "label": [i % 2 for i in rows]},
            features=features,
        )
        for part, rows in parts.items()
    }
    datasets.DatasetDict(tables).save_to_disk(str(folder))
    return {"dataset": str(folder), "vocab_size": 200}


MATERIAL: dict[str, Made] = {
    "hf": hf,
    "content_folder": content_folder,
    "folder": image_folder,
    **{name: _archives(name) for name in TORCHVISION},
    "text_csv": text_csv,
}
"""For every data set that reads files, a function that makes the files in a folder and
returns the options to read them."""


def options(name: str, folder: Path, patch: pytest.MonkeyPatch) -> Options:
    """Make the files of data set `name`, if it reads files; return its options."""
    return MATERIAL[name](folder, patch) if name in MATERIAL else {}
