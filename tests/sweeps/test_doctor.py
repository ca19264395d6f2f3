"""What doctor finds: the traps of a config, and what is not there."""

import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
import torch
import wandb
from conftest import SMALL
from typer.testing import CliRunner

from normbench.cli import app
from normbench.config.composition import compose, compose_engine
from normbench.errors import RequestError
from normbench.norms.base import REGISTRY as NORMS
from normbench.records import tracking
from normbench.sweeps import doctor
from normbench.sweeps.doctor import examine
from normbench.sweeps.engines.base import cores
from normbench.sweeps.traps import Finding, relative_noise, values_in_statistic
from normbench.training.network import make_task, try_on_meta


def look(
    *overrides: str, results: Path = Path(), engine: Sequence[str] = ()
) -> dict[str, Finding]:
    config = compose([*SMALL["cnn"], "tracker=none", *overrides])
    findings = examine(config, compose_engine(engine), results)
    assert len({finding.what for finding in findings}) == len(findings)
    return {finding.what: finding for finding in findings}


def test_a_config_without_a_trap_has_neither_error_nor_warning() -> None:
    found = look("norm=batch", "batch_size=32")
    assert {f.level for f in found.values()} <= {"ok", "note"}
    assert "32 samples" in found["last batch"].why


def test_groups_that_do_not_divide_are_an_error() -> None:
    found = look("norm=group", "norm.num_groups=3")["network"]
    assert found.level == "error"
    assert "does not divide 8 channels" in found.why


def test_a_batch_above_the_data_is_an_error() -> None:
    found = look("batch_size=100000")["network"]
    assert found.level == "error"
    assert "is above the 3000 training samples" in found.why


def test_a_last_batch_of_one_is_told() -> None:
    assert look("batch_size=2999")["last batch"].level == "note"
    assert look("batch_size=1500")["last batch"].level == "ok"


def test_ghost_batches_matter_where_samples_share_statistics_alone() -> None:
    without = look("norm=group", "batch_size=32", "norm_batch=4")["ghost batches"]
    assert without.level == "warning"
    assert "the micro-batch, 32" in without.do
    assert "ghost batches" not in look("norm=batch", "batch_size=32", "norm_batch=4")
    accumulated = look("norm=batch", "batch_size=32", "accumulate=2")
    assert "of 16 samples, not of the 32" in accumulated["accumulation"].why


def test_few_samples_are_told_with_their_noise() -> None:
    found = look("norm=batch", "batch_size=2")["samples per statistic"]
    assert found.level == "warning"
    # 14x14 pixels, halved by the stem and by two stages: 2x2 positions.
    assert "norm_batch=2 samples of 4 positions" in found.why
    assert "35% to 71%" in found.why
    assert look("norm=batch", "batch_size=16")["samples per statistic"].level == "ok"


def test_few_values_of_one_sample_are_told() -> None:
    found = look("norm=instance")["values per statistic"]
    assert found.level == "warning"
    assert found.why.startswith("4 of one sample")
    assert look("norm=layer")["values per statistic"].level == "ok"
    assert "has none" in look("norm=affine")["values per statistic"].why


def test_the_noise_of_a_mean_is_that_of_random_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    least, most = relative_noise(4, 9)
    independent = torch.randn(20_000, 4 * 9, generator=generator)
    assert independent.mean(1).std().item() == pytest.approx(least, rel=0.02)
    alike = torch.randn(20_000, 4, 1, generator=generator).expand(-1, -1, 9)
    assert alike.flatten(1).mean(1).std().item() == pytest.approx(most, rel=0.02)


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("instance", {}, 15),
        ("group", {"num_groups": 4}, 30),
        ("layer_sample", {}, 120),
        ("layer_position", {}, 8),
        ("affine", {}, None),
    ],
)
def test_a_statistic_has_so_many_values(
    name: str, options: dict[str, object], count: int | None
) -> None:
    shape = torch.Size((2, 8, 3, 5))
    assert values_in_statistic(NORMS.get(name), options, shape) == count


