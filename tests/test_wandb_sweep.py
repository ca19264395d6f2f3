"""configs/wandb_sweep.yaml: the commands of a W&B agent, without a W&B server."""

from pathlib import Path
from typing import Any

import pytest
import wandb.wandb_agent
import yaml

from normbench.config.choices import config_root
from normbench.config.composition import compose
from normbench.config.schema import RunConfig
from normbench.sweeps.plan import make_plan

SWEEP = yaml.safe_load((config_root() / "wandb_sweep.yaml").read_text())


def agent_command(
    monkeypatch: pytest.MonkeyPatch, folder: Path, values: dict[str, Any]
) -> list[str]:
    """Return the command of wandb's agent for one combination of parameters."""
    started: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str], **more: Any) -> None:
            started.append(command)

    monkeypatch.chdir(folder)
    monkeypatch.setenv("WANDB_RUN_ID", "")  # the agent sets it: so that it is undone
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "")
    monkeypatch.setattr(wandb.wandb_agent, "AgentProcess", Process)
    agent = wandb.wandb_agent.Agent.__new__(wandb.wandb_agent.Agent)
    agent._sweep_command = list(SWEEP["command"])
    agent._function = agent._in_jupyter = None
    agent._forward_signals = False
    agent._run_processes = {}
    arguments = {key: {"value": value} for key, value in values.items()}
    agent._command_run({"run_id": "r", "program": SWEEP["program"], "args": arguments})
    (command,) = started
    return command


def choices() -> dict[str, list[Any]]:
    return {
        key: given["values"] if "values" in given else [given["value"]]
        for key, given in SWEEP["parameters"].items()
    }


def test_an_agent_executes_a_run_of_the_sweep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[RunConfig] = []
    for which in (0, -1):
        values = {key: given[which] for key, given in choices().items()}
        command = agent_command(monkeypatch, tmp_path, values)
        assert command[:3] == ["/usr/bin/env", "normbench", "train"]
        config = compose(command[3:])
        assert (config.batch_size, config.seed) == (
            values["batch_size"],
            values["seed"],
        )
        assert config.tracker.mode == "online"
        asked.append(config)
    assert [config.norm.name for config in asked] == ["batch", "layer_sample"]


def test_its_grid_is_a_valid_plan_with_an_existing_metric() -> None:
    overrides = [
        f"{key}={','.join(map(str, values))}" for key, values in choices().items()
    ]
    plan = make_plan(overrides)
    assert len(plan.runs) == 81
    assert not plan.skipped
    assert SWEEP["metric"] == {"name": "val/error", "goal": "minimize"}
