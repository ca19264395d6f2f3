"""Crops of the photographs in a folder of the user, and the user's style pictures."""

import json
from contextlib import suppress
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from normbench.data.base import SHOWN_SIDE, Data, Fraction, Photographs
from normbench.data.notes import Notes
from normbench.data.reading import copies, files
from normbench.data.reading.cache import Parsed, cached, digest
from normbench.data.reading.listing import Listing, listed
from normbench.data.reading.pictures import (
    UnreadablePicture,
    centre_square,
    pixels,
    random_crops,
    read_scaled,
    require_fit,
    skip,
)
from normbench.data.splits import consecutive_split, grouped_split
from normbench.errors import RequestError

FORMAT = 4
SHOWN = 3
"""Number of test photographs that the pictures of a run show."""


class ContentFolder(Data, name="content_folder"):
    """Square crops of the pictures in a folder and its subfolders, and style pictures.

    `crops` have the shape (train + val + test, 3, crop, crop). `styles` (S, 3,
    style_side, style_side) are the centres of the pictures `style_paths`. The network
    is to redraw crop i in style i mod S. The three parts share no picture. If a part
    has n crops, at most n pictures of this part are used. Unreadable pictures are
    skipped and counted as "skipped_images". With `strict`, they raise RequestError.
    `shown` (K, 3, 256, 256) are the centres of the first test pictures, at most 3.
    """

    kind = Photographs
    packages = ("pillow",)
    path_options = frozenset({"path", "style_paths"})
    not_hashed = frozenset({"strict"})

    def __init__(
        self,
        *,
        path: str | None = None,
        style_paths: list[str] = [],  # noqa: B006 - never changed
        crop: PositiveInt = 64,
        shorter_side: PositiveInt = 128,
        style_side: Annotated[int, Field(ge=16, le=1024)] = 128,
        train_crops: PositiveInt = 800,
        val_crops: PositiveInt = 64,
        test_crops: PositiveInt = 64,
        val_fraction: Fraction = 0.2,
        test_fraction: Fraction = 0.2,
        strict: bool = False,
        fingerprint: str | None = None,
    ) -> None:
        self.root = files.folder("data.path", path)
        if not style_paths:
            raise RequestError(
                "data.style_paths is not set; name at least one picture, such as "
                "data.style_paths=[A,B]"
            )
        self.style_paths = [files.file("data.style_paths", s) for s in style_paths]
        require_fit(crop, shorter_side)
        self.crop, self.shorter_side, self.style_side = crop, shorter_side, style_side
        self.crops = {"train": train_crops, "val": val_crops, "test": test_crops}
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.strict, self.fingerprint = strict, fingerprint

    def hash_files(self) -> str:
        return copies.fingerprint([self._contents, files.contents(self.style_paths)])

    def load(self, seed: int) -> Photographs:
        """Return all crops; raise RequestError if there are too few pictures."""
        files.require_unchanged(self.fingerprint, self.hash_files())
        identity = {
            "format": FORMAT,
            "pillow": version("pillow"),
            "fingerprint": self.hash_files(),
            "seed": seed,
            "sizes": [self.crop, self.shorter_side, self.style_side],
            "crops": self.crops,
            "fractions": [self.val_fraction, self.test_fraction],
        }
        parsed = cached("content_folder", identity, lambda: self._parse(seed))
        broken = json.loads(parsed.strings["broken"])
        skip(broken, f"the pictures in {self.root}", strict=self.strict)
        return Photographs(
            crops=parsed.tensors["crops"].float() / 255,
            styles=parsed.tensors["styles"].float() / 255,
            key=digest(identity, parsed.tensors),
            splits=consecutive_split(self.crops),
            shown=parsed.tensors["shown"].float() / 255,
            facts={
                "skipped_images": float(len(broken)),
                "left_out_files": float(self._listing.others.total()),
            },
            notes=self._notes(),
        )

    @cached_property
    def _listing(self) -> Listing:
        listing = listed(self.root)
        if not listing.pictures:
            others = f", only {listing.left_out()}" if listing.others else ""
            raise RequestError(
                f"{self.root} and its subfolders have no pictures{others}"
            )
        return listing

    @cached_property
    def _contents(self) -> files.Contents:
        return files.contents(self._listing.pictures, self.root)

    def _notes(self) -> Notes:
        paths, styles = self._listing.pictures, len(self.style_paths)
        summary = f"data.path: {len(paths)} photographs, to redraw in {styles} styles"
        return Notes((summary,)).plus(
            self._listing.notes("data.path"),
            # All pictures count as training pictures, because there is no test folder.
            copies.notes(self.root, paths, self._contents.digests, len(paths)),
        )

    def _parse(self, seed: int) -> Parsed:
        paths = self._listing.pictures
        generator = torch.Generator().manual_seed(seed)
        parts = grouped_split(
            [None] * len(paths),  # the pictures have no labels
            groups=self._contents.digests,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            generator=generator,
        )
        broken: list[str] = []
        crops: list[Tensor] = []
        for part, count in self.crops.items():
            candidates = [paths[i] for i in parts[part].tolist()]
            pictures = self._read(candidates, count, part, broken)
            crops += random_crops(pictures, self.crop, count, generator)
        shown: list[Tensor] = []
        for path in (paths[i] for i in parts["test"].tolist()):
            if len(shown) == SHOWN:
                break
            with suppress(UnreadablePicture):
                shown.append(centre_square(path, SHOWN_SIDE))
        styles = [centre_square(path, self.style_side) for path in self.style_paths]
        return Parsed(
            {
                "crops": torch.stack(crops),
                "styles": torch.stack(styles),
                "shown": torch.stack(shown),
            },
            {"broken": json.dumps(broken)},
        )

    def _read(
        self, paths: list[Path], count: int, part: str, broken: list[str]
    ) -> list[Tensor]:
        """Return the first `count` readable pictures of `paths`.

        Append a line to `broken` for each picture that could not be read.
        Raises RequestError if no picture is readable.
        """
        pictures: list[Tensor] = []
        for path in paths:
            if len(pictures) == count:
                break
            try:
                pictures.append(pixels(read_scaled(path, self.shorter_side)))
            except UnreadablePicture as error:
                name = files.shown(path.relative_to(self.root))
                broken.append(f"{name} {error.why}")
        if not pictures:
            raise RequestError(
                f"no picture of the {part} part in {self.root} can be read: "
                f"{files.shortened(broken, 2)}"
            )
        return pictures
