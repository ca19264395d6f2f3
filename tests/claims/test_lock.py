"""The commit that registered a claim, in a git repository."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from claims_made import TINY, put

from normbench.claims.lock import registered, require_committed
from normbench.errors import RequestError
from normbench.verdicts.registration import read_claim


def git(folder: Path, *arguments: str, date: str = "2026-01-01T00:00:00+00:00") -> str:
    options = [
        "-c",
        "user.name=n",
        "-c",
        "user.email=n@n",
        "-c",
        "commit.gpgsign=false",
    ]
    done = subprocess.run(
        ["git", *options, *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        env={
            "GIT_COMMITTER_DATE": date,
            "GIT_AUTHOR_DATE": date,
            "PATH": "/usr/bin:/bin",
        },
    )
    return done.stdout.strip()


def commit(folder: Path, day: int) -> str:
    git(folder, "add", "claim")
    date = f"2026-01-{day:02d}T00:00:00+00:00"
    git(folder, "commit", "-qm", "Change", date=date)
    return git(folder, "rev-parse", "HEAD")


def test_the_time_is_that_of_the_first_commit_with_this_registration(
    tmp_path: Path,
) -> None:
    file = put(TINY, tmp_path) / "claim" / "tiny.yaml"
    assert registered(read_claim("tiny", tmp_path), tmp_path) is None
    git(tmp_path, "init", "-q")
    with pytest.raises(RequestError, match="is not committed as it stands"):
        require_committed("tiny", tmp_path)
    first = commit(tmp_path, 1)
    require_committed("tiny", tmp_path)
    known = registered(read_claim("tiny", tmp_path), tmp_path)
    assert known is not None
    assert known.commit == first
    assert datetime.fromisoformat(known.time) == datetime(2026, 1, 1, tzinfo=UTC)
    # A comment and a new name of the file are no new registration.
    file.write_text("# a comment\n" + file.read_text())
    commit(tmp_path, 2)
    assert registered(read_claim("tiny", tmp_path), tmp_path) == known
    # Another margin is one, and the old margin again is a third one.
    text = file.read_text()
    file.write_text(text.replace("margin: 0.01", "margin: 0.02"))
    assert registered(read_claim("tiny", tmp_path), tmp_path) is None
    changed = commit(tmp_path, 3)
    again = registered(read_claim("tiny", tmp_path), tmp_path)
    assert again is not None and again.commit == changed
    file.write_text(text)
    back = commit(tmp_path, 4)
    again = registered(read_claim("tiny", tmp_path), tmp_path)
    assert again is not None and again.commit == back


def test_a_merge_of_two_versions_registers_the_result(tmp_path: Path) -> None:
    file = put(TINY, tmp_path) / "claim" / "tiny.yaml"
    git(tmp_path, "init", "-q", "-b", "one")
    commit(tmp_path, 1)
    git(tmp_path, "checkout", "-q", "-b", "two")
    text = file.read_text()
    file.write_text(text.replace("statement: a is", "statement: A is"))
    commit(tmp_path, 2)
    git(tmp_path, "checkout", "-q", "one")
    file.write_text(text.replace("margin: 0.01", "margin: 0.02"))
    commit(tmp_path, 3)
    date = "2026-01-04T00:00:00+00:00"
    git(tmp_path, "merge", "-q", "two", "-m", "Merge", date=date)
    merge = git(tmp_path, "rev-parse", "HEAD")
    known = registered(read_claim("tiny", tmp_path), tmp_path)
    assert known is not None
    assert (known.commit, known.time[:10]) == (merge, "2026-01-04")
    # A merge that only brings a commit is not the commit that registered.
    git(tmp_path, "checkout", "-q", "-b", "three")
    file.write_text(file.read_text().replace("margin: 0.02", "margin: 0.03"))
    third = commit(tmp_path, 5)
    git(tmp_path, "checkout", "-q", "one")
    date = "2026-01-06T00:00:00+00:00"
    git(tmp_path, "merge", "-q", "--no-ff", "three", "-m", "Merge", date=date)
    known = registered(read_claim("tiny", tmp_path), tmp_path)
    assert known is not None and known.commit == third


def test_a_history_that_is_cut_off_says_nothing(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    put(TINY, whole)
    git(whole, "init", "-q")
    commit(whole, 1)
    (whole / "claim" / "other.txt").write_text("x")
    commit(whole, 2)
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{whole}", "shallow")
    shallow = tmp_path / "shallow"
    assert registered(read_claim("tiny", shallow), shallow) is None
