"""scripts/check_device: its reduced form on the CPU, and that each check can fail."""

import contextlib
import dataclasses
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from normbench.config.composition import compose
from normbench.norms import REGISTRY, Norm
from normbench.training import network

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_device"
CPU = torch.device("cpu")
KINDS = {"numbers": 56, "waits": 12, "steps": 3, "graphs": 3, "sweep": 1, "resnet": 1}


@pytest.fixture(scope="module")
def loaded() -> Iterator[Any]:
    """Import scripts/check_device, and the modules beside it, as modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        loader = SourceFileLoader("check_device", str(SCRIPT))
        spec = importlib.util.spec_from_loader("check_device", loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "check_device", module)
        loader.exec_module(module)
        yield module


@pytest.fixture
def script(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script with one small network, whose results on the CPU are not kept."""
    monkeypatch.setattr(loaded, "NORMS", {"cnn": ["group"]})
    monkeypatch.setattr(loaded, "NORM", {"transformer": "layer"})
    sys.modules["_device"].on_the_cpu.cache_clear()
    return loaded


Forward = Callable[[Norm, Tensor, Tensor | None, Tensor | None], Tensor]


def break_norm(monkeypatch: pytest.MonkeyPatch, broken: Forward) -> None:
    monkeypatch.setattr(REGISTRY.get("group"), "forward", broken)


def row_of(script: Any, kind: str) -> Any:
    """Run the first check of `kind`, also one that a CPU skips."""
    check = next(check for check in script.checks(CPU) if check.kind == kind)
    return script.run(dataclasses.replace(check, skip=""), math.inf)


