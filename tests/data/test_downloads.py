"""torchvision's data sets: downloaded once, checked, converted, written atomically."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import Thread

import pytest
import torch
from conftest import Command, Run
from data_made import MATERIAL, PER_FILE, TORCHVISION, cifar
from torchvision import datasets

from normbench.data.base import REGISTRY, Images
from normbench.data.reading import downloads
from normbench.data.reading.cache import Parsed
from normbench.data.reading.downloads import fetched
from normbench.errors import RequestError

NOWHERE = "http://127.0.0.1:9/"
every_set = pytest.mark.parametrize("name", TORCHVISION)


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingTCPServer):
    """A plain TCP server, because HTTPServer looks up its host name."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # torchvision closes the first connection, which only finds redirects


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make torchvision download from this folder."""
    folder = tmp_path / "server"
    folder.mkdir()
    handler = partial(_Handler, directory=str(folder))
    with _Server(("127.0.0.1", 0), handler) as served:
        thread = Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{served.server_address[1]}/"
        for source, _ in TORCHVISION.values():
            cls = getattr(datasets, source)
            if hasattr(cls, "mirrors"):
                monkeypatch.setattr(cls, "mirrors", [url])
            else:
                monkeypatch.setattr(cls, "url", url + cls.filename)
        yield folder
        served.shutdown()
        thread.join()


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NORMBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def kept(folder: Path) -> list[str]:
    """Return the names in the folder, without lock files, which must be empty."""
    files = sorted(path for path in folder.iterdir())
    assert all(file.stat().st_size == 0 for file in files if file.suffix == ".lock")
    return [file.name for file in files if file.suffix != ".lock"]


def load(name: str, seed: int = 0, **options: object) -> Images:
    loaded: Images = REGISTRY.get(name)(**options).load(seed)
    return loaded


@every_set
def test_a_set_is_fetched_once_and_is_what_torchvision_reads(
    name: str,
    server: Path,
    tmp_path: Path,
    data_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, make = TORCHVISION[name]
    archive = make(server, monkeypatch, source)
    data = load(name)
    assert kept(data_folder) == [f"{name}.safetensors"]

    cls = getattr(datasets, source)
    train, test = (
        cls(tmp_path / "reference", train=part, download=True) for part in (True, False)
    )
    archive.unlink()
    reloaded = load(name)
    pixels = [torch.as_tensor(part.data) for part in (train, test)]
    expected = torch.cat(pixels).float() / 255
    expected = expected.movedim(3, 1) if expected.dim() == 4 else expected[:, None]
    mean = torch.tensor(REGISTRY.get(name).mean)[:, None, None]  # type: ignore[attr-defined]
    std = torch.tensor(REGISTRY.get(name).std)[:, None, None]  # type: ignore[attr-defined]
    labels = torch.cat([torch.as_tensor(part.targets) for part in (train, test)])
    for loaded in (data, reloaded):
        everything = torch.arange(len(labels))
        assert not isinstance(loaded.images, torch.Tensor)
        images = loaded.images.batch(everything)
        torch.testing.assert_close(images, (expected - mean) / std)
        assert torch.equal(loaded.labels, labels)
        assert loaded.classes == tuple(train.classes)
    assert sorted(data.splits["test"].tolist()) == list(range(len(train), len(labels)))
    assert len(data.splits["val"]) == len(train) // 10


@every_set
def test_copied_archives_need_no_internet(
    name: str, server: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, make = TORCHVISION[name]
    make(data_folder / name, monkeypatch, source)
    assert len(load(name).labels) > 100


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


@every_set
@pytest.mark.parametrize("harm", ["no network", "corrupt"])
def test_a_failed_download_leaves_nothing(
    harm: str,
    name: str,
    server: Path,
    data_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, make = TORCHVISION[name]
    archive = make(server, monkeypatch, source)
    if harm == "corrupt":
        cut(archive)
    else:
        remove_server(getattr(datasets, source), monkeypatch)
    with pytest.raises(RequestError) as refused:
        load(name)
    message = str(refused.value)
    assert f"data={name} is not in {data_folder}" in message
    assert "Nothing was kept" in message and f"to {data_folder / name}" in message
    assert ("corrupted" if harm == "corrupt" else "refused") in message
    assert len(message.splitlines()) <= 3
    assert kept(data_folder) == []


def remove_server(cls: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torchvision ask for files where there is no server."""
    for attribute, value in (("url", NOWHERE), ("mirrors", [NOWHERE])):
        if hasattr(cls, attribute):
            monkeypatch.setattr(cls, attribute, value)


