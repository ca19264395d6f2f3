"""CONTRIBUTING's recipes work to the letter."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL, Command
from documents import (
    ROOT,
    arguments_of,
    section,
    write_recipe_for_a_claim,
    write_recipe_for_a_data_set,
    write_recipe_for_a_norm,
    write_recipe_for_a_probe,
    write_recipe_for_a_task,
)


@pytest.mark.slow
def test_the_recipe_for_a_norm_works_to_the_letter(
    command: Command, tmp_path: Path
) -> None:
    write_recipe_for_a_norm(tmp_path, tmp_path / "mine" / "norm")
    (shown,) = [words for words in arguments_of("train") if "norm=half" in words]
    for task in SMALL:
        small = [*SMALL[task], "budget=smoke", "budget.max_steps=1", "tracker=none"]
        done = command("train", *shown, *small, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["config"]["norm"] == {"name": "half", "by": 2.0}
    (footprint,) = [words for words in arguments_of("footprint") if "half" in words]
    assert command("footprint", *footprint).returncode == 0


@pytest.mark.slow
def test_the_recipe_for_a_data_set_works_to_the_letter(
    command: Command, tmp_path: Path
) -> None:
    write_recipe_for_a_data_set(tmp_path, tmp_path / "mine" / "data")
    (shown,) = [words for words in arguments_of("train") if "data=stripes" in words]
    done = command("train", *shown, "task.width=8", "tracker=none", "--json")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["config"]["data"]["samples"] == 500
    assert run["metrics"]["test/error"] < 0.1


@pytest.mark.slow
def test_the_recipe_for_a_task_works_to_the_letter(
    command: Command, tmp_path: Path
) -> None:
    write_recipe_for_a_task(tmp_path, tmp_path / "mine" / "task")
    (shown,) = [words for words in arguments_of("train") if "task=contrast" in words]
    for norm in ("batch", "layer"):
        done = command("train", *shown, f"norm={norm}", "tracker=none", "--json")
        assert done.returncode == 0, done.stderr
        run = json.loads(done.stdout)
        assert run["config"]["task"] == {"name": "contrast", "width": 8}
        assert run["metrics"]["test/error"] < 0.4


@pytest.mark.slow
def test_the_recipe_for_a_probe_works_to_the_letter(
    command: Command, tmp_path: Path
) -> None:
    write_recipe_for_a_probe(tmp_path)
    listed = command("list", "probes", "--module", "count", "--json")
    found = {row["name"]: row["description"] for row in json.loads(listed.stdout)}
    assert found["count"] == "How many norms the network has."
    assert {"pad_statistics", "statistic_noise"} <= found.keys()
    words = "probes=[count] --module count"
    assert f"`normbench train {words}`" in section("A new probe")
    small = [*SMALL["cnn"], "budget=smoke", "budget.max_steps=1", "tracker=none"]
    done = command("train", *words.split(), *small, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["probes"] == {"count/norms": 9}


@pytest.mark.slow
def test_the_recipe_for_a_claim_works_to_the_letter(
    command: Command, tmp_path: Path
) -> None:
    write_recipe_for_a_claim(tmp_path / "mine")
    shown = [words for words in arguments_of("claim") if "norm-or-none" in words]
    shows, quick, full = shown
    assert "is below 0" in command("claim", *shows).stdout
    refused = command("claim", *full)
    assert refused.returncode == 2
    assert "is not committed" in refused.stderr
    done = command("claim", *quick, "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    (verdict,) = json.loads(done.stdout)
    (part,) = verdict["parts"]
    assert (part["name"], part["headline"]) == ("faster", "holds")
    assert "norm-or-none/verdict.quick.json" in done.stderr


@pytest.mark.slow
def test_the_recipe_in_the_repository_passes_the_suite(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for part in ("normbench", "configs", "tests", "scripts"):
        shutil.copytree(ROOT / part, copy / part)
    shutil.copy(ROOT / "pyproject.toml", copy)
    layers = copy / "normbench" / "norms" / "layers"
    write_recipe_for_a_norm(layers, copy / "configs" / "norm")
    suite = [
        "tests/norms",
        "tests/test_imports.py",
        "tests/training/test_experiment.py",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "half", *suite],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) > 6