@pytest.mark.parametrize("axes", ["per sample", "a, b, c", ""])
def test_axes_in_other_words_are_a_note(
    axes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a norm of one's own may have them, or none."""
    monkeypatch.setattr(NORMS.get("instance"), "axes", axes)
    found = look("norm=instance")["values per statistic"]
    assert found.level == "note"
    assert f"not known of norm=instance, whose axes={axes!r}" in found.why


def test_every_norm_says_its_axes_in_words_that_are_understood() -> None:
    for name in NORMS.names():
        values_in_statistic(NORMS.get(name), {"num_groups": 2}, torch.Size((2, 8, 3)))


def test_the_shapes_are_those_of_a_forward() -> None:
    config = compose([*SMALL["cnn"], "batch_size=6", "accumulate=2"])
    shapes: list[torch.Size] = []
    task = make_task(config, torch.device("cpu"))
    try_on_meta(config, task, lambda x: shapes.append(x.shape))
    assert {shape[0] for shape in shapes} == {3}
    assert shapes[0] == (3, 8, 7, 7)


def test_weight_decay_on_norms_is_a_warning() -> None:
    assert look()["weight decay"].level == "ok"
    assert look("norm_weight_decay=true")["weight decay"].level == "warning"
    none = look("norm_weight_decay=true", "optimizer.weight_decay=0.0")
    assert none["weight decay"].level == "ok"


def test_the_learning_rate_gets_a_hint() -> None:
    assert look("batch_size=8")["learning rate"].level == "ok"
    hint = look("batch_size=8", "lr_rule=none", "lr=0.4")["learning rate"]
    assert hint.level == "note"
    assert "0.4 at the peak" in hint.why
    assert "would be 0.1" in hint.why
    adam = look("batch_size=8", "optimizer=adamw", "lr=0.008")["learning rate"]
    assert "would be 0.004" in adam.why


def test_the_linear_rule_at_small_batches_is_a_warning() -> None:
    for batch, level in ((1, "warning"), (2, "warning"), (4, "warning"), (5, "ok")):
        found = look("norm=batch", f"batch_size={batch}")["learning rate"]
        assert found.level == level, batch
    found = look("norm=batch", "batch_size=2")["learning rate"]
    assert "0.00625 at the peak; from 32 down to 2 samples" in found.why
    assert "several times too low, and the ranking of norms changes" in found.why
    assert "lr_rule=sqrt would give 0.025" in found.do
    for rule in ("sqrt", "none"):
        other = look("norm=batch", "batch_size=2", f"lr_rule={rule}")["learning rate"]
        assert other.level == "note", rule
    # What counts is how far it is from the batch size that lr is meant for.
    near = look("norm=batch", "batch_size=2", "lr_reference_batch_size=8")
    assert near["learning rate"].level == "ok"


def test_a_rate_for_sgd_is_a_warning_with_adamw() -> None:
    adamw = ["optimizer=adamw", "batch_size=32"]
    found = look(*adamw, "lr=0.1")["learning rate"]
    assert found.level == "warning"
    assert "0.1 at the peak, which is a rate for SGD" in found.why
    assert "unstable above 0.01" in found.why
    assert "lr=0.001" in found.do
    assert look(*adamw, "lr=0.01")["learning rate"].level == "ok"
    assert look("batch_size=32", "lr=0.1")["learning rate"].level == "ok"
    # The rate at the peak counts: the linear rule raises this one.
    large = look("optimizer=adamw", "batch_size=512", "lr=0.003")["learning rate"]
    assert "0.048 at the peak" in large.why
    assert large.level == "warning"


def test_results_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert look(results=file / "runs")["results"].level == "error"
    assert look(results=tmp_path / "new" / "runs")["results"].level == "ok"
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10 * 2**20})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    assert look()["disk"].level == "error"
    usage.free = 500 * 2**20
    assert look()["disk"].level == "warning"


