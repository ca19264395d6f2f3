"""The data set `folder`: which images are read, in which order, and what is skipped."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import enumerate as running_threads
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, Run
from data_made import broken_pictures, image_folder, picture, truncate
from faults_made import Process
from PIL import Image
from sweeps_made import PATIENCE, wait_until

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.data import folder
from normbench.data.base import REGISTRY, Images
from normbench.data.reading import image_files, pictures
from normbench.data.reading.augmentation import InMemory
from normbench.data.reading.image_files import ImageFiles
from normbench.data.reading.listing import listed
from normbench.errors import RequestError, Stopped
from normbench.records import store
from normbench.records.store import Results
from normbench.training import experiment

SMALL_MEMORY = 1e-7
"""Gigabytes into which no set of images fits."""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    image_folder(tmp_path / "images", monkeypatch)
    return tmp_path / "images"


def loaded(root: Path, seed: int = 0, **options: Any) -> Images:
    checked = REGISTRY.options("folder", {"path": str(root), "size": 16, **options})
    images: Images = REGISTRY.get("folder")(**checked).load(seed)
    return images


def test_images_are_scaled_cropped_and_standardised(root: Path) -> None:
    data = loaded(root)
    assert data.classes == ("class 0", "class 1", "class 2")
    assert data.labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert data.images.shape == (30, 3, 16, 16)
    assert isinstance(data.images, InMemory)
    with Image.open(root / "class 0" / "06.png") as file:
        scale = 16 / min(file.size)
        size = tuple(round(side * scale) for side in file.size)
        small = file.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - 16) // 2, (size[1] - 16) // 2
    expected = np.asarray(small)[top : top + 16, left : left + 16] / 255
    expected = (expected - image_files.MEAN) / image_files.STD
    image = data.images.batch(torch.tensor([2]))[0].permute(1, 2, 0)
    np.testing.assert_allclose(image.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_images_in_memory_and_images_in_files_are_the_same(root: Path) -> None:
    for workers in (0, 2):
        options = {"augment": ["crop", "flip"], "workers": workers}
        kept = loaded(root, **options).images
        read = loaded(root, **options, memory_gb=SMALL_MEMORY).images
        assert isinstance(kept, InMemory) and isinstance(read, ImageFiles)
        order = torch.randperm(30)
        read.expect(order, 4)
        read.expect(torch.arange(30))  # an evaluation within the epoch
        for batch in order.split(7):
            assert torch.equal(read.batch(batch, 4), kept.batch(batch, 4))
            unexpected = batch.sort().values  # in another order than announced
            assert torch.equal(read.batch(unexpected), kept.batch(unexpected))
        repeated = torch.tensor([3, 3, 1])
        assert torch.equal(read.batch(repeated), kept.batch(repeated))


def test_for_cuda_a_batch_is_copied_from_pinned_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = loaded(root, memory_gb=SMALL_MEMORY, workers=0).images
    assert isinstance(images, ImageFiles)
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(
        torch.Tensor, "pin_memory", lambda x: pinned.append(x.clone()) or pinned[-1]
    )
    index = torch.arange(3)
    on_cpu = images.batch(index)
    assert not pinned
    copied: list[tuple[torch.Tensor, torch.device, bool]] = []

    def copy(x: torch.Tensor, device: torch.device, non_blocking: bool) -> torch.Tensor:
        copied.append((x, device, non_blocking))
        return x

    monkeypatch.setattr(torch.Tensor, "to", copy)
    cuda = torch.device("cuda")
    assert torch.equal(images.to(cuda).batch(index), on_cpu)
    source, device, non_blocking = copied[0]
    assert source is pinned[0] and device == cuda and non_blocking


@pytest.mark.slow
def test_a_run_is_the_same_from_memory_and_from_files_and_resumed(
    root: Path, run: Run, tmp_path: Path
) -> None:
    overrides = ["task=cnn", "data=folder", f"data.path={root}", "data.size=16"]
    overrides += ["data.augment=[crop,flip,cutout]", "batch_size=4", "budget.epochs=3"]
    kept = run(*overrides)
    from_files = [f"data.memory_gb={SMALL_MEMORY}", "data.workers=1"]
    read = run(*overrides, *from_files, results=tmp_path / "read")
    assert kept.run_id == read.run_id
    assert kept.metrics == read.metrics and kept.steps == 10
    assert kept.facts == {"skipped_images": 0, "left_out_files": 1, "classes": 3}
    results = Results(tmp_path / "stopped")
    stop = iter([False] * 6 + [True])
    with pytest.raises(Stopped):
        experiment.run_one(read.config, results, stop=lambda: next(stop))
    assert experiment.run_one(read.config, results).metrics == read.metrics


@pytest.mark.slow
def test_sigterm_stops_a_run_that_reads_files_and_the_command_resumes_it(
    root: Path, run: Run, tmp_path: Path
) -> None:
    overrides = [*SMALL["cnn"], "data=folder", f"data.path={root}", "batch_size=4"]
    overrides += [f"data.memory_gb={SMALL_MEMORY}", "budget=smoke", "tracker=none"]
    overrides += ["budget.max_steps=200", "budget.epochs=100", "evaluations=1"]
    overrides += ["log_every=1", "checkpoint.every=null"]
    uninterrupted = run(*overrides, results=tmp_path / "uninterrupted")
    assert uninterrupted.steps == 200
    run_folder = store.run_folder(tmp_path / "results", uninterrupted.run_id)

    def logged_steps() -> list[int]:
        history = run_folder / "history.jsonl"
        lines = history.read_text().splitlines() if history.exists() else []
        return [json.loads(line)["step"] for line in lines]

    def start() -> Process:
        words = ["train", *overrides, "--results", str(tmp_path / "results")]
        return Process(
            [sys.executable, "-m", "normbench", *words],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    process = start()
    wait_until(lambda: len(logged_steps()) > 7, "the run has trained for some steps")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("interrupted; "), errors
    assert "the same command" in errors and "Traceback" not in errors
    assert store.read(run_folder) is None
    stopped_after = logged_steps()[-1]
    assert stopped_after < 200

    process = start()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    record = store.read(run_folder)
    assert record is not None and record.metrics == uninterrupted.metrics
    steps = logged_steps()
    assert steps.count(1) == 1 and stopped_after in steps  # resumed, not repeated


def test_broken_images_are_named_skipped_and_counted(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = loaded(root)
    broken = broken_pictures(root / "class 1")
    all_samples = torch.arange(30)
    for memory_gb in (1.0, SMALL_MEMORY):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            data = loaded(root, memory_gb=memory_gb)
        assert data.facts["skipped_images"] == 5
        [message] = [record.getMessage() for record in caplog.records]
        assert "skipped: 5 of 35 images cannot be read" in message
        assert all(str(path) in message for path in broken[:3])
        assert "has more than" in message and "and 2 more" in message
        assert not isinstance(data.images, torch.Tensor)
        assert not isinstance(whole.images, torch.Tensor)
        images = data.images.batch(all_samples)
        assert torch.equal(images, whole.images.batch(all_samples))
        assert torch.equal(data.labels, whole.labels)
        message = r"data\.strict=true, and 5 of 35 images"
        with pytest.raises(RequestError, match=message):
            loaded(root, memory_gb=memory_gb, strict=True)


def test_a_record_with_skipped_images_does_not_satisfy_a_strict_run(
    root: Path, run: Run, tmp_path: Path
) -> None:
    truncate(root / "class 1" / "01.png")
    overrides = ["task=cnn", "data=folder", f"data.path={root}", "data.size=16"]
    overrides += ["batch_size=4", "budget.max_steps=1"]
    lenient = run(*overrides, results=tmp_path / "results")
    assert lenient.facts["skipped_images"] == 1
    run_folder = store.run_folder(tmp_path / "results", lenient.run_id)
    assert store.satisfies(run_folder, lenient, lenient.config)
    data = lenient.config.data.model_copy(update={"strict": True})
    strict = lenient.config.model_copy(update={"data": data})
    assert run_id(strict) == lenient.run_id
    with pytest.raises(RequestError, match=r"data\.strict=true, and 1 of 30 images"):
        experiment.run_one(strict, Results(tmp_path / "results"))
    assert store.read(run_folder) == lenient


def test_the_run_id_does_not_depend_on_how_files_are_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["task=cnn", "data=folder", f"data.path={root}"]
    ids = {
        run_id(compose([*given, *more]))
        for more in ([], ["data.workers=0"], ["data.strict=true"], ["data.memory_gb=9"])
    }
    assert len(ids) == 1
    assert run_id(compose([*given, "data.size=32"])) not in ids
    # The class of the data set names these options.
    monkeypatch.setattr(folder.Folder, "not_hashed", frozenset({"strict"}))
    more = [*given, "data.workers=0"]
    assert run_id(compose(more)) != run_id(compose(given))


def test_a_test_folder_is_the_test_part(root: Path, tmp_path: Path) -> None:
    test = tmp_path / "test"
    shutil.copytree(root / "class 1", test / "class 1")
    data = loaded(root, test_path=str(test))
    assert sorted(data.splits["test"].tolist()) == list(range(30, 40))
    assert data.labels[data.splits["test"]].tolist() == [1] * 10
    shutil.copytree(root / "class 1", test / "zebra")
    with pytest.raises(RequestError, match=r"has classes that .* lacks: zebra"):
        loaded(root, test_path=str(test))


def test_a_class_without_readable_images_and_loose_images_are_refused(
    root: Path,
) -> None:
    for path in (root / "class 1").iterdir():
        truncate(path)
    with pytest.raises(RequestError, match="no image of class 1 in"):
        loaded(root)
    picture(root / "loose.png")
    message = r"images outside of class folders \(loose\.png\)"
    with pytest.raises(RequestError, match=message):
        loaded(root)


def test_training_and_test_folders_must_not_overlap(root: Path, tmp_path: Path) -> None:
    inside = root / "test"
    shutil.copytree(root / "class 1", inside / "class 1")
    given = ["task=cnn", "data=folder", f"data.path={root}"]
    with pytest.raises(RequestError, match="are one inside the other, so the network"):
        compose([*given, f"data.test_path={inside}"])
    link = tmp_path / "link"
    link.symlink_to(root, target_is_directory=True)
    for same in (root, link):
        with pytest.raises(RequestError, match="are the same, so the network would"):
            compose([*given, f"data.test_path={same}"])
    beside = inside.rename(tmp_path / "images of the test")  # starts with the same name
    assert compose([*given, f'data.test_path="{beside}"'])


def test_links_to_folders_are_followed_and_end(root: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    for name in ("class 0", "class 1"):
        (tmp_path / "linked" / name).symlink_to(root / name, target_is_directory=True)
    (root / "class 0" / "above").symlink_to(root, target_is_directory=True)
    paths = listed(tmp_path / "linked").pictures
    assert len(paths) == 20
    (root / "class 0" / "itself").symlink_to(root / "class 0")
    assert listed(tmp_path / "linked").pictures == paths


def test_threads_decode_in_order_and_end_with_their_reader(root: Path) -> None:
    paths = listed(root).pictures * 10
    truncate(paths[7])
    images = list(image_files.decoded(paths, 16, 4))
    assert len(images) == len(paths)
    for path, image in zip(paths, images, strict=True):
        if path == paths[7]:
            assert isinstance(image, pictures.UnreadablePicture)
        else:
            assert isinstance(image, torch.Tensor)
            assert torch.equal(image, pictures.centre_square(path, 16)), path
    reader = image_files.decoded(paths, 16, 2)
    next(reader)
    reader.close()
    end = time.monotonic() + 60
    while any(
        thread.name.startswith("normbench-decode") for thread in running_threads()
    ):
        assert time.monotonic() < end
        time.sleep(0.01)
