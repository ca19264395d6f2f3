"""The progress of a sweep as `Watch` reads it from files."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from watch_made import (
    CONFIGS,
    NORMS,
    SEEDS,
    SIZES,
    a_manifest,
    base_record,
    date_back,
    grid,
    record_of,
    write_record,
)

from normbench.config.identity import run_id
from normbench.config.schema import Choice, RunRecord
from normbench.records import store
from normbench.sweeps.manifest import Announcement
from normbench.sweeps.watch import Watch


@pytest.fixture
def announcement(tmp_path: Path) -> Iterator[Announcement]:
    with Announcement(tmp_path) as announcement:
        yield announcement


def test_a_record_and_a_manifest_of_odd_values_are_shown(
    tmp_path: Path, announcement: Announcement
) -> None:
    """Numbers whose sum would overflow, and options of a norm that are mappings."""
    keys = grid(seed=range(4))
    for option in ({"a": 1}, {"a": [1]}, [{"a": 1}]):
        config = base_record().config.model_copy(
            update={"norm": Choice(name="x", o=option)}
        )
        keys.append(run_id(config))
        CONFIGS[keys[-1]] = config
    announcement.publish(a_manifest(*keys))
    for key, value in zip(keys, (1.7e308, 1.7e308, -1e100, 0.5), strict=False):
        write_record(tmp_path, key, value)
    shown = Watch(tmp_path).look()
    assert [(cell.n, cell.mean) for cell in shown.cells if cell.n] == [(1, 0.5)]
    assert len(shown.cells) == 4
    json.dumps(shown.plain(), allow_nan=False)


def test_a_run_folder_without_permission_is_named_and_left_out(
    tmp_path: Path, announcement: Announcement, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = grid(seed=SEEDS)
    announcement.publish(a_manifest(a, b))
    write_record(tmp_path, a)
    closed = store.run_folder(tmp_path, b)
    closed.mkdir(parents=True)
    plain = os.stat
    for refused in (closed, closed.parent):

        def stat(path: Any, refused: Path = refused, **options: Any) -> os.stat_result:
            if not isinstance(path, int) and refused in Path(path).parents:
                raise PermissionError(13, "Permission denied", str(path))
            return plain(path, **options)

        monkeypatch.setattr(os, "stat", stat)
        shown = Watch(tmp_path).look()
        (named,) = shown.left_out
        assert str(closed) in named and named.endswith(": Permission denied")
        assert shown.states() == {"ok": 1, "missing": 1}
        monkeypatch.setattr(os, "stat", plain)


def test_a_run_goes_from_missing_to_running_to_its_end(
    tmp_path: Path, announcement: Announcement
) -> None:
    ok, diverges, fails, stops = grid(lr=(0.1, 1.0, 2.0, 3.0))
    (never,) = grid(lr=[4.0])
    announcement.publish(a_manifest(ok, diverges, fails, stops, skipped=[never]))
    watch = Watch(tmp_path)

    def states() -> list[str]:
        return [cell.states[0] for cell in watch.look().cells]

    assert states() == ["missing"] * 4 + ["skipped"]
    with store.RunWriter(tmp_path, ok) as writer:
        writer.begin(CONFIGS[ok])
        assert states()[0] == "running"
        writer.finish(record_of(ok))
        assert states()[0] == "ok"
    write_record(tmp_path, diverges, None, status="diverged")
    write_record(
        tmp_path, fails, status="failed", error="Traceback\nOSError: odd", metrics={}
    )
    with store.RunWriter(tmp_path, stops) as writer:
        writer.begin(CONFIGS[stops])
    assert states() == ["ok", "diverged", "failed", "interrupted", "skipped"]
    snapshot = watch.look()
    assert snapshot.failures == {fails: "OSError: odd"}
    assert snapshot.pending() == 1
    assert snapshot.active


def test_a_run_that_is_repeated_has_not_ended(
    tmp_path: Path, announcement: Announcement
) -> None:
    (again, left) = grid(seed=SEEDS)
    for key in (again, left):
        write_record(tmp_path, key)
        date_back(tmp_path, key)
    announcement.publish(a_manifest(again, left, todo=[again]))
    watch = Watch(tmp_path)
    assert watch.look().cells[0].states == ("missing", "ok")
    write_record(tmp_path, again, 0.5)
    (cell,) = watch.look().cells
    assert cell.states == ("ok", "ok")
    assert cell.mean == pytest.approx(0.375)


def test_cells_are_distinguished_by_as_few_keys_as_possible(
    tmp_path: Path, announcement: Announcement
) -> None:
    tuned = [
        *grid(norm=["batch"], batch_size=[2], lr=[0.1], seed=SEEDS),
        *grid(norm=["group"], batch_size=[2], lr=[0.2], seed=SEEDS),
        *grid(norm=["batch"], batch_size=[8], lr=[0.4], seed=SEEDS),
    ]
    announcement.publish(a_manifest(*tuned))
    snapshot = Watch(tmp_path).look()
    assert snapshot.by == ["norm", "batch_size"]
    assert snapshot.column == "batch_size"
    assert [cell.by for cell in snapshot.cells] == [
        {"norm": "batch", "batch_size": 2},
        {"norm": "batch", "batch_size": 8},
        {"norm": "group", "batch_size": 2},
    ]
    assert all(len(cell.states) == 2 for cell in snapshot.cells)


def test_one_key_has_no_columns_and_one_cell_no_key(
    tmp_path: Path, announcement: Announcement
) -> None:
    announcement.publish(a_manifest(*grid(norm=NORMS, seed=SEEDS)))
    watch = Watch(tmp_path)
    assert (watch.look().by, watch.look().column) == (["norm"], None)
    announcement.publish(a_manifest(*grid(seed=SEEDS)))
    assert [cell.by for cell in watch.look().cells] == [{}]


def test_the_best_cell_is_the_one_with_the_best_mean(
    tmp_path: Path, announcement: Announcement
) -> None:
    a, b, c, d = grid(norm=NORMS, seed=SEEDS)
    announcement.publish(a_manifest(a, b, c, d))
    watch = Watch(tmp_path)
    write_record(tmp_path, a, 0.1)
    write_record(tmp_path, b, 0.5)
    assert watch.look().extremes() == {}
    write_record(tmp_path, c, 0.2)
    write_record(tmp_path, d, None)
    ((best, worst),) = watch.look().extremes().values()
    assert (best.by, best.mean, best.n) == ({"norm": "group"}, 0.2, 1)
    assert (worst.by, worst.mean, worst.n) == ({"norm": "batch"}, 0.3, 2)
    for key, error in {a: 0.1, b: 0.1, c: 0.2, d: 0.2}.items():
        write_record(tmp_path, key, error, direction="maximize")
    ((best, _),) = Watch(tmp_path).look().extremes().values()
    assert best.by == {"norm": "group"}


def test_a_look_reads_only_what_has_changed(
    tmp_path: Path, announcement: Announcement, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = grid(norm=NORMS, batch_size=SIZES, seed=SEEDS)
    announcement.publish(a_manifest(*keys))
    watch = Watch(tmp_path)
    opened: list[str] = []
    read, lock = store.read, store.is_running

    def reading(folder: Path) -> RunRecord | None:
        opened.append(folder.name)
        return read(folder)

    def asking(folder: Path) -> bool:
        if folder.name in keys:
            opened.append(folder.name)
        return lock(folder)

    monkeypatch.setattr(store, "read", reading)
    monkeypatch.setattr(store, "is_running", asking)
    for key in keys[:4]:
        write_record(tmp_path, key)
    with store.RunWriter(tmp_path, keys[4]) as writer:
        writer.begin(CONFIGS[keys[4]])
    watch.look()
    assert sorted(opened) == sorted(keys[:5])
    opened.clear()
    watch.look()
    assert opened == []
    write_record(tmp_path, keys[5])
    watch.look()
    assert opened == [keys[5]]


def test_sweeps_on_one_folder_are_seen_as_one(tmp_path: Path) -> None:
    keys = grid(norm=NORMS, seed=SEEDS)
    with Announcement(tmp_path) as first, Announcement(tmp_path) as second:
        first.publish(a_manifest(*keys[:2]))
        watch = Watch(tmp_path)
        assert watch.look().states().total() == 2
        second.publish(a_manifest(*keys[2:]))
        assert watch.look().states().total() == 4
    snapshot = watch.look()
    assert not snapshot.active
    with Announcement(tmp_path) as third:
        third.publish(a_manifest(*keys[:1]))  # removes the other folders
        assert watch.look().active


def test_time_left_is_learnt_from_the_runs_that_have_ended(
    tmp_path: Path, announcement: Announcement
) -> None:
    keys = grid(seed=SEEDS, norm=NORMS)
    announcement.publish(a_manifest(*keys))
    watch = Watch(tmp_path)
    assert watch.look().left is None
    assert watch.look().rate is None
    write_record(tmp_path, keys[0])  # 3.5 seconds; three are left, for two workers
    assert watch.look().left == pytest.approx(3.5 * 3 / 2)
    for key in keys[1:]:
        write_record(tmp_path, key)
    assert watch.look().left == 0.0
