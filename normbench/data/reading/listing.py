"""What is in a folder of the user's: pictures, and files that are left out."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from normbench.data.notes import Notes
from normbench.data.reading.files import shown
from normbench.errors import RequestError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff"}
    | {".webp", ".gif", ".avif"}
)
"""Suffixes of pictures, in lower case.

They do not depend on what Pillow can decode on this machine: the fingerprint of a
folder is the same everywhere.
"""

OF_SYSTEMS = frozenset(
    # macOS: archives and network volumes
    {"__macosx", "network trash folder", "temporary items", "icon\r"}
    # Windows
    | {"system volume information", "$recycle.bin", "found.000"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini"}
    # Linux and network storage
    | {"lost+found", "@eadir", "#recycle", "#snapshot", "@recycle"}
    | {"@recently-snapshot"}
)
"""Names, in lower case, that operating systems put into folders by themselves."""


class Listing(NamedTuple):
    """The pictures in the folder `root` and below, sorted by path, and other files.

    `others` counts the other files by their place (the first folder below `root`, or
    "") and kind; `empty` are the folders in `root` without any picture below them;
    `hidden` counts hidden files and folders, each folder as one.
    """

    root: Path
    pictures: list[Path]
    others: Counter[tuple[str, str]]
    empty: list[str]
    hidden: int

    def left_out(self, place: str | None = None) -> str:
        """Count the other files, such as "3 .heic, 1 .txt", of one place or of all."""
        counts: Counter[str] = Counter()
        for (where, kind), count in self.others.items():
            if place in {None, where}:
                counts[kind] += count
        kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
        listed = [f"{counts[kind]} {shown(kind)}" for kind in kinds[:6]]
        if kinds[6:]:
            listed.append(f"{sum(counts[kind] for kind in kinds[6:])} of other kinds")
        return ", ".join(listed)

    def notes(self, option: str) -> Notes:
        """Say which files in the folder of `option` are left out."""
        parts = [self.left_out()] if self.others else []
        if self.hidden:
            parts.append(f"{self.hidden} hidden or of an operating system")
        return Notes((f"{option}: left out {', '.join(parts)}",) if parts else ())


def listed(root: Path) -> Listing:
    """List the folder `root` and all folders below it, except hidden ones.

    Hidden names begin with a dot or belong to an operating system. Links to folders are
    followed. Raises RequestError if a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise RequestError(f"{shown(error.filename)} cannot be read: {error.strerror}")

    pictures: list[Path] = []
    others: Counter[tuple[str, str]] = Counter()
    folders: set[str] = set()
    hidden = 0
    for place, below, names in os.walk(root, onerror=refuse, followlinks=True):
        here = Path(place)
        real = here.resolve()
        hidden += sum(map(_is_hidden, [*below, *names]))
        below[:] = [
            name
            for name in below
            if not _is_hidden(name)
            # A link to a folder above would never end.
            and not real.is_relative_to((here / name).resolve())
        ]
        if here == root:
            folders.update(below)
        for path in (here / name for name in names if not _is_hidden(name)):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                pictures.append(path)
            else:
                first = "" if here == root else here.relative_to(root).parts[0]
                others[first, _kind(path)] += 1
    used = {path.relative_to(root).parts[0] for path in pictures}
    return Listing(root, sorted(pictures), others, sorted(folders - used), hidden)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in OF_SYSTEMS


def _kind(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "broken link"
    if not path.is_file():
        return "pipe or device"
    return path.suffix.lower() or "without suffix"