def test_what_is_not_here_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert look("device=cuda")["device"].level == "error"
    monkeypatch.setattr(doctor, "_is_installed", lambda name: name != "ray")
    missing = look(engine=["engine=ray"])["engine"]
    assert missing.level == "error"
    assert "normbench[ray]" in missing.do
    monkeypatch.setenv("PATH", "")
    assert look(engine=["engine=slurm"])["engine"].level == "error"
    local = ["engine=slurm", "engine.cluster=local"]
    assert look(engine=local)["engine"].level == "ok"


def test_more_threads_than_cores_are_a_warning() -> None:
    alone = ["engine.workers=1"]
    too_many = look(f"threads={cores() + 1}", engine=alone)["threads"]
    assert too_many.level == "warning"
    assert look(engine=alone)["threads"].level == "ok"


def test_online_without_a_key_or_an_answer_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    online = ["tracker=wandb", "tracker.mode=online"]
    monkeypatch.setattr(tracking, "account", lambda: ("https://server", False))
    assert "no key for https://server" in look(*online)["tracker"].why
    monkeypatch.setattr(tracking, "account", lambda: ("https://server", True))
    monkeypatch.setattr(tracking, "answers", lambda url, seconds: False)
    silent = look(*online)["tracker"]
    assert silent.level == "warning"
    assert "https://server is silent" in silent.why
    monkeypatch.setattr(tracking, "answers", lambda url, seconds: True)
    assert look(*online)["tracker"].level == "ok"


def test_a_server_is_there_where_anything_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert not tracking.answers(url, 20.0)  # refused: it does not listen
        server.listen()
        assert not tracking.answers(url, 0.2)  # and says nothing
        answer = Thread(target=refuse, args=(server,))
        answer.start()
        assert tracking.answers(url, 20.0)
        answer.join()


def refuse(server: socket.socket) -> None:
    """An answer to whoever is still there of those who asked."""
    for _ in range(2):
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n")


def test_a_ray_address_is_tried() -> None:
    nobody = ["engine=ray", "engine.address=127.0.0.1:9"]
    found = look(engine=nobody)["engine"]
    assert found.level == "error"
    assert "is not reached" in found.why


def test_data_that_are_not_there_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise RequestError("data.path=/nowhere is not there")

    monkeypatch.setattr(doctor.network, "make_task", missing)
    assert look()["data"].why == "data.path=/nowhere is not there"


def test_what_is_printed_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normbench.cli.doctor.width", lambda: 80)
    asked = [*SMALL["cnn"], "tracker=none", "norm=batch", "batch_size=2"]
    done = CliRunner().invoke(app, ["doctor", *asked])
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80
    lines = done.stdout.splitlines()
    assert lines[0].startswith("warning  samples per statistic: norm_batch=2")
    levels = [line.split()[0] for line in lines if line[0] != " "]
    assert levels == sorted(levels, key=["warning", "note", "ok"].index)


def test_a_key_is_found_where_wandb_looks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wandb.teardown()  # what another test's run has read stays
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://there:8080")
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    assert tracking.account() == ("http://there:8080", False)
    netrc.write_text(f"machine there:8080 login user password {'k' * 40}\n")
    assert tracking.account() == ("http://there:8080", True)
    netrc.unlink()
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert tracking.account() == ("http://there:8080", True)


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        (["norm=batch"], 0),
        (["norm=group", "norm.num_groups=3"], 1),
        (["norm=nope"], 2),
        (["norm=batch,group"], 2),
        (["engine.workers=0"], 2),
    ],
)
def test_the_command_tells_by_its_exit_code(
    overrides: list[str], code: int, tmp_path: Path
) -> None:
    asked = [*SMALL["cnn"], "tracker=none", *overrides, "--results", str(tmp_path)]
    done = CliRunner().invoke(app, ["doctor", *asked, "--json"])
    assert done.exit_code == code, done.output
    if code != 2:
        findings = [Finding(**each) for each in json.loads(done.stdout)]
        assert any(f.level == "error" for f in findings) == (code == 1)
    assert not list(tmp_path.iterdir())
