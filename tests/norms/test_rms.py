"""RMSNorm with a bias has the parameters of LayerNorm."""

import torch

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.norms import make


def test_a_bias_is_added_after_the_gain() -> None:
    x = torch.randn(3, 6, 5)
    plain, biased = make("rms", 6), make("rms", 6, bias=True)
    for norm in (plain, biased):
        torch.nn.init.normal_(norm.weight)
    biased.weight.data.copy_(plain.weight)
    assert biased(x).equal(plain(x))  # the bias starts at 0
    bias = torch.nn.init.normal_(biased.bias)
    torch.testing.assert_close(biased(x), plain(x) + bias.view(1, 6, 1))


def test_its_parameters_are_those_of_layer() -> None:
    shapes = [
        {name: p.shape for name, p in norm.named_parameters()}
        for norm in (make("rms", 6, bias=True), make("layer_position", 6))
    ]
    assert shapes[0] == shapes[1]
    assert set(make("rms", 6).state_dict()) == {"weight"}
    assert set(make("rms", 6, affine=False, bias=True).state_dict()) == {"bias"}


def test_the_default_is_the_id_of_older_runs() -> None:
    plain = run_id(compose(["task=transformer", "norm=rms"]))
    assert plain == run_id(compose(["task=transformer", "norm=rms", "norm.bias=false"]))
    assert plain != run_id(compose(["task=transformer", "norm=rms", "norm.bias=true"]))
