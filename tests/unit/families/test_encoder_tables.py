"""The tables of the encoder-only families: total, both directions, and one error that names all problems."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoModelForMaskedLM

from graftlm.errors import CheckpointError, ConversionError
from graftlm.families.donor import load_donor, open_donor
from graftlm.families.registry import FAMILIES
from graftlm.families.stock_config import complete
from graftlm.families.tensors import SINGLE
from graftlm.model.config import EncoderConfig
from graftlm.model.encoder_model import EncoderModel
from tiny_encoders import ENCODERS, POSITIONS, encoder_config, stock_encoder


def ours_of(folder: Path) -> EncoderModel:
    model: EncoderModel = load_donor(open_donor(folder))
    return model


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("bert", {}),
    ("bert", {"layer_norm_eps": 1e-5, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}),
    ("bert", {"type_vocab_size": 4, "pad_token_id": None, "hidden_act": "relu", "initializer_range": 0.1}),
    ("roberta", {}),
    ("roberta", {"pad_token_id": 0, "eos_token_id": [2, 3]}),
    ("xlm-roberta", {}),
    ("modernbert", {}),
    ("modernbert", {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "attention_dropout": 0.2}),
    ("modernbert", {"layer_types": ["sliding_attention"] * 4, "local_attention": 10, "mlp_dropout": 0.3}),
    ("modernbert", {"norm_eps": 1e-3, "hidden_activation": "silu", "embedding_dropout": 0.1}),
    (
        "modernbert",
        {
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "yarn",
                    "rope_theta": 9.0,
                    "factor": 2.0,
                    "original_max_position_embeddings": 16,
                }
            }
        },
    ),
]


def our_config(raw: dict[str, Any]) -> EncoderConfig:
    config: EncoderConfig = FAMILIES[raw["model_type"]].config.read(raw, complete(raw))
    return config


@pytest.mark.parametrize(("family", "overrides"), VARIANTS, ids=str)
def test_configs_come_back_field_by_field(family: str, overrides: dict[str, Any]) -> None:
    raw = encoder_config(family, **overrides).to_dict()
    config, table = our_config(raw), FAMILIES[family].config
    written = FAMILIES[family].stock_config(config)
    again, expected = complete(written), complete(raw)
    kept = {name for rule in table.rules if rule.write(table.flat(config)) for name in rule.source}
    assert {"hidden_size", "num_attention_heads", "max_position_embeddings", "pad_token_id", "vocab_size"} <= kept
    for name in kept & expected.keys():
        assert again[name] == expected[name], name
    assert our_config(written).to_dict() == config.to_dict()
    assert type(AutoModel.from_config(type(encoder_config(family)).from_dict(written))).__name__ == (
        FAMILIES[family].architecture
    )


@pytest.mark.parametrize("family", ENCODERS)
def test_every_field_of_transformers_is_spoken_of(family: str) -> None:
    kind, _ = ENCODERS[family]
    fields = {field.name for field in dataclasses.fields(kind)} | encoder_config(family).to_dict().keys()
    assert {name for name in fields - FAMILIES[family].config.known() if not name.startswith("_")} == set()


def test_values_that_are_read() -> None:
    """Where names differ, what they mean: spelled out once by hand."""
    bert = our_config(
        encoder_config("bert", hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3).to_dict()
    ).encoder
    assert (bert.norm_kind, bert.norm_placement, bert.norm_bias, bert.final_norm) == ("layer", "post", True, False)
    assert (bert.embedding_dropout, bert.residual_dropout, bert.attention_dropout) == (0.2, 0.2, 0.3)
    assert (bert.num_kv_heads, bert.head_dim, bert.position_offset, bert.token_types) == (4, 12, 0, 2)
    assert (bert.max_position_embeddings, bert.rotary, bert.mlp_gated) == (POSITIONS, {}, False)
    roberta = our_config(encoder_config("roberta").to_dict())
    assert (roberta.encoder.max_position_embeddings, roberta.encoder.position_offset) == (POSITIONS, 2)
    assert (roberta.pad_token_id, roberta.bos_token_id, roberta.eos_token_id) == (1, 1, 2)
    modern = our_config(encoder_config("modernbert", mlp_dropout=0.2, attention_dropout=0.3).to_dict()).encoder
    assert modern.layer_types == ("full_attention", "sliding_attention", "sliding_attention", "full_attention")
    assert (modern.window, modern.first_attention_norm, modern.norm_bias) == ((3, 3), False, False)
    assert modern.rotary["sliding_attention"]["rope_theta"] < modern.rotary["full_attention"]["rope_theta"]
    assert (modern.activation_dropout, modern.attention_dropout, modern.attention_out_dropout) == (0.2, 0.3, 0.3)


def test_configs_of_old_releases() -> None:
    """Fields that the first releases of these models still carry."""
    plain = our_config(encoder_config("bert").to_dict()).to_dict()
    old = {
        "gradient_checkpointing": False,
        "position_embedding_type": "absolute",
        "directionality": "bidi",
        "pooler_fc_size": 768,
        "pooler_num_attention_heads": 12,
        "pooler_num_fc_layers": 3,
        "pooler_size_per_head": 128,
        "pooler_type": "first_token_transform",
    }
    assert our_config(encoder_config("bert").to_dict() | old).to_dict() == plain
    modern = encoder_config("modernbert", rope_parameters=None, layer_types=None).to_dict()
    for name in ("rope_parameters", "layer_types"):
        del modern[name]
    modern |= {"global_attn_every_n_layers": 2, "global_rope_theta": 5000.0, "local_rope_theta": 50.0}
    modern |= {"layer_norm_eps": 1e-5, "position_embedding_type": "absolute", "repad_logits_with_grad": False}
    found = our_config(modern).encoder
    assert found.layer_types == ("full_attention", "sliding_attention") * 2
    assert {kind: values["rope_theta"] for kind, values in found.rotary.items()} == {
        "full_attention": 5000.0,
        "sliding_attention": 50.0,
    }


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("bert", {"is_decoder": True}, r"is_decoder=True \(the encoder must see both sides\)"),
        ("roberta", {"add_cross_attention": True}, r"add_cross_attention=True \(only decoders read a memory\)"),
        (
            "bert",
            {"position_embedding_type": "relative_key"},
            r"position_embedding_type='relative_key' \(only absolute",
        ),
        ("xlm-roberta", {"pad_token_id": None}, r"max_position_embeddings=44, pad_token_id=None \(not understood\)"),
        ("modernbert", {"shiny": 1}, r"shiny \(unknown field\)"),
        (
            "modernbert",
            {"rope_parameters": {"full_attention": {"rope_theta": 9.0, "partial_rotary_factor": 0.5}}},
            r"full_attention\.partial_rotary_factor",
        ),
    ],
    ids=str,
)
def test_what_is_not_supported_is_named(family: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        our_config(encoder_config(family).to_dict() | change)


WEIGHTS = [(family, {}) for family in ENCODERS] + [
    ("modernbert", {"attention_bias": True, "mlp_bias": True, "norm_bias": True})
]


def same_bytes(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first, second)


@pytest.mark.parametrize("kind", [AutoModel, AutoModelForMaskedLM], ids=["plain", "with a head"])
@pytest.mark.parametrize(("family", "overrides"), WEIGHTS, ids=str)
def test_weights_come_back_bit_by_bit(family: str, overrides: dict[str, Any], kind: Any, tmp_path: Path) -> None:
    """All that the plain model holds but its pooler; with a head, the names have a base before them."""
    stock = stock_encoder(family, kind=kind, **overrides).to(torch.bfloat16)
    stock.save_pretrained(tmp_path)
    plain = getattr(stock, stock.base_model_prefix, stock)
    expected = {name: tensor for name, tensor in plain.state_dict().items() if "pooler" not in name}
    ours = ours_of(tmp_path)
    written = FAMILIES[family].stock_tensors(ours.state_dict(), ours.config)
    assert written.keys() == expected.keys()
    assert all(same_bytes(written[name], tensor) for name, tensor in expected.items())
    assert len(load_file(tmp_path / SINGLE)) > len(expected) or (family, kind) == ("modernbert", AutoModel)


def edited(folder: Path, out: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    out.mkdir()
    (out / "config.json").write_text((folder / "config.json").read_text())
    save_file(change(load_file(folder / SINGLE)), out / SINGLE)
    return out


def test_tensors_of_old_releases(tiny_encoder: Any, tmp_path: Path) -> None:
    """Norms under their first names, and positions that were stored as whole numbers."""
    _, folder = tiny_encoder("bert")
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        for new, old in names.items():
            tensors = {f"bert.{n}".replace("bert.bert.", "bert.").replace(new, old): t for n, t in tensors.items()}
        return tensors | {"bert.embeddings.position_ids": torch.arange(POSITIONS)[None]}

    old, new = ours_of(edited(folder, tmp_path / "old", change)).state_dict(), ours_of(folder).state_dict()
    assert old.keys() == new.keys()
    assert all(same_bytes(old[name], tensor) for name, tensor in new.items())


@pytest.mark.parametrize("name", ["embeddings.word_embeddings.weight", "encoder.layer.0.output.dense.scales"])
def test_whole_numbers_for_weights_are_refused(name: str, tiny_encoder: Any, tmp_path: Path) -> None:
    folder = edited(
        tiny_encoder("bert")[1], tmp_path / "donor", lambda t: t | {name: torch.ones(3, 2, dtype=torch.uint8)}
    )
    with pytest.raises(CheckpointError, match=rf"stores {name} as U8; quantised weights cannot be adapted"):
        open_donor(folder)


def test_misfits_are_named(tiny_encoder: Any, tmp_path: Path) -> None:
    folder = edited(
        tiny_encoder("modernbert")[1],
        tmp_path / "donor",
        lambda t: (
            {n: x for n, x in t.items() if n != "final_norm.weight"} | {"layers.0.attn_norm.weight": torch.ones(48)}
        ),
    )
    with pytest.raises(CheckpointError, match=r"final_norm.weight is missing; layers.0.attn_norm.weight is unexpected"):
        open_donor(folder)
