"""The device of a run: how it is chosen, and the memory layout channels_last."""

from pathlib import Path

import pytest
import torch
from conftest import SMALL, Command, Run
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from normbench.cli.console import Terminal
from normbench.cli.progress import SweepProgress
from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.config.schema import LocalEngine
from normbench.errors import Incompatible, RequestError
from normbench.records.store import Results
from normbench.sweeps.engines import local
from normbench.sweeps.engines.base import Work
from normbench.sweeps.forecast import Forecast
from normbench.training import experiment, network


def test_what_does_not_work_together_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match="precision=bf16"):
        run("norm=power", "precision=fp16")
    with pytest.raises(RequestError, match="channels_last"):
        run("task=transformer", "channels_last=true")
    assert not (tmp_path / "runs").exists()


def test_auto_is_cuda_then_mps_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    available: set[str] = set()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in available)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in available)
    chosen = []
    for device in ("", "mps", "cuda"):
        available.add(device)
        chosen.append(network.choose_device("auto").type)
    assert chosen == ["cpu", "mps", "cuda"]


def test_one_of_several_devices_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert network.choose_device("cuda:1") == torch.device("cuda", 1)
    message = "device=cuda:2 is not available; choose from cuda, cpu, cuda:0, cuda:1"
    with pytest.raises(RequestError, match=message):
        network.choose_device("cuda:2")
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(experiment, "check", lambda config, task: None)
    config = compose(["device=cuda:1"])
    second = network.choose_device(config.device)
    monkeypatch.setattr(experiment, "make_task", lambda config, device: None)
    experiment.prepare(config, second)
    assert current == [second]


def test_a_named_device_changes_no_id_and_is_used_by_all_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, any_device = compose(["device=cuda:1"]), compose(["device=cuda"])
    assert run_id(named) == run_id(any_device)
    monkeypatch.setattr(local, "visible_gpus", lambda: ["5", "6"])
    for config, gpus in ((named, []), (any_device, ["5", "6"])):
        runs = {run_id(config): config}
        work = Work(
            runs, Results(tmp_path), Forecast([], runs, 1), SweepProgress(Terminal())
        )
        engine = LocalEngine(name="local", workers=1, timeout=None)
        assert local.Pool(work, engine).gpus == gpus


def test_another_word_is_no_device() -> None:
    for word in ("gpu", "cuda:", "cuda:01", "cuda:x", "cpu:1", "CUDA", "cuda:1 "):
        with pytest.raises(RequestError, match="a device is 'auto', 'cpu', 'cuda'"):
            compose([f"device='{word}'"])
        with pytest.raises(RequestError, match="is not available"):
            network.choose_device(word)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("arguments", [["train"], ["sweep", "seed=0,1"]])
def test_cuda_without_cuda_is_one_clear_error(
    arguments: list[str], command: Command, tmp_path: Path
) -> None:
    done = command(*arguments, "device=cuda", "tracker=none")
    assert done.returncode == 2
    message = "error: device=cuda is not available; choose from cpu"
    assert [line for line in done.stderr.splitlines() if "error" in line] == [message]
    assert list(tmp_path.iterdir()) == []


def test_channels_last_is_another_layout_of_the_same_network(run: Run) -> None:
    layouts: set[bool] = set()

    def record_layout(module: nn.Module, *_: object) -> None:
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            if module.weight.device.type == "cpu" and module.in_channels > 1:
                layouts.add(module.weight.stride(1) == 1)

    with register_module_forward_hook(record_layout):
        plain = run(*SMALL["cnn"])
        assert layouts == {False}
        layouts.clear()
        other = run(*SMALL["cnn"], "channels_last=true", "keep_weights=true")
        assert layouts == {True}
    assert other.metrics["train/loss"] == pytest.approx(
        plain.metrics["train/loss"], rel=1e-3
    )
    assert other.environment.device == "cpu, channels last"
