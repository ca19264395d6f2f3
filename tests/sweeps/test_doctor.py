"""The findings of doctor: traps in a config, and missing devices, keys or packages."""

import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
import torch
import wandb
from conftest import SMALL, Command

from normbench.config.composition import compose, compose_engine
from normbench.errors import RequestError
from normbench.models.finding import Finding
from normbench.norms.base import REGISTRY as NORMS
from normbench.norms.measure.sizes import relative_noise, values_in_statistic
from normbench.records import tracking
from normbench.records.source import source_hash
from normbench.sweeps import doctor
from normbench.sweeps.doctor import examine
from normbench.sweeps.engines.base import cores
from normbench.training.network import make_task, try_network

NORMAL = ["norm=batch", "batch_size=32"]


def examined(
    *overrides: str, results: Path = Path(), engine: Sequence[str] = ()
) -> dict[str, Finding]:
    config = compose([*SMALL["cnn"], "tracker=none", *overrides])
    findings = examine(config, compose_engine(engine), results)
    assert len({finding.what for finding in findings}) == len(findings)
    return {finding.what: finding for finding in findings}


def test_a_config_without_a_trap_has_neither_error_nor_warning() -> None:
    findings = examined(*NORMAL)
    assert {finding.level for finding in findings.values()} <= {"ok", "note"}
    assert "32 samples" in findings["last batch"].why
    config = compose([*SMALL["cnn"], "tracker=none", *NORMAL])
    assert f"source_hash {source_hash(config)}" in findings["code"].why


ADAMW = "batch_size=32 optimizer=adamw"
TRAPS: tuple[tuple[str | None, ...], ...] = (
    ("norm=group norm.num_groups=3", "network", "error", "does not divide 8 chann"),
    ("batch_size=100000", "network", "error", "is above the 3000 training samples"),
    ("batch_size=2999", "last batch", "note"),
    ("batch_size=1500", "last batch", "ok"),
    (
        "norm=group batch_size=32 norm_batch=4",
        *("ghost batches", "warning", "norm=group", "size of the micro-batch, 32"),
    ),
    ("norm=batch batch_size=32 norm_batch=4", "ghost batches", None),
    (
        "norm=batch batch_size=32 accumulate=2",
        *("accumulation", "note", "from 16 samples, not from the 32"),
    ),
    # 14x14 pixels, halved by the stem and by two stages: 2x2 positions.
    (
        "norm=batch batch_size=2",
        *("samples per statistic", "warning", "norm_batch=2 samples of 4 position"),
        "35% to 71%",
    ),
    ("norm=batch batch_size=16", "samples per statistic", "ok"),
    ("norm=instance", "values per statistic", "warning", "4 values of one samp"),
    ("norm=layer", "values per statistic", "ok"),
    ("norm=affine", "values per statistic", "ok", "has no statistics"),
    ("", "weight decay", "ok"),
    ("norm_weight_decay=true", "weight decay", "warning"),
    ("norm_weight_decay=true optimizer.weight_decay=0.0", "weight decay", "ok"),
    ("batch_size=8", "learning rate", "ok"),
    (
        "batch_size=8 lr_rule=none lr=0.4",
        *("learning rate", "note", "0.4 at the peak", "would give 0.1"),
    ),
    (
        "batch_size=8 optimizer=adamw lr=0.008",
        *("learning rate", "note", "would give 0.004"),
    ),
    (
        "batch_size=1",
        *("learning rate", "warning", "several times too low, and the ranking"),
    ),
    (
        "batch_size=2",
        *("learning rate", "warning", "lr_rule=sqrt would give 0.025"),
        "0.00625 at the peak; from 32 down to 2 samples",
    ),
    ("batch_size=4", "learning rate", "warning"),
    ("batch_size=5", "learning rate", "ok"),
    ("batch_size=2 lr_rule=sqrt", "learning rate", "note"),
    ("batch_size=2 lr_rule=none", "learning rate", "note"),
    # The ratio to the batch size that lr is meant for counts.
    ("batch_size=2 lr_reference_batch_size=8", "learning rate", "ok"),
    (
        f"{ADAMW} lr=0.1",
        *("learning rate", "warning", "lr=0.1 is a rate for SGD"),
        *("AdamW is often unstable above 0.01", "lr=0.001"),
    ),
    (f"{ADAMW} lr=0.01", "learning rate", "ok"),
    (
        "batch_size=2 optimizer=adamw lr=0.1 lr_rule=linear",
        *("learning rate", "warning", "lr=0.1 is a rate for SGD"),
    ),
    ("batch_size=32 lr=0.1", "learning rate", "ok"),
    # The rate at the peak counts: the linear rule raises this one.
    (
        "optimizer=adamw batch_size=512 lr=0.003",
        *("learning rate", "warning", "0.048 at the peak"),
    ),
)
"""Overrides, name of a finding, its level (None: no finding), and texts in it."""


def test_every_trap_is_found_but_not_in_similar_configs() -> None:
    for overrides, what, level, *words in TRAPS:
        findings = examined(*str(overrides).split())
        finding = findings.get(str(what))
        assert (finding and finding.level) == level, overrides
        for text in words:
            assert finding and str(text) in f"{finding.why} {finding.do}", overrides


