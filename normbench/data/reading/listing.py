"""List the pictures in a folder of the user, and the files that are left out."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from normbench.data.notes import Notes
from normbench.data.reading.files import shown, unreadable

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff"}
    | {".webp", ".gif", ".avif"}
)
"""Suffixes of pictures, in lower case.

The list does not depend on the version of Pillow, so that a folder has the same
fingerprint on every machine.
"""

SYSTEM_NAMES = frozenset(
    # macOS: archives and network volumes
    {"__macosx", "network trash folder", "temporary items", "icon\r"}
    # Windows
    | {"system volume information", "$recycle.bin", "found.000"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini"}
    # Linux and network storage
    | {"lost+found", "@eadir", "#recycle", "#snapshot", "@recycle"}
    | {"@recently-snapshot"}
)
"""Names, in lower case, of files and folders that operating systems create."""


class Listing(NamedTuple):
    """The pictures in `root` and its subfolders, sorted by path, and the other files.

    `others` counts the other files by top-level folder ("" for `root` itself) and kind.
    `empty` are the top-level folders without pictures. `hidden` counts hidden files and
    hidden folders. A hidden folder counts once, with all its files.
    """

    root: Path
    pictures: list[Path]
    others: Counter[tuple[str, str]]
    empty: list[str]
    hidden: int

    def left_out(self, folder: str | None = None) -> str:
        """Describe the other files in one top-level folder, or in all folders.

        For example: "3 .heic, 1 .txt".
        """
        counts: Counter[str] = Counter()
        for (top_folder, kind), count in self.others.items():
            if folder in {None, top_folder}:
                counts[kind] += count
        kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
        listed = [f"{counts[kind]} {shown(kind)}" for kind in kinds[:6]]
        if kinds[6:]:
            listed.append(f"{sum(counts[kind] for kind in kinds[6:])} of other kinds")
        return ", ".join(listed)

    def notes(self, option: str) -> Notes:
        """Describe which files in the folder of `option` are left out."""
        parts = [self.left_out()] if self.others else []
        if self.hidden:
            parts.append(f"{self.hidden} hidden or system files")
        return Notes((f"{option}: left out {', '.join(parts)}",) if parts else ())


def listed(root: Path) -> Listing:
    """List the folder `root` and all its subfolders except hidden ones.

    Hidden names begin with a dot or are in SYSTEM_NAMES. Links to folders are followed.
    Raises RequestError if a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise unreadable(error)

    pictures: list[Path] = []
    others: Counter[tuple[str, str]] = Counter()
    top_folders: set[str] = set()
    hidden = 0
    for current, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        folder = Path(current)
        real = folder.resolve()
        hidden += sum(map(_is_hidden, [*subfolders, *names]))
        # os.walk enters only the folders that stay in this list. A link to a parent
        # folder is removed, because the walk would never end.
        subfolders[:] = [
            name
            for name in subfolders
            if not _is_hidden(name)
            and not real.is_relative_to((folder / name).resolve())
        ]
        if folder == root:
            top_folders.update(subfolders)
        for path in (folder / name for name in names if not _is_hidden(name)):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                pictures.append(path)
            else:
                top = "" if folder == root else folder.relative_to(root).parts[0]
                others[top, _kind(path)] += 1
    used = {path.relative_to(root).parts[0] for path in pictures}
    empty = sorted(top_folders - used)
    return Listing(root, sorted(pictures), others, empty, hidden)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _kind(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "broken link"
    if not path.is_file():
        return "pipe or device"
    return path.suffix.lower() or "without suffix"
