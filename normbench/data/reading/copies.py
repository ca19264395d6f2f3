"""Find copies among the user's pictures: equal files under different names."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from normbench.data.notes import Notes
from normbench.data.reading.files import Contents, shortened, shown

EMPTY = sha256(b"").digest()


def fingerprint(contents: Sequence[Contents]) -> str:
    """Return a hash, 32 hex digits, of the `contents` of one or two groups of files.

    An earlier version did not keep copies in one part, so its splits differ if the
    first group has copies. In this case, the hash differs from the earlier hash too.
    """
    # Each group gives an equal share of the 32 digits.
    joined = "".join(part.fingerprint[: 32 // len(contents)] for part in contents)
    digests = [digest for digest in contents[0].digests if digest != EMPTY]
    if len(set(digests)) == len(digests):
        return joined
    return sha256(f"{joined} copies in one part".encode()).hexdigest()[:32]


def notes(
    root: Path, paths: Sequence[Path], digests: Sequence[bytes], training: int
) -> Notes:
    """Warn about copies of training pictures.

    `digests` are the hashes of the files `paths`. The first `training` files are the
    training pictures, below `root`; the others are the test part.
    """

    def name(index: int) -> str:
        path = paths[index]
        return shown(path.relative_to(root) if path.is_relative_to(root) else path)

    def example(pairs: Sequence[tuple[int, int]]) -> str:
        return shortened((f"{name(a)} = {name(b)}" for a, b in pairs), 2)

    originals: dict[bytes, int] = {}
    copies: list[tuple[int, int]] = []
    leaked: list[tuple[int, int]] = []
    for index, digest in enumerate(digests):
        if digest in originals:
            pairs = copies if index < training else leaked
            pairs.append((originals[digest], index))
        # Only training pictures are originals. Empty files are not copies.
        elif index < training and digest != EMPTY:
            originals[digest] = index
    warnings = []
    if copies:
        warnings.append(
            f"data.path: {len(copies)} of {training} pictures are copies of another "
            f"picture ({example(copies)}); copies are kept in the same part, but it is "
            "better to remove them"
        )
    if leaked:
        warnings.append(
            f"data.test_path: {len(leaked)} pictures are copies of training pictures "
            f"in data.path ({example(leaked)}); remove the copies"
        )
    return Notes(warnings=tuple(warnings))
