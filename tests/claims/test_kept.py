"""The file with the rates of a race, which a stranger may have written."""

from pathlib import Path

import pytest

from normbench.claims.halving import Tuned
from normbench.claims.kept import keep, read_kept
from normbench.errors import RequestError

TUNED = {arm: Tuned(lr=0.2, tried={0.1: (0.3, 1), 0.2: (0.1, 2)}) for arm in ("a", "b")}


def test_what_was_kept_is_read(tmp_path: Path) -> None:
    file = tmp_path / "races" / "x.json"
    assert read_kept(file) is None
    keep(TUNED, file)
    assert read_kept(file) == TUNED


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"lr": 0.2', '"lr": 0.7', "the rate 0.7 of a was not tried"),
        ('"dropped": null', '"dropped": "x"', "fewer than 2 arms are left"),
        ('"at_edge"', '"edge"', "arms.a.edge: Extra inputs are not permitted"),
    ],
)
def test_a_file_that_no_race_writes_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    keep(TUNED, file := tmp_path / "x.json")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(RequestError, match=rf"\({message}\); remove it"):
        read_kept(file)


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """A race reads its file before its runs, so it writes none through the link."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "races").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match="races is a link"):
        read_kept(tmp_path / "races" / "x.json")
