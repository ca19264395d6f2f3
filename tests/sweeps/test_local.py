"""The engine `local`: which GPUs its workers get."""

from pathlib import Path

import pytest
import torch
from sweeps_made import ONE_STEP, RecordingObserver

from normbench.config.schema import LocalEngine
from normbench.records.store import Results
from normbench.sweeps.engines import local
from normbench.sweeps.engines.base import Work
from normbench.sweeps.forecast import Forecast
from normbench.sweeps.plan import make_plan
from normbench.sweeps.round import run_all


@pytest.mark.parametrize(
    ("named", "gpus"),
    [(None, ["0", "1"]), ("5,GPU-7", ["5", "GPU-7"]), ("3,1,-1,2", ["3", "1"])],
)
def test_devices_are_called_as_cuda_calls_them(
    named: str | None, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert local.visible_gpus() == gpus


@pytest.mark.slow
def test_workers_are_dealt_the_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tells_its_device.py").write_text(
        "import os, pathlib\n"
        "device = os.environ['CUDA_VISIBLE_DEVICES']\n"
        f"pathlib.Path({str(tmp_path)!r}, f'{{device}}-{{os.getpid()}}').touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(local, "visible_gpus", lambda: ["5", "GPU-7"])
    runs = make_plan([*ONE_STEP, "device=cpu", "seed=range(0,3)"]).runs
    forecast, seen = Forecast([], runs, 3), RecordingObserver()
    run_all(
        Work(runs, Results(tmp_path / "runs", ("tells_its_device",)), forecast, seen),
        LocalEngine(name="local", workers=3, timeout=None),
    )
    assert seen.records.keys() == runs.keys()
    devices = sorted(path.name.split("-")[0] for path in tmp_path.glob("*-[0-9]*"))
    assert devices == ["5", "5", "GPU"]
