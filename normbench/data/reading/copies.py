"""Copies of pictures in the user's folders: the same bytes under another name."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from normbench.data.notes import Notes
from normbench.data.reading.files import Contents, shortened, shown

EMPTY = sha256(b"").digest()


def fingerprint(contents: Sequence[Contents]) -> str:
    """Return 32 hex digits over the `contents` of one or two folders, or other files.

    If the first has copies, the hash differs from that of an earlier version, which did
    not keep copies in one part and so drew another split.
    """
    joined = "".join(part.fingerprint[: 32 // len(contents)] for part in contents)
    digests = [digest for digest in contents[0].digests if digest != EMPTY]
    if len(set(digests)) == len(digests):
        return joined
    return sha256(f"{joined} copies in one part".encode()).hexdigest()[:32]


def notes(
    root: Path, paths: Sequence[Path], digests: Sequence[bytes], training: int
) -> Notes:
    """Warn of copies among the first `training` pictures, and of copies of them later.

    The later pictures are the test part. `digests` are those of the files `paths`.
    """

    def name(place: int) -> str:
        path = paths[place]
        return shown(path.relative_to(root) if path.is_relative_to(root) else path)

    def example(pairs: Sequence[tuple[int, int]]) -> str:
        return shortened((f"{name(a)} = {name(b)}" for a, b in pairs), 2)

    first: dict[bytes, int] = {}
    again: list[tuple[int, int]] = []
    leaked: list[tuple[int, int]] = []
    for place, digest in enumerate(digests):
        if digest in first:
            (again if place < training else leaked).append((first[digest], place))
        elif place < training and digest != EMPTY:
            first[digest] = place
    warnings = []
    if again:
        warnings.append(
            f"data.path: {len(again)} of {training} pictures are copies of another "
            f"({example(again)}): one part has them together; remove the copies"
        )
    if leaked:
        warnings.append(
            f"data.test_path: {len(leaked)} pictures are copies of one in data.path "
            f"({example(leaked)}), which is trained on; remove the copies"
        )
    return Notes((), tuple(warnings))
