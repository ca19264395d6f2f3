"""Download torchvision's image data sets once, check them, and keep them as tensors.

The environment variable NORMBENCH_DATA names the folder. If the variable is not set,
the folder is in the user's data folder. torchvision downloads a data set into a
temporary folder and checks its MD5 sums. This module then writes one file with the
tensors and their digest, and moves this file into the folder in one atomic step. The
files of CIFAR are pickles. torchvision loads a pickle only if its MD5 sum is right, and
this module does not keep the pickles.
"""

import json
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
from normbench.data.reading.cache import Parsed, read, user_folder, write
from normbench.data.splits import held_out_split
from normbench.errors import RequestError

TIMEOUT = 15
"""Seconds without an answer after which a download fails."""


def folder() -> Path:
    """Return the folder of downloaded data sets, which may not exist yet."""
    return user_folder("NORMBENCH_DATA", platformdirs.user_data_dir("normbench"))


class TorchvisionImages(Data, name=None):
    """A data set of torchvision, with the test part that it comes with.

    `images` are kept as uint8. Each batch is standardised by constants of the training
    images. The seed draws the validation part from the training images.
    """

    kind = Images
    source: ClassVar[str]
    """The name of the class in torchvision.datasets."""
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
        """Return all images; raise RequestError if they cannot be fetched."""
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
    """Return the images (N, C, H, W) uint8 and labels of torchvision's class `source`.

    The first call downloads the data set. It downloads no archive that the user has
    copied to the folder `name` in the data folder. Raises RequestError if the data set
    is damaged or cannot be downloaded.
    """
    path = folder() / f"{name}.safetensors"
    try:
        return read(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, SafetensorError, ValueError) as error:
        raise RequestError(
            f"data={name}: {path} is damaged ({error}); remove it, and the next run "
            "downloads it again"
        ) from None
    try:
        folder().mkdir(parents=True, exist_ok=True)
        # One process downloads. The others wait, and read the file that it wrote.
        with FileLock(folder() / f".{name}.lock"):
            if path.exists():
                return read(path)
            with temporary_folder(folder() / f".{name}") as temporary:
                parsed = _fetch(name, source, temporary)
                write(temporary / path.name, parsed)
                (temporary / path.name).replace(path)
    except OSError as error:
        raise RequestError(
            f"data={name} cannot be written to {folder()}: {error.strerror or error}; "
            "set NORMBENCH_DATA to a writable folder with enough space"
        ) from None
    return parsed


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Create an empty folder, and remove it at the end.

    If a killed process left the folder behind, its content is removed first.
    """
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _fetch(name: str, source: str, temporary: Path) -> Parsed:
    from torchvision import datasets

    dataset = getattr(datasets, source)
    archives = folder() / name
    archive_names = _copy_archives(dataset, archives, temporary)
    try:
        with socket_timeout():
            training = dataset(temporary, train=True, download=True)
            test = dataset(temporary, train=False, download=True)
    except Exception as error:  # many types: urllib, tarfile, gzip, pickle, torchvision
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(
            f"data={name} is not in {folder()} and cannot be downloaded: "
            f"{reason[:300]}\nNothing was kept. Run the same command with an internet "
            f"connection, or copy {', '.join(archive_names)} to {archives}"
        ) from None
    images, labels = (
        torch.cat([torch.as_tensor(getattr(part, field)) for part in (training, test)])
        for field in ("data", "targets")
    )
    # The images are (N, H, W, C), or (N, H, W) if they have one channel.
    images = images.movedim(3, 1) if images.dim() == 4 else images[:, None]
    return Parsed(
        {"images": images.contiguous(), "labels": labels.to(torch.uint8)},
        {
            "classes": json.dumps([str(label) for label in training.classes]),
            "training": str(len(training.targets)),
        },
    )


def _copy_archives(dataset: Any, archives: Path, temporary: Path) -> list[str]:
    """Copy the archives in the folder `archives` to the folder that torchvision reads.

    Return the names of all archives of the data set, whether or not they exist.
    """
    from torchvision.datasets.utils import check_integrity

    if hasattr(dataset, "resources"):  # the MNIST family
        md5_sums = dict(dataset.resources)
        target = temporary / dataset.__name__ / "raw"
    else:
        md5_sums = {dataset.filename: dataset.tgz_md5}
        target = temporary
    for name, md5 in md5_sums.items():
        archive = archives / name
        if archive.is_file():
            if not check_integrity(archive, md5):
                raise RequestError(
                    f"{archive} is not the file that torchvision expects: its MD5 sum "
                    f"is not {md5}; remove it or copy it again"
                )
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(archive, target / name)
    return list(md5_sums)


@contextmanager
def socket_timeout() -> Iterator[None]:
    """Make new sockets fail after TIMEOUT seconds without an answer."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
