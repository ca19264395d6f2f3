"""torchvision's image sets: fetched once, checked, and kept as tensors.

The folder is $NORMBENCH_DATA, or else the user's data folder. A set is downloaded, with
torchvision's MD5 sums, into a folder of its own that is removed again, and converted:
what stays is one file of tensors with a digest, which appears by a rename. CIFAR comes
as pickles, which torchvision reads only after their sums are right; nothing that stays
is ever unpickled.
"""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import platformdirs
import torch
from filelock import FileLock
from safetensors import SafetensorError

from normbench.data.base import Data, Fraction, Images
from normbench.data.reading.augmentation import Augmentations, InMemory
from normbench.data.reading.cache import Parsed, read, write
from normbench.data.splits import held_out_split
from normbench.errors import RequestError

TIMEOUT = 15
"""Seconds without an answer after which a download is given up."""


def folder() -> Path:
    """Where downloaded sets are kept; it need not exist."""
    chosen = os.environ.get("NORMBENCH_DATA")
    path = chosen or platformdirs.user_data_dir("normbench")
    return Path(os.path.expanduser(path))  # noqa: PTH111 - where there is no home


class TorchvisionImages(Data, name=None):
    """A data set of torchvision's with a test part of its own.

    `images` are bytes, standardised by constants of the training images when a batch is
    taken. The seed draws the validation part from the training images.
    """

    kind = Images
    source: ClassVar[str]
    """The class in torchvision.datasets."""
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]

    def __init__(
        self,
        *,
        val_fraction: Fraction = 0.1,
        augment: Augmentations = [],  # noqa: B006 - never changed
    ) -> None:
        self.val_fraction = val_fraction
        self.augment = augment

    def load(self, seed: int) -> Images:
        """All images; RequestError where they can neither be read nor fetched."""
        parsed = fetched(self.name, self.source)
        training = int(parsed.strings["training"])
        labels = parsed.tensors["labels"].long()
        return Images(
            images=InMemory(
                parsed.tensors["images"], self.mean, self.std, self.augment, seed
            ),
            labels=labels,
            classes=tuple(json.loads(parsed.strings["classes"])),
            splits=held_out_split(
                training,
                len(labels) - training,
                val_fraction=self.val_fraction,
                generator=torch.Generator().manual_seed(seed),
            ),
        )


def fetched(name: str, source: str) -> Parsed:
    """Images (N, C, H, W) uint8 and labels of `source`, downloaded the first time.

    Archives that are in the folder `name` of the data folder are taken from there.
    Raises RequestError where the set is not here and cannot be fetched, or is damaged.
    """
    path = folder() / f"{name}.safetensors"
    try:
        return read(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, SafetensorError, ValueError) as error:
        raise RequestError(
            f"data={name}: {path} is damaged ({error}); remove it, and the next run "
            "fetches it again"
        ) from None
    try:
        folder().mkdir(parents=True, exist_ok=True)
        # One process fetches; others wait for it, and read what it made.
        with FileLock(folder() / f".{name}.lock"):
            if path.exists():
                return read(path)
            with emptied(folder() / f".{name}") as place:
                parsed = _fetch(name, source, place)
                write(place / path.name, parsed)
                (place / path.name).replace(path)
    except OSError as error:
        raise RequestError(
            f"data={name} cannot be kept in {folder()}: {error.strerror or error}; set "
            "NORMBENCH_DATA to a folder with room that can be written"
        ) from None
    return parsed


@contextmanager
def emptied(place: Path) -> Iterator[Path]:
    """A folder that is there within, without what a process that was killed left."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place)


def _fetch(name: str, source: str, place: Path) -> Parsed:
    from torchvision import datasets

    dataset = getattr(datasets, source)
    given = folder() / name
    names = _take_archives(dataset, given, place)
    try:
        with giving_up():
            training = dataset(place, train=True, download=True)
            test = dataset(place, train=False, download=True)
    except Exception as error:  # of urllib, tarfile, gzip, pickle and torchvision
        told = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(
            f"data={name} is not in {folder()}, and it cannot be fetched: "
            f"{told[:300]}\nNothing was kept. With a network the same command fetches "
            f"it; without, copy {', '.join(names)} to {given}"
        ) from None
    images, labels = (
        torch.cat([torch.as_tensor(getattr(part, field)) for part in (training, test)])
        for field in ("data", "targets")
    )
    # (N, H, W, C), or (N, H, W) where there is one channel.
    images = images.movedim(3, 1) if images.dim() == 4 else images[:, None]
    return Parsed(
        {"images": images.contiguous(), "labels": labels.to(torch.uint8)},
        {
            "classes": json.dumps([str(label) for label in training.classes]),
            "training": str(len(training.targets)),
        },
    )


def _take_archives(dataset: Any, given: Path, place: Path) -> list[str]:
    """Copy the archives that are in `given` to where torchvision looks; all names."""
    from torchvision.datasets.utils import check_integrity

    if hasattr(dataset, "resources"):  # of the MNIST family
        archives = dict(dataset.resources)
        place = place / dataset.__name__ / "raw"
    else:
        archives = {dataset.filename: dataset.tgz_md5}
    for archive, md5 in archives.items():
        if (given / archive).is_file():
            if not check_integrity(given / archive, md5):
                raise RequestError(
                    f"{given / archive} is not the file that torchvision knows: its "
                    f"MD5 sum is not {md5}; remove it or copy it again"
                )
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(given / archive, place / archive)
    return list(archives)


@contextmanager
def giving_up() -> Iterator[None]:
    """A download within ends with an error after TIMEOUT seconds without an answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