def test_the_next_download_removes_the_files_of_a_killed_one(
    server: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = cifar(server, monkeypatch, "CIFAR10")
    code = (
        "import os, signal; from normbench.data.reading import downloads;"
        "downloads._copy_archives = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
        "downloads.fetched('cifar10', 'CIFAR10')"
    )
    killed = subprocess.run([sys.executable, "-c", code])
    assert killed.returncode == -signal.SIGKILL
    left = data_folder / ".cifar10"
    assert left in data_folder.iterdir()
    (left / archive.name).write_bytes(b"half of it")
    assert len(load("cifar10").labels) == 6 * PER_FILE
    assert not left.exists()


def test_only_one_of_two_processes_downloads(
    server: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar(server, monkeypatch, "CIFAR10")
    fetches = []

    def slow(name: str, source: str, temporary: Path) -> Parsed:
        fetches.append(name)
        time.sleep(0.2)
        return Parsed({"labels": torch.arange(3)})

    monkeypatch.setattr(downloads, "_fetch", slow)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(fetched, "cifar10", "CIFAR10") for _ in range(2)]
    assert [len(future.result().tensors["labels"]) for future in both] == [3, 3]
    assert fetches == ["cifar10"]


@every_set
def test_a_copied_archive_that_is_corrupt_is_named(
    name: str, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, make = TORCHVISION[name]
    archive = make(data_folder / name, monkeypatch, source)
    cut(archive)
    with pytest.raises(RequestError, match=f"{archive.name} is not the file"):
        load(name)
    assert kept(data_folder) == [name]


def test_a_damaged_file_is_named_and_left(
    server: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar(server, monkeypatch, "CIFAR10")
    load("cifar10")
    file = data_folder / "cifar10.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RequestError, match=r"cifar10\.safetensors is damaged.*remove"):
        load("cifar10")
    assert file.read_bytes() == bytes(content)


def test_a_data_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NORMBENCH_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(RequestError, match="NORMBENCH_DATA"):
        load("cifar10")


def test_a_command_without_internet_fails_with_exit_code_2(
    invoke: Command, tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_server(datasets.MNIST, monkeypatch)
    refused = invoke("train", "data=mnist", "tracker=none")
    assert refused.returncode == 2
    assert "cannot be downloaded" in refused.stderr
    assert len(refused.stderr.splitlines()) <= 3
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_reading_a_kept_data_set_imports_no_torchvision(
    server: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar(server, monkeypatch, "CIFAR10")
    fetched("cifar10", "CIFAR10")
    code = (
        "from normbench.data.cifar import Cifar10; import sys;"
        "print(Cifar10().load(0).images.shape, 'torchvision' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"({6 * PER_FILE}, 3, 32, 32) False"


@pytest.mark.parametrize("network", ["task.depth=1", "task.network=resnet18"])
def test_a_network_trains_on_cifar(
    network: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MATERIAL["cifar10"](tmp_path, monkeypatch)
    overrides = ["task=resnet20", "task.shortcut=projection", "task.depth=1"]
    budget = ["batch_size=8", "budget.max_steps=2"]
    record = run(*overrides, network, *budget)
    assert record.status == "ok", record.error
    assert record.steps == 2
