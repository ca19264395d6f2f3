"""The user's images, in one folder per class."""

import json
import logging
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat
from torch import Tensor

from normbench.data.base import Data, Fraction, Images, ImageSource
from normbench.data.reading import copies, files
from normbench.data.reading.augmentation import Augmentations, InMemory
from normbench.data.reading.cache import Parsed, cached
from normbench.data.reading.image_files import MEAN, STD, ImageFiles, decoded
from normbench.data.reading.layout import Layout, layout
from normbench.data.reading.pictures import UnreadablePicture, skip
from normbench.data.splits import grouped_split
from normbench.errors import RequestError

FORMAT = 3

LARGE_SET = 20_000
"""Decoding more images than this takes minutes, so a log message announces it."""

log = logging.getLogger(__name__)


class Folder(Data, name="folder"):
    """Images in the layout of torchvision's ImageFolder: `path`/class/image.jpg.

    Each image is scaled until its shorter side has `size` pixels, cut to the square in
    its centre, and standardised by ImageNet's constants. The first run decodes all
    images. Unreadable images are skipped and counted as "skipped_images". With
    `strict`, they raise RequestError. An image takes 3 size^2 bytes. If all images fit
    into `memory_gb`, they are kept as one tensor. Otherwise `workers` threads decode
    an image each time it is used. Both ways give the same numbers.
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
        return copies.fingerprint(self._contents)

    def load(self, seed: int) -> Images:
        """Return all readable images; raise RequestError if a class has none."""
        fingerprint = self.hash_files()
        files.require_unchanged(self.fingerprint, fingerprint)
        samples = self._layout.samples
        tensor, broken = self._decoded([s.path for s in samples], fingerprint)
        reasons = [f"{files.shown(samples[i].path)} {why}" for i, why in broken.items()]
        skip(reasons, f"{len(samples)} images", strict=self.strict)
        kept = [i for i in range(len(samples)) if i not in broken]
        paths = [samples[i].path for i in kept]
        names = [samples[i].name for i in kept]
        classes = sorted({sample.name for sample in samples})
        class_index = {name: i for i, name in enumerate(classes)}
        if empty := sorted(set(classes) - set(names)):
            raise RequestError(
                f"no image of {files.shortened(map(files.shown, empty))} in "
                f"{self.roots[0]} can be read"
            )
        digests = [digest for part in self._contents for digest in part.digests]
        digests = [digests[i] for i in kept]
        training_count = sum(samples[i].root == self.roots[0] for i in kept)
        images: ImageSource
        if tensor is None:
            images = ImageFiles(paths, self.size, self.augment, seed, self.workers)
        else:
            images = InMemory(tensor, MEAN, STD, self.augment, seed)
        return Images(
            images=images,
            labels=torch.tensor([class_index[name] for name in names]),
            classes=tuple(classes),
            splits=grouped_split(
                names,
                # the size of the test part, if it has its own folder
                len(kept) - training_count if len(self.roots) == 2 else None,
                groups=digests,
                val_fraction=self.val_fraction,
                test_fraction=self.test_fraction,
                generator=torch.Generator().manual_seed(seed),
            ),
            facts={
                "skipped_images": float(len(broken)),
                "left_out_files": float(self._layout.left_out()),
                "classes": float(len(classes)),
            },
            notes=self._layout.notes([samples[i] for i in kept]).plus(
                copies.notes(self.roots[0], paths, digests, training_count)
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
        """Return the readable images (N, 3, size, size) uint8.

        Instead, return None if the images do not fit into `memory_gb`.
        Also return the reason for each unreadable image, by its index in `paths`.
        """
        fits = len(paths) * 3 * self.size**2 <= self.memory_gb * 1e9

        def decode() -> Parsed:
            if len(paths) > LARGE_SET:
                log.warning("decoding %d images once, to find broken ones", len(paths))
            broken: dict[int, str] = {}
            # If the images do not fit, they are decoded only to find broken images.
            count = len(paths) if fits else 0
            tensor = torch.empty(count, 3, self.size, self.size, dtype=torch.uint8)
            for i, image in enumerate(decoded(paths, self.size, self.workers)):
                if isinstance(image, UnreadablePicture):
                    broken[i] = image.why
                elif fits:
                    tensor[i - len(broken)] = image  # no gaps for broken images
            tensors = {"pixels": tensor[: len(paths) - len(broken)]} if fits else {}
            return Parsed(tensors, {"broken": json.dumps(broken)})

        identity = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "pillow": version("pillow"),
            "size": self.size,
            "whole": fits,
        }
        parsed = cached("folder", identity, decode)
        broken = json.loads(parsed.strings["broken"])
        return parsed.tensors.get("pixels"), {int(i): why for i, why in broken.items()}
