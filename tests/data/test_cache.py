"""The cache of parsed data: damaged files, full disks, several processes."""

import json
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from normbench.data.reading import cache
from normbench.data.reading.cache import Parsed, cached, digest


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NORMBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    """Make a small result, and count the calls."""

    def __init__(self) -> None:
        self.calls = 0
        numbers = torch.arange(6, dtype=torch.int32).view(2, 3)
        self.result = Parsed(
            {
                "ids": numbers.T,
                "row": numbers[1],
                "real": torch.tensor([True, False]),
                "none": torch.zeros(0, 2),
            },
            {"classes": json.dumps(["café", "thé"])},
        )

    def __call__(self) -> Parsed:
        self.calls += 1
        return self.result

    def check(self, identity: dict[str, object] | None = None) -> None:
        """Assert that `cached` returns the result."""
        parsed = cached("toy", identity or {}, self)
        assert parsed.strings == self.result.strings
        assert parsed.tensors.keys() == self.result.tensors.keys()
        for name, tensor in self.result.tensors.items():
            assert parsed.tensors[name].dtype == tensor.dtype
            assert torch.equal(parsed.tensors[name], tensor)


def damage(path: Path, content: bytes) -> None:
    """Write `content` as if another process read it, which has verified no file."""
    path.write_bytes(content)
    cache._verified.clear()


def test_a_result_is_made_once_per_identity(empty_cache: Path) -> None:
    maker = Maker()
    maker.check({"format": 1, "a": 2})
    maker.check({"a": 2, "format": 1})
    assert maker.calls == 1
    maker.check({"format": 2, "a": 2})
    assert maker.calls == 2
    assert len(list(empty_cache.glob("*.safetensors"))) == 2


