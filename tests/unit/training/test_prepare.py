"""What a run trains: which parts each setting adds, frees and freezes."""

from typing import Any

import pytest
import torch

from graftlm.errors import ConfigError
from graftlm.model.adapter import Adapter, AdapterConfig
from graftlm.model.config import BridgeConfig, GraftConfig
from graftlm.model.decoder import Decoder
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.prepare import encoder_size, prepare, rank_of_size
from graftlm.training.settings import TuneSettings
from tiny import GRAFTS, LOSSLESS, graft, stack

SHARED: dict[str, Any] = {
    "encoder": stack(num_layers=2, final_norm=False),
    "decoder": stack(),
    "bridge": BridgeConfig(kind="aligned"),
    "share_layers": True,
}


def shared() -> GraftForConditionalGeneration:
    """A graft whose encoder uses the decoder's weights, as recipe lossless makes it."""
    return graft(**SHARED)


def trained(model: GraftForConditionalGeneration) -> set[str]:
    """First parts of the names of what trains."""
    return {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_shared_layers_are_held_and_stored_once(tmp_path: Any) -> None:
    model = shared()
    assert model.encoder.layers[1].mlp.up_proj.weight is model.decoder.layers[1].mlp.up_proj.weight
    model.save_pretrained(tmp_path)
    again = GraftForConditionalGeneration.from_pretrained(tmp_path)
    assert again.encoder.layers[0].attention.q_proj.weight is again.decoder.layers[0].attention.q_proj.weight
    assert torch.equal(again.encoder.layers[0].attention.q_proj.weight, model.encoder.layers[0].attention.q_proj.weight)
    alone = graft(**LOSSLESS)
    alone.save_pretrained(tmp_path / "alone")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path, tmp_path / "alone")]
    assert sizes[1] - sizes[0] >= 4 * encoder_size(model)


def test_a_full_encoder_gets_weights_of_its_own() -> None:
    model = shared()
    before = {name: p.clone() for name, p in model.decoder.named_parameters()}
    plan = prepare(model, TuneSettings())
    assert trained(model) == {"encoder"}
    assert plan.keeps_decoder
    assert not model.config.share_layers
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.zero_()
    assert all(torch.equal(p, before[name]) for name, p in model.decoder.named_parameters())


def test_a_lora_leaves_the_layers_shared() -> None:
    model = shared()
    plan = prepare(model, TuneSettings(lora=2, decoder_adapter="ia3"))
    assert trained(model) == {"encoder_adapter", "decoder_adapter"}
    assert [row.group for row in plan.rows if row.trains] == ["encoder_adapter", "decoder_adapter"]
    assert plan.keeps_decoder
    assert model.config.share_layers


def test_an_adapter_alone_leaves_the_encoder_as_it_is() -> None:
    model = shared()
    prepare(model, TuneSettings(freeze="decoder,encoder", decoder_adapter="lora"))
    assert trained(model) == {"decoder_adapter"}
    assert model.config.share_layers


@pytest.mark.parametrize("plan", ["encoder", "decoder,encoder,!encoder.layers.1.*", "none"])
def test_a_plan_means_one_side_without_the_other(plan: str) -> None:
    model, copied = shared(), graft(**LOSSLESS)
    assert prepare(model, TuneSettings(freeze=plan)).trained == prepare(copied, TuneSettings(freeze=plan)).trained
    assert not model.config.share_layers


def test_shared_layers_can_train_as_one() -> None:
    model, copied = shared(), shared()
    plan = prepare(model, TuneSettings(freeze="none", share_layers=True))
    assert model.config.share_layers
    assert plan.trainable == sum(p.numel() for p in model.parameters())
    assert not plan.keeps_decoder
    prepare(copied, TuneSettings(freeze="none"))
    batch = {
        "input_ids": torch.tensor([[5, 9, 3, 7, 11]]),
        "attention_mask": torch.ones(1, 5, dtype=torch.long),
        "labels": torch.tensor([[4, 8, 2]]),
    }
    for one in (model, copied):
        one.eval()
        one(**batch).loss.backward()
    own = dict(copied.encoder.named_parameters())
    for name, parameter in model.decoder.named_parameters():
        parts = [copied.decoder.get_parameter(name).grad] + ([own[name].grad] if name in own else [])
        total = sum(part for part in parts if part is not None)
        torch.testing.assert_close(parameter.grad, total, rtol=1e-5, atol=1e-6)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in own.values())


@pytest.mark.parametrize("plan", ["encoder", "decoder", "none,encoder.layers.1.*"])
def test_layers_that_train_as_one_are_meant_on_both_sides(plan: str) -> None:
    with pytest.raises(ConfigError, match="as one, but freeze"):
        prepare(shared(), TuneSettings(freeze=plan, share_layers=True))


def test_layers_that_are_not_shared_cannot_train_as_one() -> None:
    with pytest.raises(ConfigError, match="has its own, so leave it out"):
        prepare(graft(**LOSSLESS), TuneSettings(freeze="none", share_layers=True))


