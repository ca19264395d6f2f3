"""Data inside this program or a package that it needs: the files, and their hash."""

import hashlib
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch

from normbench.errors import RequestError


def package_file(package: str, module: str, path: str) -> Path:
    """The file at `path` below the top-level `module` of `package`, without its import.

    Raises RequestError where the package is not installed or has no such file.
    """
    spec = find_spec(module)
    where = spec.submodule_search_locations if spec else None
    if not where:
        raise RequestError(
            f"the data come inside the package {package}, which is not installed; "
            f"pip install {package}"
        )
    file = Path(where[0], path)
    if not file.is_file():
        raise RequestError(
            f"the data are in {file} of the package {package}, which is missing; "
            f"pip install --force-reinstall --no-deps {package}"
        )
    return file


@cache
def content_hash(format: int, *files: Path) -> str:
    """32 hex digits over the bytes of `files`, in order, and what is made of them.

    That is `format`, which a module raises when its code makes other samples of the
    same files, and a few numbers of torch's generator, which draws all splits. What
    packages do between a file and a network (decode, scale, learn byte pairs) is not in
    it: it would take seconds in every command. Their versions are in each record, and
    a verdict says where runs have several (`Data.packages`). Raises RequestError where
    a file cannot be read.
    """
    generator = torch.Generator().manual_seed(0)
    draws = [
        torch.randperm(100, generator=generator),
        torch.randint(100, (100,), generator=generator),
        torch.rand(100, generator=generator),
    ]
    told = json.dumps([format, *(drawn.tolist() for drawn in draws)])
    hash = hashlib.sha256(told.encode())
    for file in files:
        try:
            hash.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError as error:
            raise RequestError(f"{file} cannot be read: {error.strerror}") from None
    return hash.hexdigest()[:32]
