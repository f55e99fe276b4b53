"""The mixture of experts: what it computes, spelled out token by token, and what it leaves alone."""

import dataclasses
from typing import Any

import pytest
import torch

from graftlm.model.adapter import Adapter, AdapterConfig
from graftlm.model.decoder import Decoder
from graftlm.model.experts import Experts
from graftlm.model.stack_config import ExpertsConfig, StackConfig
from tiny import MODULE, gap, stack


def mixed(**settings: Any) -> StackConfig:
    values = {"number": 4, "per_token": 2, "size": 24, "normalised": True, "layers": (0, 2)} | settings
    return stack(experts=ExpertsConfig(**values))


def experts(**settings: Any) -> Experts:
    generator = torch.Generator().manual_seed(0)
    module = Experts(mixed(**settings))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return module


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("per_token", [1, 2, 4])
@pytest.mark.parametrize("normalised", [True, False])
def test_each_token_is_a_weighted_sum_of_its_best_experts(per_token: int, normalised: bool) -> None:
    module, x = experts(per_token=per_token, normalised=normalised), tokens(3, 5)
    found = module(x)
    for row in range(3):
        for place in range(5):
            token = x[row, place]
            shares = torch.softmax(module.router(token), dim=-1).tolist()
            best = sorted(range(4), key=lambda number: -shares[number])[:per_token]
            whole = sum(shares[number] for number in best) if normalised else 1.0
            expected = sum(module.experts[number](token) * (shares[number] / whole) for number in best)
            assert gap(found[row, place], expected) <= MODULE


def test_a_token_does_not_depend_on_others() -> None:
    module, x = experts(), tokens(3, 5)
    assert gap(module(x)[1, 2:3], module(x[1:2, 2:3])[0]) <= MODULE
    assert module(x[:0]).shape == (0, 5, 32)


def test_experts_that_no_token_goes_through_get_no_gradient() -> None:
    module, x = experts(per_token=1), tokens(1, 1)
    module(x).square().sum().backward()
    [chosen] = module.route(x[0])[1][0].tolist()
    reached = {number for number, expert in enumerate(module.experts) if expert.up_proj.weight.grad is not None}
    assert reached == {chosen}
    assert module.router.weight.grad is not None


@pytest.mark.parametrize("fp32_weights", [True, False])
def test_weights_are_rounded_where_the_family_does(fp32_weights: bool) -> None:
    module, x = experts(fp32_weights=fp32_weights).to(torch.bfloat16), tokens(6).to(torch.bfloat16)
    weights, _ = module.route(x)
    assert weights.dtype == (torch.float32 if fp32_weights else torch.bfloat16)
    assert module(x).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["bias", "ia3", "lora"])
def test_adapters_have_no_place_inside_experts(kind: Any) -> None:
    adapter = Adapter(AdapterConfig(kind=kind, rank=2 if kind == "lora" else None), Decoder(mixed()).layers)
    assert [sorted(layer) for layer in adapter.layers] == [["attention"], ["attention", "mlp"], ["attention"]]


def test_a_stack_keeps_the_experts_of_the_layers_that_it_keeps() -> None:
    config = mixed()
    assert config.first(2).experts == dataclasses.replace(config.experts, layers=(0,))
    assert StackConfig.from_dict(config.to_dict()) == config