@pytest.mark.parametrize("baseline", ["causal-full", "causal-lora"])
def test_baselines_train_one_set_of_weights_for_both_sides(baseline: Any) -> None:
    model = shared()
    plan = prepare(model, TuneSettings(baseline=baseline))
    if baseline == "causal-full":
        assert plan.trainable == sum(p.numel() for p in model.decoder.parameters())
        assert not plan.keeps_decoder
        return
    assert model.encoder_adapter is model.decoder_adapter
    assert plan.keeps_decoder
    assert plan.trainable == pytest.approx(encoder_size(model), rel=0.1)


def test_baselines_share_equal_copies_again_and_refuse_others() -> None:
    model = graft(**SHARED | {"share_layers": False})
    with pytest.raises(ConfigError, match="not a copy"):
        prepare(model, TuneSettings(baseline="causal-full"))
    model.load_state_dict(
        {f"encoder.{name}": value for name, value in model.decoder.state_dict().items() if name in _names(model)},
        strict=False,
    )
    prepare(model, TuneSettings(baseline="causal-full"))
    assert model.encoder.layers[0].mlp_norm.weight is model.decoder.layers[0].mlp_norm.weight


def _names(model: GraftForConditionalGeneration) -> set[str]:
    return {name for name, _ in model.encoder.named_parameters()}


def test_baselines_need_the_plain_language_model() -> None:
    model = shared()
    model.set_encoder_attention("bidirectional")
    with pytest.raises(ConfigError, match="causal encoder"):
        prepare(model, TuneSettings(baseline="causal-lora"))


@pytest.mark.parametrize("parts", [{"decoder_adapter": "bias"}, {"lora": 2}], ids=["adapter", "lora"])
@pytest.mark.parametrize("plan", ["none", "encoder", "decoder,!embeddings"])
def test_adapters_go_with_a_frozen_decoder(plan: str, parts: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="frozen decoder"):
        prepare(shared(), TuneSettings(freeze=plan, **parts))


def test_new_parts_follow_the_seed() -> None:
    def first(seed: int) -> torch.Tensor:
        model = shared()
        prepare(model, TuneSettings(lora=2, seed=seed))
        return next(p for name, p in model.named_parameters() if "lora_A" in name)

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_rank_of_a_size() -> None:
    """Experts and their router have no LoRA, and so do not count."""
    settings = {"number": 3, "per_token": 1, "size": 8, "normalised": True}
    dense, mixed = (stack(num_layers=2, experts=settings | {"layers": layers}) for layers in ((), (1,)))
    attention, mlp = 2 * (32 + 32) + 2 * (32 + 16), 3 * (32 + 48)
    for config, size in ((dense, 2 * attention + 2 * mlp), (mixed, 2 * attention + mlp)):
        layers = Decoder(config).layers
        assert rank_of_size(10 * size, layers) == 10
        assert sum(p.numel() for p in Adapter(AdapterConfig(kind="lora", rank=10), layers).parameters()) == 10 * size
        assert rank_of_size(1, layers) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora": 0}, "rank of at least 1"),
        ({"decoder_adapter": "prefix"}, "choose none, bias"),
        ({"decoder_adapter": "ia3", "adapter_rank": 4}, "adapter_rank"),
        ({"adapter_rank": 4}, "adapter_rank"),
        ({"baseline": "lora"}, "causal-lora or causal-full"),
        ({"baseline": "causal-full", "lora": 4}, "leave out lora"),
        ({"baseline": "causal-lora", "freeze": "none"}, "leave out freeze"),
        ({"baseline": "causal-lora", "decoder_adapter": "bias"}, "decoder_adapter"),
        ({"baseline": "causal-full", "share_layers": True}, "share_layers"),
        ({"share_layers": True, "lora": 4}, "leave out lora"),
        ({"share_layers": True, "decoder_adapter": "bias"}, "leave out lora"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TuneSettings(**settings)


def test_equal_weights_that_no_config_can_call_shared(tmp_path: Any) -> None:
    model = graft(**GRAFTS["separate-bos"])
    model.load_state_dict({f"encoder.{name}": model.decoder.state_dict()[name] for name in _names(model)}, strict=False)
    with pytest.raises(ConfigError, match="cannot be shared"):
        model.share_layers()
    model.save_pretrained(tmp_path)
    assert not GraftForConditionalGeneration.from_pretrained(tmp_path).config.share_layers


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": stack(num_layers=2)},
        {"encoder": stack(num_layers=2, final_norm=False, mlp_bias=True)},
        {"share_embeddings": False},
    ],
    ids=["final norm", "other shape", "own table"],
)
def test_layers_that_cannot_be_shared(changes: dict[str, Any]) -> None:
    settings = SHARED | {"bridge": BridgeConfig(), "memory_norm": "none"} | changes
    with pytest.raises(ConfigError, match="share_layers"):
        GraftConfig(**settings)