def states(script: Any, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """Return the exit code and the state and reason of each check of numbers."""
    code = script.main(["--device=cpu", "--check=numbers", "--json", *words])
    rows = json.loads(capsys.readouterr().out)["rows"]
    return code, {
        row["name"].split()[-1]: (row["state"], row["reason"]) for row in rows
    }


@pytest.mark.parametrize(
    ("value", "state"),
    [(1.0, "ok"), (2.0, "ok"), (0.9, "failed"), (2.1, "failed"), (math.nan, "failed")],
)
def test_a_figure_outside_its_limits_fails(
    value: float, state: str, script: Any
) -> None:
    check = script.Check("steps", "a", {"x": (1, 2)}, lambda: {"x": value, "y": 9.0})
    row = script.run(check, math.inf)
    assert row.state == state
    assert ("the limit is 1 to 2" in row.reason) == (state == "failed")
    json.dumps(row.measured, allow_nan=False)


def test_an_error_fails_with_its_first_line(script: Any) -> None:
    def crash() -> Mapping[str, float]:
        raise RuntimeError("\nout of memory\nand a hint")

    row = script.run(script.Check("steps", "a", {}, crash), math.inf)
    assert (row.state, row.reason) == ("failed", "RuntimeError: out of memory")
    late = script.run(script.Check("steps", "a", {}, crash), 0.0)
    assert (late.state, late.measured) == ("not run", {})
    assert script.run(script.Check("steps", "a", {}, crash, "why"), 0.0).reason == "why"


def test_every_check_has_a_row_if_there_is_no_time(
    loaded: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loaded.main(["--device=cpu", "--minutes=0", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["form"] == "reduced"
    rows = printed["rows"]
    counts = {kind: sum(row["kind"] == kind for row in rows) for kind in KINDS}
    assert counts == KINDS
    assert len({(row["kind"], row["name"]) for row in rows}) == len(rows) == 76
    assert {row["state"] for row in rows} == {"skipped", "not run"}
    assert loaded.main(["--device=cpu", "--check=waits"]) == 0
    assert "reduced form" in capsys.readouterr().out


def test_a_device_that_is_not_there_is_refused(
    script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main(["--device=cuda:99"])
    assert ended.value.code == 2
    assert "device=cuda:99 is not available" in capsys.readouterr().err


def test_a_norm_that_is_wrong_in_16_bits_fails(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, rows = states(script, capsys)
    assert code == 0
    assert {way: state for way, (state, _) in rows.items()} == {
        "fp32": "ok",
        "bf16": "ok",
        "fp16": "ok",
        "channels_last": "ok",
        "compile": "skipped",
    }
    group: Any = REGISTRY.get("group")
    right = group.__call__

    def wrong(self: Norm, x: Tensor, *others: Tensor | None) -> Tensor:
        y: Tensor = right(self, x, *others)
        return y if x.dtype == torch.float32 else 3 * y

    monkeypatch.setattr(group, "__call__", wrong)
    code, rows = states(script, capsys)
    assert code == 1
    for way in ("bf16", "fp16"):
        assert rows[way][0] == "failed"
        assert "gradient" in rows[way][1]
    assert rows["fp32"][0] == rows["channels_last"][0] == "ok"


def test_a_precision_that_is_ignored_fails(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_: contextlib.nullcontext())
    code, rows = states(script, capsys)
    assert code == 1
    assert [way for way, (state, _) in rows.items() if state == "failed"] == [
        "bf16",
        "fp16",
    ]
    assert "gradient is 0; the limit is 1e-05" in rows["bf16"][1]


@pytest.mark.parametrize("kind", ["another result", "nan", "an error"])
def test_a_norm_that_is_broken_in_float32_fails(
    kind: str,
    script: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The CPU, with which a device is compared, has done its steps before.
    sys.modules["_device"].on_the_cpu("cnn", "group", script.REDUCED.steps)
    right = REGISTRY.get("group").forward

    def broken(self: Norm, x: Tensor, *others: Tensor | None) -> Tensor:
        if kind == "an error" and x.device == CPU:  # not on meta, where it is checked
            raise RuntimeError("no kernel image")
        y: Tensor = right(self, x, *others)
        return y * (math.nan if kind == "nan" else 1.1)

    break_norm(monkeypatch, broken)
    code, rows = states(script, capsys)
    assert code == 1
    state, reason = rows["fp32"]
    assert state == "failed"
    expected = {"nan": "not finite", "an error": "RuntimeError: no kernel image"}
    assert expected.get(kind, "gradient") in reason


def test_a_step_that_waits_fails(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    assert (
        "torch did not notice" in row_of(script, "waits").reason
    )  # the CPU never does
    monkeypatch.setattr(
        sys.modules["_device"], "require_waits_to_raise", lambda _: None
    )
    modes.clear()
    assert row_of(script, "waits").state == "ok"
    assert modes == ["error", "default", "default"]
    right = REGISTRY.get("group").forward
    steps: list[bool] = []

    def waits(self: Norm, x: Tensor, *others: Tensor | None) -> Tensor:
        steps.append(modes[-1] == "error")
        if steps[-1]:
            raise RuntimeError("called a synchronizing CUDA operation")
        y: Tensor = right(self, x, *others)
        return y

    break_norm(monkeypatch, waits)
    row = row_of(script, "waits")
    assert row.state == "failed"
    assert "synchronizing" in row.reason
    assert True in steps and modes[-1] == "default"


@pytest.mark.parametrize("task", ["cnn", "transformer", "style"])
def test_the_loss_of_a_graph_is_that_of_the_task(task: str, script: Any) -> None:
    graphs = sys.modules["_graphs"]
    made = network.make_task(compose([f"task={task}"]), CPU)
    index = made.splits["train"][:2]
    torch.manual_seed(0)
    model = made.build(graphs.bare_norm(task)).train()
    loss = graphs.loss_of_one_batch(made, index, CPU)
    assert torch.equal(loss(model), made.loss(model, index))


def test_a_graph_that_takes_other_steps_or_longer_fails(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = sys.modules["_graphs"]

    def captured(step: Any) -> Any:
        for _ in range(graphs.WARM_UP):
            step()
        return step

    monkeypatch.setattr(graphs, "captured", captured)
    times = iter([2.0, 1.0] * 2 + [1.0, 2.0] * 2 + [2.0, 1.0] * 2)

    def timed(steps: Callable[[int], None], count: int, _: torch.device) -> float:
        steps(count)
        return next(times)

    monkeypatch.setattr(graphs, "timed", timed)
    row = row_of(script, "graphs")
    assert (row.state, row.measured) == ("ok", {"ratio": 0.5, "loss": 0.0})
    assert "ratio is 2; the limit is <= 1.1" in row_of(script, "graphs").reason
    monkeypatch.setattr(graphs, "captured", lambda step: step() or (lambda: None))
    reason = row_of(script, "graphs").reason
    assert "loss" in reason and "ratio" not in reason


def test_a_slow_step_fails(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for ratio, state in ((1.4, "ok"), (1.6, "failed")):
        measured = {"ratio": ratio, "bare_ms": 1.0}
        monkeypatch.setattr(script, "measure", lambda *_, figures=measured: figures)
        assert row_of(script, "steps").state == state


@pytest.mark.parametrize("kind", ["sweep", "resnet"])
def test_a_run_that_fails_or_is_missing_or_elsewhere_fails(
    kind: str, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"status": "ok", "environment": {"device": "cpu"}, "samples_per_second": 9.0}
    failed = good | {"status": "failed", "error": "Traceback\nRuntimeError: no"}
    elsewhere = good | {"environment": {"device": "cuda (a GPU)"}}
    count = script.REDUCED.sweep_runs if kind == "sweep" else 1
    printed = {
        json.dumps([good] * count): "",
        json.dumps(
            [good] * (count - 1) + [failed]
        ): "a run is failed: RuntimeError: no",
        json.dumps([good] * (count - 1) + [elsewhere]): "on cuda (a GPU), not on cpu",
        json.dumps(
            [good] * (count + 1)
        ): f"runs is {count + 1}; the limit is = {count}",
        "": "ended with 2: error: no such key",
    }
    for stdout, reason in printed.items():
        done = subprocess.CompletedProcess([], 2, stdout, "a\nerror: no such key\n")
        monkeypatch.setattr(subprocess, "run", lambda *_, done=done, **__: done)
        row = row_of(script, kind)
        assert row.state == ("failed" if reason else "ok"), row.reason
        assert reason in row.reason


@pytest.mark.slow
def test_the_reduced_form_runs_every_check() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--device=cpu", "--json"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == sum(KINDS.values())
    # A busy machine may disturb the times, so `steps` may fail here.
    bad = [row for row in rows if row["state"] not in ("ok", "skipped")]
    assert [row for row in bad if row["kind"] != "steps"] == []
    assert done.returncode == bool(bad), done.stderr
    assert all(row["reason"] for row in rows if row["state"] == "skipped")
