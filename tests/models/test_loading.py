"""Factories of networks that a user names: good ones, bad ones, and strangers'."""

from pathlib import Path

import pytest
import torch
from torch import nn

from normbench.errors import RequestError
from normbench.models.loading import load, module_of
from normbench.system.imports import import_modules

SOURCE = """
import os
import torch
from torch import nn

VALUE = 3

class Net(nn.Module):
    def __init__(self, width: int = 4):
        super().__init__()
        self.norm = nn.BatchNorm2d(width)

    @classmethod
    def wide(cls):
        return cls(32)

def needs(width, *, depth):
    return Net(width)

def breaks():
    raise ValueError("broken on purpose")

def gpu():
    return Net().to("cuda:7")

def leaves():
    raise SystemExit(0)

def number():
    return 5

def loud():
    print("a line")
    torch.manual_seed(1)
    return Net()
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "loaded_networks"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    import_modules([name])
    return name


def test_a_factory_is_a_class_a_function_or_a_method(mine: str) -> None:
    assert load(f"{mine}:Net").norm.num_features == 4
    assert load(f"{mine}:Net", {"width": 6}).norm.num_features == 6
    assert load(f"{mine}:Net.wide").norm.num_features == 32


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("Nett", {}, "did you mean 'Net'"),
        ("VALUE", {}, "int, which cannot be called"),
        ("needs", {}, "it needs width, depth"),
        ("Net", {"size": 3}, "unexpected keyword argument 'size'"),
        ("number", {}, "returns int, not a torch.nn.Module"),
        ("breaks", {}, "ValueError: broken on purpose"),
        ("leaves", {}, "SystemExit: 0"),
        ("gpu", {}, r"gpu\(\) fails: "),
    ],
)
def test_a_bad_factory_is_explained(
    mine: str, factory: str, options: dict[str, int], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        load(f"{mine}:{factory}", options)


def test_a_factory_prints_nothing_and_keeps_the_random_state(
    mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.get_rng_state()
    load(f"{mine}:loud")
    assert capsys.readouterr().out == ""
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["os:system", "builtins:exec", "subprocess:run"])
def test_code_that_the_command_line_did_not_name_is_never_called(name: str) -> None:
    with pytest.raises(RequestError, match="if you trust it, add --module"):
        load(name, {"command": "true"})


@pytest.mark.parametrize("name", ["os.system", "torch.hub.load", "nn.Linear"])
def test_a_name_leads_to_no_code_that_the_module_only_imports(
    mine: str, name: str
) -> None:
    with pytest.raises(RequestError, match="is defined in"):
        load(f"{mine}:{name}")


def test_names_of_another_form_are_refused() -> None:
    for name in ("resnet18", ":Net", "package:", ""):
        with pytest.raises(RequestError, match=r"PACKAGE\.MODULE:FACTORY"):
            load(name)
    assert module_of("a.b:c") == "a.b"
    assert module_of("torchvision:resnet18") is None


def test_models_of_torchvision_and_timm_have_no_pretrained_weights() -> None:
    assert isinstance(load("torchvision:resnet18", {"num_classes": 3}), nn.Module)
    assert isinstance(load("timm:resnet10t", {"num_classes": 3}), nn.Module)
    with pytest.raises(RequestError, match="did you mean"):
        load("torchvision:resnet19")
    for name in ("timm:resnet19d", "timm:hf_hub:timm/resnet18.a1_in1k"):
        with pytest.raises(RequestError, match="timm has no model"):
            load(name)
