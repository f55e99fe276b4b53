"""Adapters: what each kind computes, and batches whose rows have different ones."""

from typing import Any

import pytest
import torch
from torch import nn

from graftlm.errors import ConfigError
from graftlm.generation.kv_prefix import kv_prefix
from graftlm.model.adapter import IA3, Adapter, AdapterConfig, AdapterKind, Bias, LoRA, RowDelta, adapted
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.task_encoder import TaskEncoder
from tiny import GRAFTS, MODULE, WHOLE, batch, gap, gradients, graft, noisy, randomise

CONFIGS: dict[str, AdapterConfig | None] = {
    "plain": None,
    "bias": AdapterConfig(kind="bias"),
    "ia3": AdapterConfig(kind="ia3"),
    "lora": AdapterConfig(kind="lora", rank=2),
    "other": AdapterConfig(kind="lora", rank=3, alpha=1.0),
}


def with_adapters(**settings: Any) -> GraftForConditionalGeneration:
    """A graft to which one task encoder of every config is attached, all with other encoders and adapters."""
    model = graft(**settings)
    for seed, (name, config) in enumerate(CONFIGS.items(), start=1):
        other = graft(seed=seed, **settings)
        beside = None if config is None else noisy(Adapter(config, model.decoder.layers), seed)
        model.attach_task_encoder(name, TaskEncoder(other.encoder, other.bridge, None, beside))
    return model


