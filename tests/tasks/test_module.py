"""The task `module`: networks of the user's own, trained and compared."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import Command
from networks_made import NETWORKS
from torch import nn

from normbench.config.composition import compose
from normbench.errors import Incompatible, RequestError
from normbench.norms import Ghost, Norm
from normbench.system.imports import added_modules, import_modules
from normbench.tasks.networks.foreign import Classifier
from normbench.training import network

TINY = ["budget.max_steps=2", "batch_size=8", "tracker=none", "device=cpu"]
PICTURES = ["task=module", "task.model=made_nets:Pictures", "data=digits", *TINY]
TEXTS = ["task=module", "task.model=made_nets:Texts", "data=display_names", *TINY]
TEXTS += ["optimizer=adamw", "task.model_options.classes=12"]


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write the module `made_nets` into the folder of `invoke`; forget it later."""
    file = tmp_path / "made_nets.py"
    file.write_text(NETWORKS)
    yield file
    sys.modules.pop("made_nets", None)
    added_modules.pop("made_nets", None)


@pytest.fixture
def imported(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(nets.parent)
    import_modules(["made_nets"])


def built(*overrides: str) -> Classifier:
    """Return the network of a config with seed 0, as the trainer builds it."""
    config = compose([*PICTURES, *overrides])
    torch.manual_seed(0)
    model = network.build(config, network.make_task(config, torch.device("cpu"))).model
    assert isinstance(model, Classifier)
    return model


@pytest.mark.parametrize("norm", ["keep", "batch", "group", "layer"])
@pytest.mark.parametrize("overrides", [PICTURES, TEXTS], ids=["images", "texts"])
def test_a_network_trains_with_its_norms_and_with_others(
    invoke: Command, norm: str, overrides: list[str]
) -> None:
    options = ["norm.num_groups=2"] if norm == "group" else []
    done = invoke("train", *overrides, f"norm={norm}", *options, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["status"] == "ok"
    assert record["config"]["norm"]["name"] == norm
    assert list(record["environment"]["modules"]) == ["made_nets"]
    assert {"test/error", "test_batch/error", "test_recomputed/error"} <= {
        *record["metrics"]
    }


@pytest.mark.usefixtures("imported")
def test_keep_computes_the_same_as_the_network_itself() -> None:
    model = built("norm=keep")
    plain = sys.modules["made_nets"].Pictures()
    assert [type(m) for m in (model.network.bn, model.network.gn)] != [
        type(m) for m in (plain.bn, plain.gn)
    ]
    ghost = model.network.bn
    assert isinstance(ghost, Ghost)
    assert (ghost.norm.eps, ghost.norm.momentum) == pytest.approx((1e-3, 0.3))
    weights = {
        name.replace("network.", "").replace("bn.norm", "bn"): value
        for name, value in model.state_dict().items()
    }
    missing, unexpected = plain.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["bn.num_batches_tracked"], [])
    x = torch.randn(8, 1, 8, 8)
    for _ in range(2):
        torch.testing.assert_close(model.train()(x), plain.train()(x))
    torch.testing.assert_close(model.eval()(x), plain.eval()(x))
