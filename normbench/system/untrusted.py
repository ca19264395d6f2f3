"""Reads files that a stranger may have written, within limits.

All records, histories, manifests and verdicts are read with this module. A reader gets
either the value or an error of one line that names the file. A named pipe does not
block the reader, and a link, a gzip bomb or 100,000 nested brackets do no harm.
"""

import errno
import gzip
import io
import json
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from normbench.errors import Damaged, Unreadable

if TYPE_CHECKING:
    from PIL import Image

MAX_METRIC = 1e100
"""Larger metrics are refused: their squares, means and intervals would overflow."""
MIB = 2**20
MAX_RECORD_BYTES = 4 * MIB  # a typical record has 5,000 bytes
MAX_HISTORY_BYTES = 128 * MIB
MAX_VERDICT_BYTES = 32 * MIB
MAX_GZIP_BYTES = 64 * MIB
MAX_UNPACKED_BYTES = 512 * MIB
MAX_PICTURE_BYTES = 64 * MIB
MAX_PIXELS = 50_000_000
MAX_YAML_BYTES = 2**18  # the largest built-in config or claim has 20,000 bytes
MAX_YAML_NODES = 100_000
MAX_HISTORY_ROWS = 1_000_000
MAX_RECORDS = 100_000  # in one gzip file

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_Model = TypeVar("_Model", bound=BaseModel)


def content(path: Path, most: int, *, follow: bool = False) -> bytes:
    """Return the bytes of the regular file at `path`, which has at most `most` bytes.

    Raises

    - FileNotFoundError or NotADirectoryError if there is no file;
    - Damaged if the file is larger than `most`;
    - Unreadable if it is not a regular file, if it is a link and `follow` is False, or
      if the operating system cannot read it.
    """
    with _named(path):
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        if not follow:
            flags |= getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(path, flags)
        try:
            status = os.fstat(descriptor)
            _require_regular(status.st_mode, path)
        except BaseException:
            os.close(descriptor)
            raise
        with os.fdopen(descriptor, "rb") as file:
            # The file may grow during the read: one byte more shows that.
            data = b"" if status.st_size > most else file.read(most + 1)
    if status.st_size > most or len(data) > most:
        raise Damaged(path, f"it is larger than {most // 1024:,} KiB")
    return data


def require_file(path: Path) -> None:
    """Raise Unreadable if `path` is no regular file, FileNotFoundError if missing."""
    with _named(path):
        _require_regular(path.lstat().st_mode, path)


def _require_regular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "not a regular file")
        raise Unreadable(path, f"it is {kind}; move it away")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn an OSError in the block into Unreadable, unless the file is missing."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        why = error.strerror or type(error).__name__
        if error.errno == errno.ELOOP:
            why = "it is a link; put the file itself there"
        elif error.errno == errno.ENXIO:
            why = "it is a socket; move it away"
        raise Unreadable(path, why) from None


def unzipped(path: Path, *, follow: bool = False) -> bytes:
    """Return the unpacked content of the gzip file at `path`.

    Raises the errors of `content`, and Damaged if the file is not a complete gzip file
    or unpacks to more than MAX_UNPACKED_BYTES.
    """
    packed = content(path, MAX_GZIP_BYTES, follow=follow)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            data = file.read(MAX_UNPACKED_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Damaged(path, str(error)) from None
    if len(data) > MAX_UNPACKED_BYTES:
        limit = MAX_UNPACKED_BYTES // MIB
        raise Damaged(path, f"it unpacks to more than {limit} MiB")
    return data


def parsed(model: type[_Model], data: bytes, path: Path, where: str = "") -> _Model:
    """Parse `data`, JSON from the file at `path`, as a `model`.

    Raises Damaged. `where`, such as "line 3: ", says in the message which part of the
    file `data` is.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])[:100]
        message = first["msg"].splitlines()[0].removeprefix("Value error, ")[:200]
        raise Damaged(path, where + (f"{key}: {message}" if key else message)) from None


def yaml_text(path: Path) -> bytes:
    """Return the text of a yaml file, which may be invalid yaml.

    Raises the errors of `content`, and Damaged if the file has more than MAX_YAML_NODES
    values after its aliases are expanded, or if an alias contains itself.
    """
    text = content(path, MAX_YAML_BYTES, follow=True)
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        size = _expanded_size(node, {}) if node else 0
    except yaml.YAMLError:
        return text
    except RecursionError:
        raise Damaged(path, "it is nested too deeply, or in itself") from None
    if size > MAX_YAML_NODES:
        raise Damaged(
            path, f"its aliases stand for more than {MAX_YAML_NODES:,} values"
        )
    return text


def _expanded_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return the number of values in a yaml node after its aliases are expanded.

    `sizes` caches the result by the id of a node.
    """
    if id(node) not in sizes:
        children: Any = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in children for child in pair]
        sizes[id(node)] = 1 + sum(_expanded_size(child, sizes) for child in children)
    return sizes[id(node)]


def yaml_value(path: Path) -> Any:
    """Return the value in a yaml or JSON file.

    Raises the errors of `yaml_text`, and Damaged if the file is not yaml.
    """
    text = yaml_text(path)
    if text.lstrip().startswith(b"{"):
        with suppress(ValueError, RecursionError):
            return json.loads(text)  # yaml would parse 1e-05 as a string
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # such as a number of 5,000 digits
        raise Damaged(path, " ".join(str(error).split())[:300]) from None


def picture(path: Path) -> "Image.Image":
    """Return the picture in a PNG file.

    Raises the errors of `content`, and Damaged if the file is not a PNG or too large.
    """
    from PIL import Image

    data = content(path, MAX_PICTURE_BYTES)
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        if image.width * image.height > MAX_PIXELS:
            raise Damaged(path, f"it has more than {MAX_PIXELS:,} pixels")
        image.load()
    except Damaged:
        raise
    except Exception as error:  # Pillow raises many kinds of exceptions
        reason = str(error) or type(error).__name__
        raise Damaged(path, f"it is not a PNG: {reason}"[:200]) from None
    return image


def history(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a history, oldest first, without an incomplete last line.

    Every row has an integer `step`. All values are numbers below MAX_METRIC or None.
    Raises the errors of `content`. Raises Damaged, with the line number, if a row other
    than an incomplete last line is invalid.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(io.BytesIO(content(path, MAX_HISTORY_BYTES)), 1):
        if number > MAX_HISTORY_ROWS:
            raise Damaged(path, f"it has more than {MAX_HISTORY_ROWS:,} rows")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
            if not line.endswith(b"\n"):
                break
            raise Damaged(path, f"line {number} is not JSON") from None
        if reason := _row_mistake(row):
            raise Damaged(path, f"line {number}: {reason}")
        rows.append(row)
    return rows


def _row_mistake(row: Any) -> str | None:
    """Return the reason why `row` is not a row of a history; None if it is a row."""
    if not isinstance(row, dict):
        return "it is not an object"
    step = row.get("step")
    # A number below 2**53 is exact as a float, and so in a browser.
    if type(step) is not int or not 0 <= step < 2**53:
        return "its step is not an integer of at most 16 digits"
    for key, value in row.items():
        if value is not None and not _is_plottable(value):
            return f"{key[:60]!r} is not a number below {MAX_METRIC:g}"
    return None


def _is_plottable(value: Any) -> bool:
    try:
        return type(value) in (int, float) and abs(float(value)) < MAX_METRIC
    except OverflowError:  # an integer of 400 digits
        return False
