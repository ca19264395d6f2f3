"""Images in a folder of the user's, a folder in it for each class."""

import copy
import json
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Annotated, Self

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from normbench.data.base import (
    Data,
    Fraction,
    Images,
    ImageSource,
)
from normbench.data.reading import copies, files
from normbench.data.reading.augmentation import (
    Augmentation,
    Augmentations,
    InMemory,
    augmented,
    standardised,
)
from normbench.data.reading.cache import Parsed, cached
from normbench.data.reading.layout import Layout, layout, of_layout
from normbench.data.reading.pictures import Unreadable, centre_square, skip
from normbench.data.splits import drawn
from normbench.errors import NormbenchError, RequestError
from normbench.system.signals import of_the_terminal

FORMAT = 3

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the training images of ImageNet, in [0, 1]: the constants that everybody uses."""

CHUNK = 32
"""Images that a worker reads at a time."""

MANY = 20_000
"""Images whose decoding takes so long that the user is told."""

log = logging.getLogger(__name__)


class Folder(Data, name="folder"):
    """Images in the layout of torchvision's ImageFolder: `path`/class/image.jpg.

    Each is scaled until its shorter side has `size` pixels and cut to the square in its
    centre, then standardised by ImageNet's constants. All are decoded once, the first
    time: those that cannot be are skipped, and recorded as "skipped_images", or refused
    (`strict`). What then fits into `memory_gb`, at 3 size^2 bytes an image, is kept as
    one tensor; what does not is read as it is used, by `workers` processes. Neither
    changes a number.
    """

    kind = Images
    packages = ("pillow",)
    path_options = frozenset({"path", "test_path"})
    not_hashed = frozenset({"strict", "memory_gb", "workers"})

    def __init__(
        self,
        *,
        path: str | None = None,
        test_path: str | None = None,
        size: Annotated[int, Field(ge=8, le=1024)] = 64,
        augment: Augmentations = [],  # noqa: B006 - never changed
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        strict: bool = False,
        memory_gb: PositiveFloat = 1.0,
        workers: NonNegativeInt = 2,
        fingerprint: str | None = None,
    ) -> None:
        self.roots = [files.folder("data.path", path)]
        if test_path is not None:
            self.roots.append(files.folder("data.test_path", test_path))
            files.require_apart(*self.roots)
        self.size, self.augment = size, augment
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.strict, self.memory_gb, self.workers = strict, memory_gb, workers
        self.fingerprint = fingerprint

    def hash_files(self) -> str:
        prints = [contents.fingerprint for contents in self._contents]
        found = "".join(each[: 32 // len(prints)] for each in prints)
        again = copies.copies(self._contents[0].digests)
        return copies.marked(found) if again else found

    def load(self, seed: int) -> Images:
        """All images that can be decoded; RequestError where a class has none."""
        found = self.hash_files()
        files.require(self.fingerprint, found)
        samples = self._layout.samples
        pixels, broken = self._decoded([sample.path for sample in samples], found)
        unread = [f"{files.shown(samples[i].path)} {why}" for i, why in broken.items()]
        skip(unread, f"{len(samples)} images", strict=self.strict)
        places = [i for i in range(len(samples)) if i not in broken]
        kept = [samples[i] for i in places]
        classes = sorted({sample.name for sample in samples})
        number = {name: i for i, name in enumerate(classes)}
        lost = sorted(set(classes) - {sample.name for sample in kept})
        if lost:
            named = files.shortened(map(files.shown, lost))
            raise RequestError(f"no image of {named} in {self.roots[0]} can be read")
        digests = [each for contents in self._contents for each in contents.digests]
        digests = [digests[i] for i in places]
        training = sum(sample.root == self.roots[0] for sample in kept)
        splits = drawn(
            [sample.name for sample in kept],
            len(kept) - training if len(self.roots) == 2 else None,
            same=digests,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            generator=torch.Generator().manual_seed(seed),
        )
        paths = [sample.path for sample in kept]
        images: ImageSource
        if pixels is None:
            images = Files(paths, self.size, self.augment, seed, self.workers)
        else:
            images = InMemory(pixels, MEAN, STD, self.augment, seed)
        return Images(
            images=images,
            labels=torch.tensor([number[sample.name] for sample in kept]),
            classes=tuple(classes),
            splits=splits,
            facts={
                "skipped_images": float(len(broken)),
                "left_out_files": float(self._layout.left_out()),
                "classes": float(len(classes)),
            },
            notes=of_layout(self._layout, kept).plus(
                copies.notes(self.roots[0], paths, digests, training)
            ),
        )

    @cached_property
    def _layout(self) -> Layout:
        return layout(self.roots)

    @cached_property
    def _contents(self) -> list[files.Contents]:
        return [
            files.contents(listing.pictures, listing.root)
            for listing in self._layout.listings
        ]

    def _decoded(
        self, paths: list[Path], fingerprint: str
    ) -> tuple[Tensor | None, dict[int, str]]:
        """The images (N, 3, size, size) uint8 where they fit; why the others do not."""
        whole = len(paths) * 3 * self.size**2 <= self.memory_gb * 1e9

        def decode() -> Parsed:
            broken = {}
            room = (len(paths) if whole else 0, 3, self.size, self.size)
            pixels, good = torch.empty(room, dtype=torch.uint8), 0
            if len(paths) > MANY:
                log.warning("decoding %d images, once: which can be read?", len(paths))
            read = loaded(paths, self.size, torch.arange(len(paths)), self.workers)
            for i, image in enumerate(read):
                if isinstance(image, str):
                    broken[str(i)] = image
                elif whole:
                    pixels[good] = image
                    good += 1
            tensors = {"pixels": pixels[:good]} if good else {}
            return Parsed(tensors, {"broken": json.dumps(broken)})

        identity = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "pillow": version("pillow"),
            "size": self.size,
            "whole": whole,
        }
        parsed = cached("folder", identity, decode)
        broken = json.loads(parsed.strings["broken"])
        return parsed.tensors.get("pixels"), {int(i): why for i, why in broken.items()}


class Files(ImageSource):
    """Images in files, each read when a batch asks for it, or shortly before.

    `expect` lets `workers` processes read ahead, in the order that it is told; what is
    asked for out of this order is read then and there.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: int,
        augment: Sequence[Augmentation],
        seed: int,
        workers: int,
    ) -> None:
        self._paths, self._size, self._workers = paths, size, workers
        self._augment, self._seed = augment, seed
        self._device = torch.device("cpu")
        self._ahead: dict[int | None, _Ahead] = {}

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._paths), 3, self._size, self._size

    def to(self, device: torch.device) -> Self:
        moved = copy.copy(self)
        moved._device, moved._ahead = device, {}
        return moved

    def expect(self, order: Tensor, epoch: int | None = None) -> None:
        if epoch is not None:
            # One epoch ends where another begins; an evaluation comes within one.
            self._ahead = {key: a for key, a in self._ahead.items() if key is None}
        self._ahead[epoch] = _Ahead(self._paths, self._size, order, self._workers)

    def batch(self, index: Tensor, epoch: int | None = None) -> Tensor:
        ahead = self._ahead.get(epoch)
        images = []
        for i in index.tolist():
            image = ahead.take(i) if ahead is not None else None
            if image is None:
                image = centre_square(self._paths[i], self._size)
            images.append(image)
        pixels = torch.stack(images)
        if self._device.type == "cuda":  # from other memory it copies while all wait
            pixels = pixels.pin_memory()
        x = standardised(pixels.to(self._device, non_blocking=True), MEAN, STD)
        if epoch is not None:
            x = augmented(x, self._augment, self._seed, epoch, index)
        return x


