"""The user's files: their contents are in the run id, and bad paths are refused."""

import errno
import os
import shutil
from itertools import product
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
from normbench.training.network import make_task

TASKS = {"content_folder": "style", "folder": "cnn", "text_csv": "transformer"}
"""The task for each data set that reads files."""

every_set = pytest.mark.parametrize("name", TASKS)


@pytest.fixture
def files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return data_made.options(name, tmp_path / "material", monkeypatch)


def overrides(name: str, files: dict[str, Any], **more: object) -> list[str]:
    options = files | more
    given = [f"data.{key}={value}" for key, value in options.items()]
    return [f"task={TASKS[name]}", f"data={name}", *given]


def replaced(options: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Replace a part of all paths in `options`."""

    def replace(value: Any) -> Any:
        if isinstance(value, list):
            return [replace(item) for item in value]
        return value.replace(old, new) if isinstance(value, str) else value

    return {key: replace(value) for key, value in options.items()}


@every_set
def test_the_run_id_depends_on_the_contents_and_not_on_the_paths(
    name: str, files: dict[str, Any], tmp_path: Path
) -> None:
    config = compose(overrides(name, files))
    assert len(config.data.options["fingerprint"]) == 32
    target = tmp_path / "moved"
    shutil.move(tmp_path / "material", target)
    files = replaced(files, str(tmp_path / "material"), str(target))
    moved = compose(overrides(name, files))
    assert moved.data.options["path"] != config.data.options["path"]
    assert run_id(moved) == run_id(config)
    pinned = config.data.options["fingerprint"]
    assert compose(overrides(name, files, fingerprint=pinned)) == moved
    with pytest.raises(RequestError, match=r"data\.fingerprint=abc.*have changed"):
        compose(overrides(name, files, fingerprint="abc"))

    paths = (path for path in sorted(target.rglob("*")) if path.is_file())
    first = next(path for path in paths if path.stat().st_size)
    content = bytearray(first.read_bytes())
    content[-3] ^= 1
    first.write_bytes(content)
    os.utime(first, ns=(1, 1))
    hash_files.cache_clear()
    assert run_id(compose(overrides(name, files))) != run_id(config)


@every_set
def test_a_run_with_relative_paths_can_be_repeated_in_another_folder(
    name: str,
    files: dict[str, Any],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    hash_files.cache_clear()
    relative = overrides(name, replaced(files, f"{tmp_path}/", ""))
    record = run(*relative, "batch_size=4", "budget.max_steps=2")
    assert record.status == "ok" and record.facts, record.error
    assert record.config.data.options.items() >= files.items()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    hash_files.cache_clear()
    config = resolve(record.config.model_dump())
    assert run_one(config, Results(tmp_path / "elsewhere")).metrics == record.metrics
    with pytest.raises(RequestError, match=r"data\.path=material\S* does not exist"):
        compose(relative)


@every_set
def test_files_with_another_fingerprint_are_refused(
    name: str, files: dict[str, Any]
) -> None:
    data = REGISTRY.get(name)(**REGISTRY.options(name, files | {"fingerprint": "old"}))
    with pytest.raises(RequestError, match=r"have changed: data\.fingerprint=old"):
        data.load(0)


@every_set
def test_a_bad_path_is_refused_by_key_and_value(
    name: str, files: dict[str, Any], tmp_path: Path
) -> None:
    file, folder = tmp_path / "a file", tmp_path / "a folder"
    file.touch()
    folder.mkdir()
    cases = {
        "null": "data.path is not set; name a",
        str(tmp_path / "no"): "no does not exist",
        str(tmp_path / ("x" * 300)): "cannot be read: File name",
        '"~nobody99/x"': "data.path=~nobody99/x does not exist",
    }
    if Path(files["path"]).is_dir():
        cases |= {str(file): "is a file; name a folder", str(folder): "is empty"}
    else:
        cases |= {str(folder): "is a folder; name a file", str(file): "is empty"}
        cases[os.devnull] = "null is a device or a pipe; name a file"
    for path, message in cases.items():
        with pytest.raises(RequestError) as refused:
            compose(overrides(name, files | {"path": path}))
        assert message in str(refused.value) and "data.path" in str(refused.value)
        assert len(str(refused.value).splitlines()) <= 3, path


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


def test_a_csv_of_the_wrong_shape_is_refused_with_its_line(tmp_path: Path) -> None:
    cases: list[tuple[str | bytes, dict[str, Any], str]] = [
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
    ]
    for content, options, message in cases:
        with pytest.raises(RequestError) as refused:
            loaded(tmp_path, content, **options)
        assert message in str(refused.value)
        assert len(str(refused.value).splitlines()) <= 3, message


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


def test_quotes_encodings_and_empty_lines(tmp_path: Path) -> None:
    encodings = ["utf-8", "utf-8-sig", "utf-16", "cp1252"]
    for case in product([",", "\t"], encodings, ["\n", "\r\n"]):
        delimiter, encoding, line_end = case
        first = ["Text,label", "\u00e9t\u00e9, a", ""]
        lines = [line.replace(",", delimiter) for line in first]
        lines += [f'"b, ""c""\nd"{delimiter}b', ""]
        path = tmp_path / ("texts.csv" if delimiter == "," else "texts.TSV")
        path.write_bytes(line_end.join(lines).encode(encoding))
        form = csv_files.Form(encoding.removesuffix("-sig"))
        rows = csv_files.read(path, form)
        assert rows.texts == ["\u00e9t\u00e9", 'b, "c"\nd'], case
        assert rows.labels == ["a", "b"], case


def test_only_training_texts_give_the_vocabulary_and_texts_are_cut(
    tmp_path: Path,
) -> None:
    # Each text has a character that no other text has.
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
    similar = run("task=transformer", "data=display_names", "task.batching=length")
    padded = run("task=transformer", "task.padding=max_length")
    shares = [record.facts["pad_share"] for record in (similar, random, padded)]
    assert shares[0] is not None and shares[1] is not None and shares[2] is not None
    assert 0 <= shares[0] < shares[1] / 2 < shares[1] < shares[2] < 1


def test_the_share_of_pads_is_that_of_the_masks() -> None:
    config = compose(["task=transformer", "task.long_batches=0.5"])
    task = make_task(config, torch.device("cpu"))
    batches = list(task.splits["train"][:320].split(32))
    masks = [task.inputs(batch)[1] for batch in batches]
    real = sum(int(mask.sum()) for mask in masks) / sum(m.numel() for m in masks)
    assert task.facts(batches)["pad_share"] == pytest.approx(1 - real)