@pytest.mark.parametrize("kind", ["bias", "ia3", "lora"])
def test_a_fresh_adapter_changes_nothing(kind: AdapterKind) -> None:
    model, b = graft(), batch("both", vocabulary=40)
    before = model(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits
    config = AdapterConfig(kind=kind, rank=2 if kind == "lora" else None)
    model.decoder_adapter = Adapter(config, model.decoder.layers)
    model.encoder_adapter = Adapter(config, model.encoder.layers)
    assert gap(model(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits, before) == 0


def test_what_each_kind_computes() -> None:
    linear, x = nn.Linear(4, 3), torch.randn(2, 5, 4)
    plain = linear(x)
    bias = Bias(AdapterConfig(kind="bias"), "q_proj", linear)
    key, inner = (IA3(AdapterConfig(kind="ia3"), name, linear) for name in ("k_proj", "down_proj"))
    lora = LoRA(AdapterConfig(kind="lora", rank=2, alpha=3.0), "q_proj", linear)
    with torch.no_grad():
        for parameter in (bias.bias, key.ia3_l, inner.ia3_l, lora.lora_B.weight):
            parameter.normal_()
    assert gap(adapted(linear, x, [RowDelta(bias, None)]), plain + bias.bias) < MODULE
    assert gap(adapted(linear, x, [RowDelta(key, None)]), plain * key.ia3_l[:, 0]) < MODULE
    assert gap(adapted(linear, x, [RowDelta(inner, None)]), linear(x * inner.ia3_l[0])) < MODULE
    product = 1.5 * lora.lora_B.weight @ lora.lora_A.weight
    assert gap(adapted(linear, x, [RowDelta(lora, None)]), plain + x @ product.T) < MODULE
    some = adapted(linear, x, [RowDelta(inner, torch.tensor([1])), RowDelta(key, torch.tensor([0]))])
    assert gap(some, torch.stack((plain[0] * key.ia3_l[:, 0], linear(x[1] * inner.ia3_l[0])))) < MODULE


@pytest.mark.parametrize("name", ["k_proj", "down_proj"])
def test_rows_keep_their_dtype_beside_an_adapter_of_another(name: str) -> None:
    delta = IA3(AdapterConfig(kind="ia3"), name, nn.Linear(4, 3))
    linear, x = nn.Linear(4, 3).to(torch.bfloat16), torch.randn(2, 4).to(torch.bfloat16)
    assert adapted(linear, x, [RowDelta(delta, torch.tensor([1]))]).dtype == torch.bfloat16


@pytest.mark.parametrize("settings", GRAFTS.values(), ids=GRAFTS)
def test_a_mixed_batch_is_each_row_alone(settings: dict[str, Any]) -> None:
    model = with_adapters(**settings)
    b = batch("both", vocabulary=40, lengths=(14, 9, 1, 5, 7, 6))
    names = ["lora", "plain", "ia3", "bias", "other", "lora"]
    given = {"input_ids": b.ids, "attention_mask": b.mask, "labels": b.target}
    together = model(**given, task_encoder=names).logits
    unlike = model(**given, task_encoder="plain").logits
    for i, name in enumerate(names):
        alone = model(**{key: value[i : i + 1] for key, value in given.items()}, task_encoder=name).logits
        assert gap(together[i : i + 1], alone) < WHOLE
        assert name == "plain" or gap(together[i], unlike[i]) > 1e-2


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("settings", GRAFTS.values(), ids=GRAFTS)
def test_a_mixed_batch_writes_what_each_row_writes_alone(settings: dict[str, Any], num_beams: int) -> None:
    model = with_adapters(**settings)
    b = batch("left", vocabulary=40, lengths=(14, 9, 2, 5, 7))
    how = {"max_new_tokens": 8, "min_new_tokens": 8, "num_beams": num_beams, "do_sample": False}
    names = list(CONFIGS)
    together = model.generate(b.ids, attention_mask=b.mask, task_encoder=names, **how)
    written = set()
    for i, name in enumerate(names):
        alone = model.generate(b.row(i)[None], task_encoder=name, **how)
        assert together[i].tolist() == alone[0].tolist()
        written.add(tuple(alone[0].tolist()))
    assert len(written) > 1


def test_only_adapters_get_gradients() -> None:
    model, b = graft(), batch("left", vocabulary=40)
    model.requires_grad_(False)
    model.decoder_adapter = noisy(Adapter(AdapterConfig(kind="lora", rank=2), model.decoder.layers))
    model(input_ids=b.ids, attention_mask=b.mask, labels=b.target).loss.backward()
    assert gradients(model).keys() == {
        f"decoder_adapter.{name}" for name, _ in model.decoder_adapter.named_parameters()
    }


def test_detaching_does_not_disturb_what_is_encoded() -> None:
    model, b = with_adapters(), batch("left", vocabulary=40)
    encoded = model.encode(b.ids, b.mask, task_encoder=["lora", "ia3", "plain", "bias"])
    before = model(encoder_outputs=encoded, attention_mask=b.mask, labels=b.target).logits
    for name in CONFIGS:
        model.detach_task_encoder(name)
    assert torch.equal(model(encoder_outputs=encoded, attention_mask=b.mask, labels=b.target).logits, before)


def test_stock_generate_cannot_go_on_from_an_adapted_decoder() -> None:
    model, b = with_adapters(), batch("left", vocabulary=40)
    with pytest.raises(ConfigError, match="decoder adapter"):
        kv_prefix(model, b.ids, b.mask, task_encoder=["plain", "plain", "lora", "plain"])
    assert kv_prefix(model, b.ids, b.mask, task_encoder="plain").get_seq_length() == 13


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "prefix"}, "must be one of"),
        ({"kind": "lora"}, "rank"),
        ({"kind": "lora", "rank": 0}, "rank"),
        ({"kind": "ia3", "rank": 4}, "belong to lora"),
    ],
)
def test_bad_configs(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdapterConfig(**settings)


def test_a_graft_with_adapters_is_not_saved_as_a_model(tmp_path: Any) -> None:
    model = graft()
    model.decoder_adapter = Adapter(AdapterConfig(kind="bias"), model.decoder.layers)
    with pytest.raises(ConfigError, match="save_task_encoder"):
        model.save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_gradient_checkpointing_reaches_adapters() -> None:
    plain, checkpointed = (randomise(graft(), 0) for _ in range(2))
    b, found = batch("left", vocabulary=40), []
    for model in (plain, checkpointed):
        model.train().requires_grad_(False)
        torch.manual_seed(0)
        model.decoder_adapter = noisy(Adapter(AdapterConfig(kind="lora", rank=2), model.decoder.layers))
        model.encoder_adapter = noisy(Adapter(AdapterConfig(kind="lora", rank=2), model.encoder.layers))
        if model is checkpointed:
            model.gradient_checkpointing_enable()
        model(input_ids=b.ids, attention_mask=b.mask, labels=b.target, use_cache=False).loss.backward()
        found.append(gradients(model))
    assert found[0].keys() == found[1].keys()
    assert all(gap(found[0][name], found[1][name]) < MODULE for name in found[0])
