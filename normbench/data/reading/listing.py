"""What is in a folder of the user's: pictures, and what is left out, and why."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from normbench.data.reading.files import shown
from normbench.errors import RequestError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff"}
    | {".webp", ".gif", ".avif"}
)
"""Of the files in a folder that are taken for pictures, in any case.

The list does not depend on what this machine's Pillow can decode: the fingerprint of a
folder is the same everywhere.
"""

OF_SYSTEMS = frozenset(
    # macOS: archives, and volumes of a network
    {"__macosx", "network trash folder", "temporary items", "icon\r"}
    # Windows
    | {"system volume information", "$recycle.bin", "found.000"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini"}
    # Linux, and disks of a network
    | {"lost+found", "@eadir", "#recycle", "#snapshot", "@recycle"}
    | {"@recently-snapshot"}
)
"""Names, in lower case, of what an operating system puts into folders by itself."""


class Listing(NamedTuple):
    """The pictures in a folder and below, and what else is there.

    `pictures` are sorted by their place; `others` counts the other files by their place
    (the first folder, "" for none) and suffix; `empty` are the folders in `root` that
    have no picture, in them and below; `hidden` counts the names that are passed over,
    a folder with all that is in it as one.
    """

    root: Path
    pictures: list[Path]
    others: Counter[tuple[str, str]]
    empty: list[str]
    hidden: int

    def why(self, within: str | None = None) -> str:
        """What is left out, such as "3 .heic, 1 .txt"; `within` one folder alone."""
        counts: Counter[str] = Counter()
        for (place, suffix), count in self.others.items():
            if within in {None, place}:
                counts[suffix] += count
        first = sorted(counts, key=lambda suffix: (-counts[suffix], suffix))[:6]
        told = [f"{counts[suffix]} {shown(suffix)}" for suffix in first]
        if rest := counts.total() - sum(counts[suffix] for suffix in first):
            told.append(f"{rest} of other kinds")
        return ", ".join(told)


def is_hidden(name: str) -> bool:
    """Whether `name`, of a file or a folder, is none that a user has put there."""
    return name.startswith(".") or name.lower() in OF_SYSTEMS


def listed(folder: Path) -> Listing:
    """What is in `folder` and below. Names that begin with a dot, and those that
    operating systems make, are passed over with all that is in them.

    Links to folders are followed. Raises RequestError where a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise RequestError(f"{shown(error.filename)} cannot be read: {error.strerror}")

    found: list[Path] = []
    others: Counter[tuple[str, str]] = Counter()
    folders: list[str] = []
    hidden = 0
    for place, below, names in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(place)
        real = here.resolve()
        hidden += sum(map(is_hidden, [*below, *names]))
        # A link to a folder that it is in would never end.
        below[:] = [
            name
            for name in below
            if not is_hidden(name) and not real.is_relative_to((here / name).resolve())
        ]
        first = "" if here == folder else here.relative_to(folder).parts[0]
        if here == folder:
            folders = list(below)
        for name in names:
            if is_hidden(name):
                continue
            path = here / name
            if path.suffix.lower() in SUFFIXES and path.is_file():
                found.append(path)
            else:
                others[first, _kind(path)] += 1
    used = {path.relative_to(folder).parts[0] for path in found}
    empty = sorted(set(folders) - used)
    return Listing(folder, sorted(found), others, empty, hidden)


def _kind(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "broken link"
    if not path.is_file():
        return "pipe or device"
    return path.suffix.lower() or "without suffix"