def test_a_process_compares_a_file_with_its_digest_once(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = Maker()
    maker.check()
    digests: list[Any] = []
    monkeypatch.setattr(cache, "digest", lambda *a: digests.append(a) or digest(*a))
    for _ in range(3):
        maker.check()
    assert len([arguments for arguments in digests if len(arguments) == 2]) == 1
    (path,) = empty_cache.glob("*.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(1, 1))
    maker.check()
    assert maker.calls == 2  # this process notices that the file has changed


def test_one_caller_makes_the_result_and_the_others_wait(empty_cache: Path) -> None:
    first_makes, second_makes = threading.Event(), threading.Event()
    may_finish = threading.Event()
    maker = Maker()

    def make() -> Parsed:
        (second_makes if first_makes.is_set() else first_makes).set()
        may_finish.wait(60)
        return maker()

    with ThreadPoolExecutor() as pool:
        first = pool.submit(cached, "toy", {}, make)
        assert first_makes.wait(60)
        second = pool.submit(cached, "toy", {}, make)
        both_make = second_makes.wait(1)  # enough time to start
        may_finish.set()
        assert digest({}, first.result().tensors) == digest({}, second.result().tensors)
    assert not both_make and maker.calls == 1


def test_a_file_system_without_locks_still_has_a_cache(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(cache.FileLock, "acquire", refuse)
    maker = Maker()
    for _ in range(2):
        maker.check()
    assert maker.calls == 1


def test_a_damaged_file_is_noticed_and_replaced(
    empty_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    maker = Maker()
    maker.check()
    (path,) = empty_cache.glob("*.safetensors")
    good = path.read_bytes()
    truncated = [good[:length] for length in range(len(good))]
    for bad in [*truncated, good + b"\0", good[:-1] + b"\xff", b"\0" * len(good)]:
        damage(path, bad)
        calls = maker.calls
        caplog.clear()
        for _ in range(2):
            maker.check()
        assert maker.calls == calls + 1
        assert caplog.messages[0].startswith(f"{path} is damaged")


def test_a_changed_byte_never_changes_the_result(empty_cache: Path) -> None:
    maker = Maker()
    maker.check()
    (path,) = empty_cache.glob("*.safetensors")
    good = path.read_bytes()
    for position in range(len(good)):
        for bit in (1, 32):
            bad = bytearray(good)
            bad[position] ^= bit
            damage(path, bytes(bad))
            maker.check()
    # Only a few changes, in the padding of the header, do no harm.
    assert maker.calls > len(good)


def test_a_folder_that_cannot_be_written_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    monkeypatch.setenv("NORMBENCH_CACHE", str(folder))
    maker = Maker()
    for seed in range(3):
        maker.check({"seed": seed})
    assert maker.calls == 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(folder) in record.getMessage()
    assert "NORMBENCH_CACHE" in record.getMessage()


def test_a_full_disk_leaves_no_files(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write_half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    Maker().check()
    # It depends on the version of filelock whether the lock file is removed.
    assert {path.suffix for path in empty_cache.iterdir()} <= {".lock"}
    assert "No space left on device" in caplog.text


def test_the_default_folder_is_in_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NORMBENCH_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert "normbench" in cache.folder().parts
    assert cache.folder().is_relative_to(tmp_path)


def test_a_digest_depends_on_names_types_shapes_and_entries() -> None:
    reference = digest({}, {"a": torch.tensor([1, 2])})
    others: list[dict[str, torch.Tensor]] = [
        {"a": torch.tensor([[1, 2]])},
        {"a": torch.tensor([1, 2]).int()},
        {"a": torch.tensor([1, 3])},
        {"b": torch.tensor([1, 2])},
        {},
    ]
    for other in others:
        assert digest({}, other) != reference, other


# Load all embedded data in a separate process, and print their digests and the imported
# packages. The arguments are the names of this process and of its partner, if it has
# one. Neither writes a file before the other wants to write the same file.
LOAD = """
import json, sys, time
from contextlib import nullcontext
from pathlib import Path
from normbench.data.reading import cache
from normbench.data.base import REGISTRY

def write_together(path, parsed, write=cache.write):
    me, partner = (Path(f"{name}-{path.name}") for name in sys.argv[1:])
    me.touch()
    end = time.monotonic() + 60
    while not partner.exists():
        assert time.monotonic() < end, "the partner wrote nothing"
        time.sleep(0.001)
    write(path, parsed)

if sys.argv[1:]:
    cache.write = write_together
    cache._locked = nullcontext  # a file system without locks: both make all files
digests = {}
for name in ("mnist5k", "display_names", "photographs", "shapes"):
    data = vars(REGISTRY.get(name)().load(7))
    tensors = {k: v for k, v in data.items() if hasattr(v, "dtype")}
    rest = {k: v for k, v in data.items() if k not in tensors and k != "splits"}
    digests[name] = cache.digest(rest, tensors | data["splits"])
parsers = {"mlxtend", "skimage", "tokenizers", "PIL"}
print(json.dumps([digests, sorted(parsers & sys.modules.keys())]))
"""


def start(*arguments: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", LOAD, *map(str, arguments)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> list[Any]:
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    result: list[Any] = json.loads(output)
    return result


@pytest.mark.slow
def test_processes_agree_and_the_second_run_parses_nothing(
    tmp_path: Path, empty_cache: Path
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    pair = [
        start(a, b, PYTHONHASHSEED="1", TOKENIZERS_PARALLELISM="true"),
        start(b, a, PYTHONHASHSEED="2", TOKENIZERS_PARALLELISM="false"),
    ]
    first, second = map(finish, pair)
    assert first == second
    assert first[1] == ["PIL", "tokenizers"]
    names = sorted(
        path.name.partition("-")[0] for path in empty_cache.glob("*.safetensors")
    )
    # Photographs: with all styles, with those of the run, and those that are shown.
    # The fingerprints cover what the packages make of texts and pictures by default.
    assert names == [*["display_names"] * 2, "mnist5k", *["photographs"] * 3]
    assert finish(start()) == [first[0], []]
