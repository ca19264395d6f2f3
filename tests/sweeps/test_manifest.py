"""The manifest of a sweep: written, read back, removed, and refused if damaged."""

import time
from pathlib import Path

import pytest
from watch_made import NORMS, SEEDS, a_manifest, grid

from normbench.errors import RequestError
from normbench.records import store
from normbench.sweeps.manifest import Announcement, folders, read_manifest
from normbench.sweeps.watch import Watch


def test_a_wrong_clock_does_not_end_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = a_manifest(*grid(norm=NORMS, seed=SEEDS))
    with Announcement(tmp_path) as announcement:
        for now in (-1e9, -0.5, 2.0**32, 4e11):
            monkeypatch.setattr(time, "time", lambda now=now: now)
            announcement.publish(manifest)
            (folder,) = folders(tmp_path)
            assert read_manifest(folder) == manifest, now


def test_a_manifest_stays_until_the_next_sweep_starts(
    tmp_path: Path,
) -> None:
    manifest = a_manifest(*grid(norm=NORMS, seed=SEEDS))
    with Announcement(tmp_path) as first:
        assert folders(tmp_path) == []
        first.publish(manifest)
        (folder,) = folders(tmp_path)
        assert store.is_running(folder)
        assert read_manifest(folder) == manifest
        with Announcement(tmp_path) as second:
            second.publish(manifest)
            assert len(folders(tmp_path)) == 2
    assert not store.is_running(folder)
    with Announcement(tmp_path) as third:
        third.publish(manifest)
        assert len(folders(tmp_path)) == 1
    assert len(folders(tmp_path)) == 1


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    with Announcement(tmp_path) as announcement:
        announcement.publish(a_manifest(*grid(seed=SEEDS)))
    (file,) = tmp_path.glob("sweeps/*/*.gz")
    for content in (b"", b"{}", file.read_bytes()[:-9]):
        file.write_bytes(content)
        with pytest.raises(RequestError, match=r"json\.gz is not a valid manifest"):
            Watch(tmp_path).look()


def test_results_that_cannot_be_written_are_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "sweeps").touch()
    with pytest.raises(RequestError, match="cannot be written"):
        Announcement(tmp_path).publish(a_manifest(*grid(seed=SEEDS)))
