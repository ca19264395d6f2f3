"""The task `module`: networks of the user's own, trained and compared."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import Command, Run
from torch import nn
from user_networks_made import NETWORKS

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


def built(*overrides: str, seed: int = 0) -> Classifier:
    """Return the network of a config, as the trainer builds it."""
    config = compose([*PICTURES, *overrides])
    torch.manual_seed(seed)
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
    kept: nn.Module = model.network
    plain = sys.modules["made_nets"].Pictures()
    assert isinstance(kept.bn, Ghost)
    assert isinstance(kept.gn, Norm)
    options = (kept.bn.norm.eps, kept.bn.norm.momentum)
    assert options == pytest.approx((1e-3, 0.3))
    weights = {
        name.replace("bn.norm", "bn"): value
        for name, value in kept.state_dict().items()
    }
    assert not plain.load_state_dict(weights, strict=False).unexpected_keys
    x = torch.randn(8, 1, 8, 8)
    for _ in range(2):
        torch.testing.assert_close(model.train()(x), plain.train()(x))
    torch.testing.assert_close(model.eval()(x), plain.eval()(x))
    torch.testing.assert_close(kept.bn.norm.running_var, plain.bn.running_var)


@pytest.mark.usefixtures("imported")
def test_initial_weights_are_the_same_for_every_norm_and_differ_between_seeds() -> None:
    def weights(*overrides: str, seed: int = 0) -> dict[str, torch.Tensor]:
        state = built(*overrides, seed=seed).state_dict()
        return {k: v for k, v in state.items() if "bn" not in k and "gn" not in k}

    for factory in ("Pictures", "seeded"):
        model = f"task.model=made_nets:{factory}"
        first = weights(model, "norm=keep")
        for other in ("norm=switchable", "norm=batch"):
            torch.testing.assert_close(weights(model, other), first, rtol=0, atol=0)
        assert not weights(model, seed=1)["network.head.weight"].equal(
            first["network.head.weight"]
        )


@pytest.mark.usefixtures("imported")
def test_a_factory_that_sets_the_seed_does_not_change_what_follows() -> None:
    drawn = []
    for seed in (0, 1):
        built("task.model=made_nets:Seeds", seed=seed)
        drawn.append(torch.rand(3))
    assert not drawn[0].equal(drawn[1])


@pytest.mark.usefixtures("imported")
def test_where_selects_the_norms_that_are_replaced(run: Run) -> None:
    network = built("norm=rms", "task.where=gn").network
    assert [type(m).__name__ for m in (network.bn, network.gn)] == ["Ghost", "RMSNorm"]
    assert isinstance(built("norm=rms").network.bn, Norm)
    # The batch norm that stays needs the evaluations that norm=rms does not need.
    metrics = run(*PICTURES, "norm=rms", "task.where=gn", "norm_batch=2").metrics
    assert metrics["test_batch/loss"] != metrics["test/loss"]
    for where, message in (
        ("nothing", "task.where=nothing matches none of the 2 norms .*: bn, gn"),
        ("(", "is not a regular expression"),
    ):
        with pytest.raises(RequestError, match=message):
            built("norm=rms", f"task.where='{where}'")


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["task.model=null"], RequestError, "needs a network: task.model=PACKAGE"),
        (["task.model=made_nets"], RequestError, "has no factory; a model is"),
        (["task.model=made_nets:Picture"], RequestError, "did you mean 'Pictures'"),
        (["task.model=made_nets:needs"], RequestError, "it needs classes"),
        (["task.model=made_nets:text"], RequestError, "returns str, not a torch"),
        (["task.model=torch:nn.Linear"], RequestError, "add --module torch"),
        (["task.model=torchvision:resnet"], RequestError, "no model resnet; did you"),
        (
            ["task.model=made_nets:wrong_input"],
            RequestError,
            r'layer "0" \(Conv2d\) fails on an input of shape \(2, 1, 8, 8\)',
        ),
        (
            ["task.model=made_nets:wrong_output"],
            RequestError,
            r"shape \(2, 7\), but 2 samples of 10 classes .*num_classes=10",
        ),
        (["task.model=made_nets:features"], RequestError, r"shape \(2, 4, 36\), but"),
        (
            ["task.model=made_nets:normless", "norm=batch"],
            RequestError,
            "replaces no norm of the network: it has none; use norm=keep",
        ),
        (["norm=group", "norm.num_groups=3"], Incompatible, "layer bn: norm=group"),
        (["norm=batch", "task.model=made_nets:Fussy"], Incompatible, "no attribute"),
        (["reparam=weight_std"], Incompatible, "is unknown in Classifier"),
        (["optimizer.decay_as=lr_schedule"], Incompatible, "is unknown in Classifier"),
        ([*TEXTS, "norm=batch_masked"], Incompatible, "does not pass the mask"),
        (
            [*TEXTS, "norm_noise.kind=statistic"],
            Incompatible,
            "norm_noise needs norms with the channels in the second axis",
        ),
    ],
)
def test_what_is_not_possible_is_refused_before_the_run(
    overrides: list[str], error: type[RequestError], message: str
) -> None:
    defaults = ["norm=keep", "optimizer.nesterov=false"]
    config = compose(
        [
            *PICTURES,
            *(() if "data=display_names" in overrides else defaults),
            *overrides,
        ]
    )
    with pytest.raises(error, match=message) as raised:
        network.check(config, network.make_task(config, torch.device("cpu")))
    assert type(raised.value) is error


def test_keep_is_a_choice_for_this_task_only() -> None:
    config = compose(["norm=keep", "tracker=none"])
    with pytest.raises(Incompatible, match="keeps the norms of a network of your own"):
        network.check(config, network.make_task(config, torch.device("cpu")))


@pytest.mark.usefixtures("imported")
def test_a_norm_that_stays_and_uses_other_samples_is_named(run: Run) -> None:
    overrides = [*PICTURES, "task.model=made_nets:shared"]
    record = run(*overrides, "norm=keep")
    assert any('norm "1" (SyncBatchNorm) stays' in line for line in record.data_notes)
    assert not run(*overrides, "norm=batch").data_notes


@pytest.mark.usefixtures("imported")
def test_networks_without_norms_and_noise_after_norms_train(run: Run) -> None:
    assert run(*PICTURES, "task.model=made_nets:normless", "norm=keep").status == "ok"
    noise = ["norm_noise.kind=statistic", "norm_noise.shift=0.1"]
    plain, noisy = (run(*PICTURES, *more, "norm=keep") for more in ([], noise))
    assert noisy.status == "ok"
    assert noisy.metrics != plain.metrics


def test_ghost_batches_and_accumulation_reach_the_layers(
    imported: None, run: Run
) -> None:
    runs = [
        run(*PICTURES, "norm=keep", *more)
        for more in ([], ["norm_batch=4"], ["accumulate=2"])
    ]
    assert len({record.metrics["train/loss"] for record in runs}) == 3
    assert runs[1].metrics["train/loss"] == pytest.approx(
        runs[2].metrics["train/loss"], rel=1e-4
    )


def test_probes_get_the_inputs_with_their_channels_second(
    imported: None, run: Run
) -> None:
    record = run(*TEXTS, "norm=batch", "probes=[statistic_noise,pad_statistics]")
    assert record.probes["statistic_noise/mean_noise"] is not None
    assert not any(key.startswith("pad_statistics") for key in record.probes)


@pytest.mark.usefixtures("imported")
def test_auto_groups_are_chosen_for_each_layer() -> None:
    model = built("norm=group", "norm.num_groups=auto", "task.model_options.width=24")
    groups = [m.num_groups for m in model.modules() if isinstance(m, Norm)]
    assert groups == [6, 6]


@pytest.mark.usefixtures("imported")
def test_a_run_whose_module_is_missing_is_refused_and_not_recorded(
    run: Run, tmp_path: Path
) -> None:
    assert run(*PICTURES, "norm=keep").status == "ok"
    records = set(tmp_path.rglob("result.json"))
    added_modules.pop("made_nets")
    with pytest.raises(RequestError, match="if you trust it, add --module made_nets"):
        run(*PICTURES, "norm=keep", "seed=1")
    assert set(tmp_path.rglob("result.json")) == records