def test_the_noise_of_a_mean_is_that_of_random_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    least, most = relative_noise(4, 9)
    independent = torch.randn(20_000, 4 * 9, generator=generator)
    assert independent.mean(1).std().item() == pytest.approx(least, rel=0.02)
    alike = torch.randn(20_000, 4, 1, generator=generator).expand(-1, -1, 9)
    assert alike.flatten(1).mean(1).std().item() == pytest.approx(most, rel=0.02)


def test_values_are_counted_by_the_axes_of_every_norm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = torch.Size((2, 8, 3, 5))
    counts = {
        name: values_in_statistic(NORMS.get(name), {"num_groups": 4}, shape)
        for name in NORMS.names()
    }
    expected = {"instance": 15, "group": 30, "layer_sample": 120, "layer_position": 8}
    assert counts | expected | {"affine": None} == counts
    for axes in ("per sample", "a, b, c", ""):  # possible in a norm of the user
        monkeypatch.setattr(NORMS.get("instance"), "axes", axes)
        finding = examined("norm=instance")["values per statistic"]
        assert finding.level == "note"
        assert f"unknown for norm=instance: axes={axes!r} uses" in finding.why


def test_the_shapes_are_those_of_a_forward() -> None:
    config = compose([*SMALL["cnn"], "batch_size=6", "accumulate=2"])
    shapes: list[torch.Size] = []
    task = make_task(config, torch.device("cpu"))
    try_network(config, task, lambda x: shapes.append(x.shape))
    assert {shape[0] for shape in shapes} == {3}
    assert shapes[0] == (3, 8, 7, 7)


def test_the_results_folder_and_its_disk_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert examined(results=file / "runs")["results"].level == "error"
    assert examined(results=tmp_path / "new" / "runs")["results"].level == "ok"
    assert not (tmp_path / "new").exists()
    usage = type("Usage", (), {"free": 10 * 2**20})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    assert examined()["disk"].level == "error"
    usage.free = 500 * 2**20
    assert examined()["disk"].level == "warning"


def test_what_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert examined("device=cuda")["device"].level == "error"
    closed = examined(engine=["engine=ray", "engine.address=127.0.0.1:9"])["engine"]
    assert (closed.level, "is not reached" in closed.why) == ("error", True)
    monkeypatch.setattr(doctor, "_is_installed", lambda name: name != "ray")
    missing = examined(engine=["engine=ray"])["engine"]
    assert missing.level == "error"
    assert "normbench[ray]" in missing.do
    monkeypatch.setenv("PATH", "")
    assert examined(engine=["engine=slurm"])["engine"].level == "error"
    local = ["engine=slurm", "engine.cluster=local"]
    assert examined(engine=local)["engine"].level == "ok"

    def no_data(*_: object) -> None:
        raise RequestError("data.path=/nowhere is not there")

    monkeypatch.setattr(doctor.network, "make_task", no_data)
    assert examined()["data"].why == "data.path=/nowhere is not there"


def test_more_threads_than_cores_are_a_warning() -> None:
    alone = ["engine.workers=1"]
    too_many = examined(f"threads={cores() + 1}", engine=alone)["threads"]
    assert too_many.level == "warning"
    assert examined(engine=alone)["threads"].level == "ok"


def test_online_without_a_key_or_an_answer_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for has_key, answers, level, words in (
        (False, False, "warning", "no key for https://server"),
        (True, False, "warning", "https://server does not answer"),
        (True, True, "ok", "https://server"),
    ):
        account = ("https://server", has_key)
        monkeypatch.setattr(tracking, "account", lambda account=account: account)
        monkeypatch.setattr(tracking, "answers", lambda *_, answers=answers: answers)
        finding = examined("tracker=wandb", "tracker.mode=online")["tracker"]
        assert (finding.level, words in finding.why) == (level, True), finding


def test_any_answer_shows_that_a_server_exists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        for _ in range(2):
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n")

    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert not tracking.answers(url, 20.0)  # the server does not listen yet
        server.listen()
        assert not tracking.answers(url, 0.2)  # the server listens, but is silent
        answer = Thread(target=refuse)
        answer.start()
        assert tracking.answers(url, 20.0)
        answer.join()


def test_a_key_is_found_where_wandb_looks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wandb.teardown()  # wandb keeps the settings that an earlier test has read
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


def test_the_command_prints_the_worst_first_and_fails_for_errors(
    invoke: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for overrides, code in (
        (["norm=batch"], 0),
        (["norm=group", "norm.num_groups=3"], 1),
        (["norm=nope"], 2),
        (["norm=batch,group"], 2),
        (["engine.workers=0"], 2),
    ):
        done = invoke("doctor", *SMALL["cnn"], "tracker=none", *overrides, "--json")
        assert done.returncode == code, (overrides, done.stderr)
        if code != 2:
            findings = [Finding(**plain) for plain in json.loads(done.stdout)]
            assert any(f.level == "error" for f in findings) == (code == 1)
    monkeypatch.setattr("normbench.cli.doctor.text_width", lambda _: 80)
    words = [*SMALL["cnn"], "tracker=none", "norm=batch", "batch_size=2"]
    lines = invoke("doctor", *words).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("warning  samples per statistic: norm_batch=2")
    levels = [line.split()[0] for line in lines if line[0] != " "]
    assert levels == sorted(levels, key=["warning", "note", "ok"].index)
    assert not list(tmp_path.iterdir())
