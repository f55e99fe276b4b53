"""A packed batch: each example as if it were alone, whatever the form of the model."""

import dataclasses
from typing import Any

import pytest
import torch

from graftlm.data.collate import Example, PackedCollator
from graftlm.errors import ConfigError
from graftlm.model.adapter import Adapter, AdapterConfig
from graftlm.model.config import BridgeConfig, RelativeBiasConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.task_encoder import TaskEncoder
from tiny import GRAFTS, PLAIN, SIDES, batch, gap, graft, noisy, stack
from tiny_packs import SAME, assert_same, both, packed, padded

BIAS = RelativeBiasConfig(buckets=8, max_distance=11, bidirectional=True)
BRIDGES = [
    {"kind": "last", "norm": True},
    {"kind": "map", "order": (2, 1, 0), "add": "last"},
    {"kind": "scalar"},
    {"kind": "linear", "rank": 4},
    {"kind": "linear", "shared": True},
    {"kind": "gated"},
]
ODD: dict[str, dict[str, Any]] = {
    "last label": PLAIN | {"decoder_start": "last_label"},
    "soft-caps": {**GRAFTS["merged-source"], "decoder": stack(attention_softcap=3.0)},
    "learned positions": PLAIN | {"encoder": stack(absolute_positions="learned", rotary={})},
    "sinusoids": GRAFTS["separate-source"] | {"decoder": stack(absolute_positions="sinusoidal", rotary={})},
    "relative bias": PLAIN
    | {
        "cross_mode": "separate",
        "encoder": stack(relative_bias=BIAS, rotary={}),
        "decoder": stack(relative_bias=dataclasses.replace(BIAS, bidirectional=False), rotary={}),
    },
    "longer frequencies": GRAFTS["merged-source"]
    | {
        "decoder": stack(
            max_position_embeddings=8,
            rotary={kind: {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0} for kind in stack().rotary},
        )
    },
}
PARTS = ("input_ids", "labels", "source_lengths", "target_lengths")


def sources() -> Any:
    return batch("both", vocabulary=40)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("settings", GRAFTS.values(), ids=GRAFTS)
def test_packed_is_padded(settings: dict[str, Any], side: str) -> None:
    assert_same(graft(**settings), batch(side, vocabulary=40))


@pytest.mark.parametrize("settings", ODD.values(), ids=ODD)
def test_whatever_the_stacks_do(settings: dict[str, Any]) -> None:
    assert_same(graft(**settings), sources())


@pytest.mark.parametrize("bridge", BRIDGES, ids=str)
def test_whatever_the_bridge_reads(bridge: dict[str, Any]) -> None:
    model = graft(**PLAIN, bridge=BridgeConfig(**bridge))
    noisy(model.bridge)
    assert_same(model, sources())


@pytest.mark.parametrize("mode", GRAFTS)
def test_an_example_is_the_same_in_any_company(mode: str) -> None:
    """Alone, in another order, and beside another: no token reads one of another example."""
    model = graft(**GRAFTS[mode])
    rows = [Example([5, 6, 7], [9, 8, 2]), Example([4], [3, 2]), Example([11, 12] * 6, [13] * 7)]
    with torch.no_grad():
        alone = [model(**PackedCollator()([row])).logits[0] for row in rows]
        for order in ((0, 1, 2), (2, 0, 1), (1, 1, 0)):
            together = model(**PackedCollator()([rows[i] for i in order])).logits[0]
            expected = torch.cat([alone[i] for i in order])
            assert gap(together, expected) <= 10 * SAME


def test_sources_of_one_token_have_no_memory() -> None:
    rows = [Example([7], [9, 2]), Example([8], [5, 6, 2])]
    for mode in ("merged-source", "separate-source"):
        model = graft(**GRAFTS[mode])
        found = model(**PackedCollator()(rows))
        single = [model(input_ids=torch.tensor([x]), labels=torch.tensor([y])).logits[0] for x, y, _ in rows]
        assert gap(found.logits[0], torch.cat(single)) <= 10 * SAME
        found.loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", ["bias", "ia3", "lora"])
def test_adapters_stand_beside_every_example(kind: Any) -> None:
    model = graft()
    config = AdapterConfig(kind=kind, rank=2 if kind == "lora" else None)
    model.encoder_adapter = noisy(Adapter(config, model.encoder.layers), 1)
    model.decoder_adapter = noisy(Adapter(config, model.decoder.layers), 2)
    plain = graft()(**packed(sources())).loss
    assert gap(model(**packed(sources())).loss, plain) > 1e-2
    assert_same(model, sources())


def test_num_items_and_checkpointed_gradients() -> None:
    model = graft()
    expected = both(model, sources())[0]
    assert gap(model(**packed(sources()), num_items_in_batch=7).loss, expected.loss * 21 / 7) <= SAME
    model.gradient_checkpointing_enable()
    model.train()
    assert_same(model, sources())


def test_a_padded_batch_in_bf16_is_a_packed_one() -> None:
    model = graft().to(torch.bfloat16)
    found, expected = (model(**given).loss for given in (packed(sources()), padded(sources())))
    assert gap(found, expected) <= 0.05


@pytest.mark.parametrize(
    "name",
    ["embedding_dropout", "attention_dropout", "attention_out_dropout", "activation_dropout", "residual_dropout"],
)
def test_dropout_is_at_work_and_follows_the_seed(name: str) -> None:
    model = graft(**GRAFTS["merged-source"] | {"decoder": stack(**{name: 0.4})})
    still = model(**packed(sources())).loss
    model.train()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(model(**packed(sources())).loss.item())
    assert losses[0] == losses[1]
    assert len({still.item(), *losses}) == 3


def broken(**changed: Any) -> dict[str, Any]:
    return packed(sources()) | changed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (broken(source_lengths=torch.tensor([14, 9, 1, 4])), "source_lengths are"),
        (broken(target_lengths=torch.tensor([9, 4, 8, 0])), "target_lengths are"),
        (broken(target_lengths=torch.tensor([9, 4, 8])), "4 source_lengths and 3 target_lengths"),
        (broken(source_lengths=torch.tensor([], dtype=torch.long)), "source_lengths are"),
        (broken(input_ids=torch.ones(2, 29, dtype=torch.long)), "one row"),
        *((broken(**{name: None}), "needs all of") for name in PARTS),
        (broken(attention_mask=torch.ones(1, 29)), "alone"),
        (broken(task_encoder="a"), "alone"),
        (broken(use_cache=True), "alone"),
        (broken(output_hidden_states=True), "alone"),
    ],
)
def test_what_is_no_packed_batch_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        graft()(**given)


def test_attached_encoders_are_used_in_the_models_place() -> None:
    """A packed batch is the model's own encoder's; an attached one takes its place for that."""
    model, other = graft(), graft(seed=3)
    model.use_task_encoder(TaskEncoder(other.encoder, other.bridge, None, None))
    assert_same(model, sources())


def test_a_padded_call_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("graftlm.model.modeling.forward_packed", never)
    model: GraftForConditionalGeneration = graft()
    assert torch.isfinite(model(**padded(sources())).loss)
