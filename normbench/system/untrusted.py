"""Reads files that somebody else may have written, within bounds.

Every record, history, manifest and verdict is read here. Whatever a file holds, its
reader gets the value, or an error of one line that names the file: a named pipe does
not block the reader, and a link, a gzip bomb or 100,000 levels of brackets do no harm.
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

LARGEST = 1e100
"""Larger metrics are refused: their squares, means and intervals would overflow."""
MIB = 2**20
RECORD = 4 * MIB
"""Bytes of one record at most; a usual one has about 5,000."""
HISTORY = 128 * MIB
VERDICT = 32 * MIB
PACKED = 64 * MIB
"""Bytes of a gzip file at most; `UNPACKED` limits its content."""
UNPACKED = 512 * MIB
PICTURE = 64 * MIB
MOST_PIXELS = 50_000_000
YAML = 2**18
"""Bytes of a config or a claim at most; the largest of normbench has 20,000."""
MOST_NODES = 100_000
MOST_ROWS = 1_000_000
"""Rows of one history at most."""
MOST_RECORDS = 100_000
"""Records of one gzip file at most."""

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
    """The bytes of the regular file at `path`, at most `most` of them.

    Raises FileNotFoundError or NotADirectoryError if there is no file, Damaged if it is
    larger, and Unreadable if it is not a regular file (a link is one only with
    `follow`) or the disk cannot be read.
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
            data = b"" if status.st_size > most else file.read(most + 1)
    if status.st_size > most or len(data) > most:
        raise Damaged(path, f"it is larger than {most // 1024:,} KiB")
    return data


def require_file(path: Path) -> None:
    """Raise Unreadable unless `path` is a regular file, FileNotFoundError for none."""
    with _named(path):
        _require_regular(path.lstat().st_mode, path)


def _require_regular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "not a regular file")
        raise Unreadable(path, f"it is {kind}; move it away")


@contextmanager
def _named(path: Path) -> Iterator[None]:
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
    """The content of the gzip file at `path`, at most UNPACKED bytes.

    Raises as `content` does, and Damaged if it is not a whole gzip file.
    """
    packed = content(path, PACKED, follow=follow)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            data = file.read(UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Damaged(path, str(error)) from None
    if len(data) > UNPACKED:
        raise Damaged(path, f"it unpacks to more than {UNPACKED // MIB} MiB")
    return data


def parsed(model: type[_Model], data: bytes, path: Path, where: str = "") -> _Model:
    """`data`, JSON from the file at `path`, as a `model`. Raises Damaged.

    `where` names the part of the file that `data` is, such as "line 3: ".
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])[:100]
        message = first["msg"].splitlines()[0][:200]
        raise Damaged(path, where + (f"{key}: {message}" if key else message)) from None


def yaml_text(path: Path) -> bytes:
    """The text of a yaml file whose size, with all aliases expanded, is bounded.

    The text need not be valid yaml. Raises as `content` does, and Damaged if aliases
    stand for more than MOST_NODES values or contain themselves.
    """
    text = content(path, YAML, follow=True)
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        size = _expanded(node, {}) if node else 0
    except yaml.YAMLError:
        return text
    except RecursionError:
        raise Damaged(path, "it is nested too deep, or in itself") from None
    if size > MOST_NODES:
        raise Damaged(path, f"its aliases stand for more than {MOST_NODES:,} values")
    return text


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values in a node of yaml with all aliases expanded."""
    if id(node) not in known:
        inner: Any = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            inner = [child for pair in inner for child in pair]
        known[id(node)] = 1 + sum(_expanded(child, known) for child in inner)
    return known[id(node)]


def yaml_value(path: Path) -> Any:
    """The value in a yaml or JSON file. Raises as `yaml_text`, and Damaged."""
    text = yaml_text(path)
    if text.lstrip().startswith(b"{"):
        with suppress(ValueError, RecursionError):
            return json.loads(text)  # yaml would read 1e-05 as a text
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # such as a number of 5,000 digits
        raise Damaged(path, " ".join(str(error).split())[:300]) from None


def picture(path: Path) -> "Image.Image":
    """The picture in a PNG file. Raises as `content` does, and Damaged."""
    from PIL import Image

    data = content(path, PICTURE)
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        if image.width * image.height > MOST_PIXELS:
            raise Damaged(path, f"it has more than {MOST_PIXELS:,} pixels")
        image.load()
    except Damaged:
        raise
    except Exception as error:  # Pillow raises many kinds
        reason = str(error) or type(error).__name__
        raise Damaged(path, f"it is not a PNG: {reason}"[:200]) from None
    return image


def history(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's history, oldest first, without an incomplete last line.

    Every row has an integer `step`; its values are numbers below LARGEST, or None.
    Raises as `content` does, and Damaged, with the number of the line, for anything
    else: a history counts as a whole or not at all.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(io.BytesIO(content(path, HISTORY)), 1):
        if number > MOST_ROWS:
            raise Damaged(path, f"it has more than {MOST_ROWS:,} rows")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # also for bytes that are not UTF-8
            if not line.endswith(b"\n"):
                break
            raise Damaged(path, f"line {number} is not JSON") from None
        if why := _mistake(row):
            raise Damaged(path, f"line {number}: {why}")
        rows.append(row)
    return rows


def _mistake(row: Any) -> str | None:
    """The reason why `row` is not a row of a history; None if it is."""
    if not isinstance(row, dict):
        return "it is not an object"
    step = row.get("step")
    if type(step) is not int or not 0 <= step < 2**53:
        return "its step is not a whole number"
    for key, value in row.items():
        if value is not None and not _can_be_drawn(value):
            return f"{key[:60]!r} is not a number of a size that can be drawn"
    return None


def _can_be_drawn(value: Any) -> bool:
    try:
        return type(value) in (int, float) and -LARGEST < float(value) < LARGEST
    except OverflowError:  # a whole number of 400 digits
        return False
