"""The user's files: what is refused, and that their content is a run's identity."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import data_made
import pytest
import torch
from conftest import Command, Run

from normbench.config.composition import compose, hash_files, resolve
from normbench.config.identity import run_id
from normbench.data.base import REGISTRY, Tokens
from normbench.data.reading import csv_files
from normbench.errors import RequestError
from normbench.records.store import Results
from normbench.training.experiment import run_one

TASKS = {"content_folder": "style", "folder": "cnn", "text_csv": "transformer"}
"""Of each data set of files, the task that it is for."""

every_set = pytest.mark.parametrize("name", TASKS)


@pytest.fixture
def files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return data_made.options(name, tmp_path / "material", monkeypatch)


def overrides(name: str, files: dict[str, Any], **more: object) -> list[str]:
    options = files | more
    given = [f"data.{key}={value}" for key, value in options.items()]
    return [f"task={TASKS[name]}", f"data={name}", *given]


@every_set
def test_the_content_is_the_identity_and_the_place_is_not(
    name: str, files: dict[str, Any], tmp_path: Path
) -> None:
    config = compose(overrides(name, files))
    assert len(config.data.options["fingerprint"]) == 32
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "material", moved)
    places = {
        key: [at.replace(str(tmp_path / "material"), str(moved)) for at in value]
        if isinstance(value, list)
        else value.replace(str(tmp_path / "material"), str(moved))
        for key, value in files.items()
        if str(tmp_path) in str(value)
    }
    there = compose(overrides(name, files | places))
    assert there.data.options["path"] != config.data.options["path"]
    assert run_id(there) == run_id(config)
    pinned = config.data.options["fingerprint"]
    assert compose(overrides(name, files | places, fingerprint=pinned)) == there
    with pytest.raises(RequestError, match=r"data\.fingerprint=abc.*have changed"):
        compose(overrides(name, files | places, fingerprint="abc"))

    first = next(
        p for p in sorted(moved.rglob("*")) if p.is_file() and p.stat().st_size
    )
    content = bytearray(first.read_bytes())
    content[-3] ^= 1
    first.write_bytes(content)
    os.utime(first, ns=(1, 1))
    hash_files.cache_clear()
    assert run_id(compose(overrides(name, files | places))) != run_id(config)


@every_set
def test_a_run_goes_from_files_to_a_record(
    name: str, files: dict[str, Any], run: Run
) -> None:
    record = run(*overrides(name, files), "batch_size=4", "budget.max_steps=2")
    assert record.status == "ok", record.error
    assert record.facts


@every_set
def test_a_run_on_relative_paths_is_done_again_from_another_folder(
    name: str,
    files: dict[str, Any],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def relative(value: Any) -> Any:
        if isinstance(value, list):
            return [relative(one) for one in value]
        return value.replace(f"{tmp_path}/", "") if isinstance(value, str) else value

    monkeypatch.chdir(tmp_path)
    hash_files.cache_clear()
    told = {key: relative(value) for key, value in files.items()}
    record = run(*overrides(name, told), "batch_size=4", "budget.max_steps=1")
    assert record.config.data.options.items() >= files.items()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    hash_files.cache_clear()
    again = resolve(record.config.model_dump())
    assert run_one(again, Results(tmp_path / "elsewhere")).metrics == record.metrics
    with pytest.raises(RequestError, match=r"data\.path=material\S* does not exist"):
        compose(overrides(name, told))


@every_set
def test_files_that_changed_since_they_were_asked_for_are_refused(
    name: str, files: dict[str, Any]
) -> None:
    data = REGISTRY.get(name)(**REGISTRY.options(name, files | {"fingerprint": "old"}))
    with pytest.raises(RequestError, match=r"have changed: data\.fingerprint=old"):
        data.load(0)


BAD_PATHS = ["not set", "nothing there", "of another kind", "empty", "too long a name"]


@every_set
@pytest.mark.parametrize("bad", BAD_PATHS)
def test_a_bad_path_is_refused_by_key_and_value(
    bad: str, name: str, files: dict[str, Any], tmp_path: Path
) -> None:
    is_folder = Path(files["path"]).is_dir()
    a_file, a_folder = tmp_path / "a file", tmp_path / "a folder"
    a_file.touch()
    a_folder.mkdir()
    path, words = {
        "not set": ("null", "data.path is not set; name a"),
        "nothing there": (str(tmp_path / "no"), "no does not exist"),
        "of another kind": (
            str(a_file if is_folder else a_folder),
            "is a file; name a folder" if is_folder else "is a folder; name a file",
        ),
        "empty": (str(a_folder if is_folder else a_file), "is empty"),
        "too long a name": (str(tmp_path / ("x" * 300)), "cannot be read: File name"),
    }[bad]
    with pytest.raises(RequestError) as refused:
        compose(overrides(name, files | {"path": path}))
    assert words in str(refused.value) and "data.path" in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 3


def test_what_is_neither_file_nor_folder_is_refused() -> None:
    given = ["task=transformer", "data=text_csv", f"data.path={os.devnull}"]
    with pytest.raises(RequestError, match="null is a device or a pipe; name a file"):
        compose(given)


@every_set
def test_a_home_that_nobody_has_is_no_path(name: str, files: dict[str, Any]) -> None:
    path = '"~nobody99/x"'
    with pytest.raises(RequestError, match=r"data\.path=~nobody99/x does not exist"):
        compose(overrides(name, files | {"path": path}))


@pytest.mark.parametrize("name", ["content_folder", "folder"])
def test_a_folder_that_may_not_be_read_is_refused(
    name: str, files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(RequestError, match=r"data\.path=.* cannot be read: Permission"):
        compose(overrides(name, files))


def test_the_command_refuses_a_path_with_exit_code_2(invoke: Command) -> None:
    given = ["task=transformer", "data=text_csv", "data.path=/no/where"]
    refused = invoke("train", *given)
    assert refused.returncode == 2
    message = "error: data.path=/no/where does not exist; name a file"
    assert refused.stderr.strip() == message


# CSV


def loaded(tmp_path: Path, content: str | bytes, **options: Any) -> Tokens:
    path = tmp_path / options.pop("name", "texts.csv")
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(data)
    given = {"path": str(path), "vocab_size": 200, **options}
    made = REGISTRY.get("text_csv")(**REGISTRY.options("text_csv", given))
    tokens: Tokens = made.load(0)
    return tokens


LINES = "".join(f"text {i} is {'ab'[i % 2]},{'ab'[i % 2]}\n" for i in range(40))


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("text,label\n", {}, "has a header but no samples"),
        ("a,b\nx,y\n", {}, "2 columns, separated by commas: 'a', 'b'; it has no"),
        ("text\nx\n", {}, "has 1 columns, separated by commas: 'text'; it has no"),
        ("\n\n", {}, "has no line with content"),
        ("text,label\nfine,a\none, two,b\n", {}, "line 3 has 3 columns, not 2"),
        ("text,label\nfine\n", {}, "line 2 has 1 columns, not 2"),
        ('text,label\n"a\nb" x,y\n', {}, "line 3: "),
        ('text,label\n"never closed,y\n', {}, "line 2: "),
        ("text,label\n  ,a\n", {}, "line 2 has an empty text"),
        ("text,label\nx,\n", {}, "line 2 has an empty label"),
        (b"text,label\ncaf\xe9,a\n", {}, "is not in data.encoding=utf-8"),
        ("text,label\nx,a\n", {"encoding": "utf-9"}, "data.encoding=utf-9 is unknown"),
        ("text,label\n" + "x,a\n" * 30, {}, "every training sample has the label 'a'"),
        ("text,label\n" + LINES, {"vocab_size": 3}, "data.vocab_size=3 is too small"),
        ("text,label\n" + LINES, {"vocab_size": 10**12}, "equal to 1000000"),
        ("text,label\nx,a\n", {"encoding": "utf-16"}, "utf-16-le or utf-16-be"),
        ("text,label\nx,a\ny,b\n", {}, "leave a part of the 2 samples empty"),
    ],
)
def test_a_csv_of_the_wrong_shape_is_refused_with_its_line(
    content: str | bytes, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError) as refused:
        loaded(tmp_path, content, **options)
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 3


def test_a_label_that_only_the_test_file_has_is_named(tmp_path: Path) -> None:
    test = tmp_path / "test.csv"
    test.write_text("text,label\nwhat,zebra\nelse,a\n")
    with pytest.raises(RequestError, match=r"test part .* no training sample: 'zebra'"):
        loaded(tmp_path, "text,label\n" + LINES, test_path=str(test))
    with pytest.raises(RequestError, match="are the same, so the network would be"):
        loaded(tmp_path, "text,label\n" + LINES, test_path=str(tmp_path / "texts.csv"))
    test.write_text("text,label\nwhat,b\nelse,a\n")
    data = loaded(tmp_path, "text,label\n" + LINES, test_path=str(test))
    assert sorted(data.splits["test"].tolist()) == [40, 41]
    assert data.labels[40:].tolist() == [1, 0]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", "\t"])
def test_quotes_encodings_and_empty_lines(
    separator: str, encoding: str, end: str, tmp_path: Path
) -> None:
    first = ["Text,label", "\u00e9t\u00e9, a", ""]
    lines = [line.replace(",", separator) for line in first]
    lines += [f'"b, ""c""\nd"{separator}b', ""]
    path = tmp_path / ("texts.csv" if separator == "," else "texts.TSV")
    path.write_bytes(end.join(lines).encode(encoding))
    form = csv_files.Form("utf-8" if encoding == "utf-8-sig" else encoding)
    rows = csv_files.read(path, form)
    assert rows.texts == ["\u00e9t\u00e9", 'b, "c"\nd']
    assert rows.labels == ["a", "b"]


def test_the_vocabulary_is_of_the_training_part_and_texts_are_cut(
    tmp_path: Path,
) -> None:
    # A character of its own in every text.
    lines = [f"{chr(0x4E00 + i)} {'a' * (1 + i % 5)} b c,{i % 2}" for i in range(60)]
    content = "text,label\n" + "\n".join(lines) + "\n"
    data = loaded(tmp_path, content, max_length=3)
    unknown = (data.tokens == 1).any(1)
    assert not unknown[data.splits["train"]].any()
    assert unknown[data.splits["val"]].all() and unknown[data.splits["test"]].all()
    assert data.lengths.tolist() == [3] * 60
    assert data.classes == ("0", "1")
    assert data.labels.tolist() == [i % 2 for i in range(60)]


@pytest.mark.slow
def test_the_share_of_pads_is_recorded(run: Run) -> None:
    random = run("task=transformer", "data=display_names")
    alike = run("task=transformer", "data=display_names", "task.batching=length")
    full = run("task=transformer", "task.padding=max_length")
    shares = [record.facts["pad_share"] for record in (alike, random, full)]
    assert shares[0] is not None and shares[1] is not None and shares[2] is not None
    assert 0 <= shares[0] < shares[1] / 2 < shares[1] < shares[2] < 1


def test_the_share_of_pads_is_that_of_the_masks() -> None:
    from normbench.training.network import make_task

    config = compose(["task=transformer", "task.long_batches=0.5"])
    task = make_task(config, torch.device("cpu"))
    batches = list(task.splits["train"][:320].split(32))
    masks = [task.inputs(batch)[1] for batch in batches]
    real = sum(int(mask.sum()) for mask in masks) / sum(m.numel() for m in masks)
    assert task.facts(batches)["pad_share"] == pytest.approx(1 - real)
