"""Pictures that a folder of the user's has several times: same bytes, another name."""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from normbench.data.notes import Notes
from normbench.data.reading.files import shortened, shown

EMPTY = sha256(b"").digest()


def copies(digests: Sequence[bytes]) -> dict[bytes, list[int]]:
    """Where there are several files of one content: their places, by its digest.

    Files with nothing in them are none.
    """
    places: dict[bytes, list[int]] = defaultdict(list)
    for place, digest in enumerate(digests):
        places[digest].append(place)
    return {
        digest: where
        for digest, where in places.items()
        if len(where) > 1 and digest != EMPTY
    }


def marked(fingerprint: str) -> str:
    """The fingerprint of files with copies among them, which one part has together.

    It is another than that of their bytes: an earlier version, which had no eye for
    copies, drew another split.
    """
    return sha256(f"{fingerprint} copies in one part".encode()).hexdigest()[:32]


def notes(
    root: Path, paths: Sequence[Path], digests: Sequence[bytes], training: int
) -> Notes:
    """Warnings of pictures that are there several times: same bytes, another name.

    The first `training` are drawn from; those after it are the test part.
    """

    def name(place: int) -> str:
        path = paths[place]
        return shown(path.relative_to(root) if path.is_relative_to(root) else path)

    def example(pairs: Sequence[tuple[int, int]]) -> str:
        return shortened((f"{name(a)} = {name(b)}" for a, b in pairs), 2)

    warnings = []
    again = [
        (where[0], each)
        for where in copies(digests[:training]).values()
        for each in where[1:]
    ]
    if again:
        warnings.append(
            f"data.path: {len(again)} of {training} pictures are copies of another "
            f"({example(again)}): one part has them together; remove the copies"
        )
    known = {digest: place for place, digest in enumerate(digests[:training])}
    leaked = [
        (known[digest], place)
        for place, digest in enumerate(digests[training:], training)
        if digest in known and digest != EMPTY
    ]
    if leaked:
        warnings.append(
            f"data.test_path: {len(leaked)} pictures are copies of one in data.path "
            f"({example(leaked)}), which is trained on; remove the copies"
        )
    return Notes((), tuple(warnings))