class _Ahead:
    """Samples in the order in which they will be asked for, read in the background."""

    def __init__(
        self, paths: Sequence[Path], size: int, order: Tensor, workers: int
    ) -> None:
        self._order = deque(order.tolist())
        self._images: Iterator[Tensor | str] | None = None
        self._start = partial(loaded, paths, size, order, workers)

    def take(self, sample: int) -> Tensor | None:
        """The image of `sample` if it is the next, else None."""
        if not self._order or self._order[0] != sample:
            return None
        self._order.popleft()
        if self._images is None:  # not before: an epoch may be told and not be used
            self._images = self._start()
        image = next(self._images)
        if isinstance(image, str):
            raise NormbenchError(f"an image could be read before, and now {image}")
        return image


class _Reading(Dataset["tuple[Tensor, dict[int, str]]"]):
    """Chunks of samples: the images, and why some places in it have none.

    One tensor, since each that comes from a worker holds a file open.
    """

    def __init__(self, paths: Sequence[Path], size: int, order: Tensor) -> None:
        self._paths, self._size = paths, size
        self._chunks = order.split(CHUNK)

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, chunk: int) -> tuple[Tensor, dict[int, str]]:
        samples = self._chunks[chunk].tolist()
        pixels = torch.zeros(len(samples), 3, self._size, self._size, dtype=torch.uint8)
        broken = {}
        for place, path in enumerate(self._paths[i] for i in samples):
            try:
                pixels[place] = centre_square(path, self._size)
            except Unreadable as error:
                broken[place] = str(error).removeprefix(f"{files.shown(path)} ")
        return pixels, broken


def _heed_the_run_alone(worker: int) -> None:
    """A signal may come to a whole group: the run ends the step it is in."""
    for number in of_the_terminal():
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere it cannot be asked who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        Thread(target=_end_when_the_run_says, daemon=True).start()


def _end_when_the_run_says() -> None:
    # Not ignored: at its own end the run sends SIGTERM to its readers, and waits.
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def loaded(
    paths: Sequence[Path], size: int, order: Tensor, workers: int
) -> Iterator[Tensor | str]:
    """The images of samples `order` (M,), in this order, or why there are none."""
    loader = DataLoader(
        _Reading(paths, size, order),
        batch_size=None,
        num_workers=workers,
        generator=torch.Generator(),  # it draws from the global one otherwise
        worker_init_fn=_heed_the_run_alone if workers else None,
        # Elsewhere than on Linux it is not safe. A worker of a sweep, itself spawned,
        # would spawn its readers, and each import torch for every evaluation.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )
    for pixels, broken in loader:
        for place, image in enumerate(pixels):
            # A view would keep the file open for as long as it is kept itself.
            yield broken.get(place) or image.clone()
