"""`init_offset` gives an arm other initial weights on the same data."""

from pathlib import Path

import pytest
import torch
from conftest import SMALL, Run
from safetensors.torch import load_file

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.errors import RequestError
from normbench.records.store import run_folder
from normbench.training.network import make_task


def test_only_the_initial_weights_are_those_of_another_seed(
    run: Run, tmp_path: Path
) -> None:
    hardly_trained = [*SMALL["cnn"], "lr=1e-30", "evaluations=1", "keep_weights=true"]

    def weights(*overrides: str) -> dict[str, torch.Tensor]:
        record = run(*hardly_trained, *overrides)
        folder = run_folder(tmp_path / "runs", record.run_id)
        loaded = load_file(folder / "weights.safetensors")
        return {name: w for name, w in loaded.items() if "running" not in name}

    first, offset, other = (
        weights("seed=3"),
        weights("seed=3", "init_offset=4"),
        weights("seed=7"),
    )
    torch.testing.assert_close(offset, other)
    assert not first["blocks.0.conv1.weight"].equal(offset["blocks.0.conv1.weight"])


def test_the_data_are_those_of_the_seed() -> None:
    cpu = torch.device("cpu")
    config = [*SMALL["cnn"], "tracker=none", "seed=3"]
    first, offset = (
        make_task(compose([*config, *more]), cpu) for more in ([], ["init_offset=4"])
    )
    for split, samples in first.splits.items():
        assert offset.splits[split].equal(samples)


def test_an_offset_is_part_of_the_id_and_not_negative() -> None:
    assert run_id(compose(["init_offset=0"])) == run_id(compose([]))
    assert run_id(compose(["init_offset=1"])) != run_id(compose([]))
    with pytest.raises(RequestError, match="init_offset"):
        compose(["init_offset=-1"])
