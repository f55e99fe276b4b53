"""Encoder–decoders as they are stored, both ways: every field, every byte, and what old releases left in them."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, GenerationConfig

from graftlm.adaptation.adapt import adapt
from graftlm.adaptation.store import load_graft
from graftlm.errors import CheckpointError, ConversionError
from graftlm.families.donor import load_donor, open_donor
from graftlm.families.registry import FAMILIES, family_of
from graftlm.families.stock_config import complete
from graftlm.model.config import GraftConfig
from tiny import MODULE, batch, gap
from tiny_seq2seq import SEQ2SEQ, edit, seq2seq_config, store_seq2seq

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in SEQ2SEQ),
    ("t5", {"feed_forward_proj": "gelu_new", "num_decoder_layers": None, "dropout_rate": 0.0}),
    ("t5", {"feed_forward_proj": "gated-relu", "layer_norm_epsilon": 1e-5, "bos_token_id": 3}),
    ("t5", {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu", "eos_token_id": [2, 3]}),
    ("mt5", {"feed_forward_proj": "relu", "d_kv": 5, "num_heads": 3}),
    ("bart", {"dropout": 0.0, "attention_dropout": 0.2, "activation_dropout": 0.3, "init_std": 0.1}),
    ("mbart", {"scale_embedding": True, "activation_function": "relu", "decoder_start_token_id": 9}),
    ("marian", {"scale_embedding": False, "max_position_embeddings": 7, "decoder_attention_heads": 1}),
]


def our_config(raw: dict[str, Any]) -> GraftConfig:
    return family_of(raw["model_type"]).config.read(raw, complete(raw))


@pytest.mark.parametrize(("name", "overrides"), VARIANTS, ids=str)
def test_every_field_comes_back(name: str, overrides: dict[str, Any]) -> None:
    raw = seq2seq_config(name, **overrides).to_dict()
    family, config = FAMILIES[raw["model_type"]], our_config(raw)
    written = family.stock_config(config)
    again, expected = complete(written), complete(raw)
    ours = family.config.flat(config)
    read = {field for rule in family.config.rules if rule.write(ours) for field in rule.source}
    assert {"vocab_size", "d_model", "pad_token_id", "decoder_start_token_id", "is_encoder_decoder"} <= read
    for field in read & expected.keys():
        assert again[field] == expected[field], field
    assert our_config(written).to_dict() == config.to_dict()
    assert GraftConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_every_field_is_spoken_of(name: str) -> None:
    kind, family = SEQ2SEQ[name].kind, FAMILIES[SEQ2SEQ[name].kind.model_type]
    fields = {field.name for field in dataclasses.fields(kind)} | seq2seq_config(name).to_dict().keys()
    assert {field for field in fields - family.config.known() if not field.startswith("_")} == set()


def test_values_that_are_read() -> None:
    """Where names differ, what they mean: spelled out once by hand."""
    t5 = our_config(seq2seq_config("t5").to_dict())
    assert (t5.cross_mode, t5.encoder_attention, t5.positions) == ("separate", "bidirectional", "restarted")
    assert (t5.decoder_start, t5.decoder_start_token_id, t5.share_embeddings) == ("bos", 0, True)
    assert (t5.source_eos, t5.target_special_tokens) == (True, False)
    assert (t5.encoder.num_layers, t5.decoder.num_layers) == (3, 2)
    assert (t5.encoder.head_dim, t5.encoder.num_kv_heads, t5.decoder.query_scale) == (12, 4, 1.0)
    assert t5.decoder.logit_scale == 32**-0.5
    assert (t5.encoder.relative_bias.bidirectional, t5.decoder.relative_bias.bidirectional) == (True, False)
    assert (t5.decoder.relative_bias.buckets, t5.decoder.relative_bias.max_distance) == (8, 11)
    gated = our_config(seq2seq_config("t5-gated").to_dict()).decoder
    assert (gated.mlp_gated, gated.activation, gated.logit_scale) == (True, "gelu_new", 1.0)
    bart = our_config(seq2seq_config("bart").to_dict())
    assert (bart.encoder.num_heads, bart.encoder.head_dim, bart.encoder.intermediate_size) == (2, 16, 40)
    assert (bart.decoder.num_heads, bart.decoder.head_dim, bart.decoder.intermediate_size) == (4, 8, 48)
    assert (bart.decoder.norm_placement, bart.decoder.final_norm, bart.decoder.norm_eps) == ("post", False, 1e-5)
    assert (bart.decoder.absolute_positions, bart.decoder.position_offset) == ("learned", 2)
    assert (bart.source_eos, bart.target_special_tokens) == (True, True)
    mbart = our_config(seq2seq_config("mbart").to_dict())
    assert (mbart.decoder.norm_placement, mbart.decoder.final_norm) == ("pre", True)
    assert (mbart.decoder_start, mbart.decoder_start_token_id) == ("last_label", None)
    marian = our_config(seq2seq_config("marian-two").to_dict())
    assert (marian.encoder.vocab_size, marian.decoder.vocab_size) == (288, 300)
    assert (marian.share_embeddings, marian.tie_word_embeddings) == (False, True)
    assert (marian.decoder.absolute_positions, marian.decoder.embedding_scale) == ("sinusoidal", 32**0.5)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder=False (only whole encoder-decoders"),
        ("t5", {"decoder_start_token_id": None}, "decoder_start_token_id=None (name the token"),
        ("mt5", {"shiny": 1}, "shiny (unknown field)"),
        ("bart", {"encoder_layerdrop": 0.1}, "encoder_layerdrop=0.1 (layers cannot be left out"),
        ("bart", {"tie_word_embeddings": False}, "tie_word_embeddings=False (one table serves"),
        ("mbart", {"decoder_attention_heads": 5}, "decoder_attention_heads=5 (it must divide d_model=32)"),
        ("mbart", {"is_decoder": True}, "is_decoder=True"),
        ("marian", {"tie_word_embeddings": False}, "tie_word_embeddings=False (a table that both sides share"),
        ("marian", {"decoder_vocab_size": 5}, "share_embeddings needs one vocabulary"),
    ],
)
def test_what_is_not_supported_is_named(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversionError) as error:
        our_config(seq2seq_config(name).to_dict() | change)
    assert message in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SEQ2SEQ)
def test_every_byte_comes_back(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """transformers' own file, ours, and back; transformers then reads it whole and computes the same."""
    stock = store_seq2seq(name, tmp_path / "stock", dtype)
    expected = load_file(tmp_path / "stock" / "model.safetensors")
    donor = open_donor(tmp_path / "stock")
    assert ("lm_head.weight" in expected) == (not donor.config.tie_word_embeddings)
    ours = {tensor: donor.read(tensor) for tensor in donor.shapes}
    written = donor.family.stock_tensors(ours, donor.config)
    assert written.keys() == expected.keys()
    for tensor, value in expected.items():
        assert written[tensor].dtype == value.dtype
        assert torch.equal(written[tensor].contiguous().view(torch.uint8), value.contiguous().view(torch.uint8)), tensor
    back = tmp_path / "back"
    back.mkdir()
    save_file({n: t.contiguous() for n, t in written.items()}, back / "model.safetensors", {"format": "pt"})
    (back / "config.json").write_text(json.dumps(donor.family.stock_config(load_donor(donor).config)))
    again, loading = AutoModelForSeq2SeqLM.from_pretrained(
        back, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert {kind: list(names) for kind, names in loading.items() if names} == {}
    # Casting the model would have rounded what is in no file, as Marian's positions.
    first = type(stock).from_pretrained(tmp_path / "stock", dtype=torch.float32, attn_implementation="eager")
    b = batch("right")
    with torch.no_grad():
        logits = [m.eval()(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits for m in (again, first)]
    assert gap(*logits) == 0


def copies(folder: Path, base: str) -> None:
    """The shared table stored under each of its names, as releases before transformers 5 did."""
    tensors = load_file(folder / "model.safetensors")
    table = tensors[f"{base}shared.weight"]
    names = (f"{base}encoder.embed_tokens.weight", f"{base}decoder.embed_tokens.weight", "lm_head.weight")
    edit(folder, **{name: table.clone() for name in names})


@pytest.mark.parametrize("name", ["t5", "mt5-tied", "bart", "mbart", "marian"])
def test_a_table_may_be_stored_several_times(name: str, tmp_path: Path) -> None:
    base = "" if "t5" in name else "model."
    store_seq2seq(name, tmp_path / "m")
    before = load_graft(tmp_path / "m").state_dict()
    copies(tmp_path / "m", base)
    after = load_graft(tmp_path / "m")
    assert after.lm_head.weight is after.decoder.embedding.weight
    assert all(torch.equal(before[n], tensor) for n, tensor in after.state_dict().items())
    edit(tmp_path / "m", **{f"{base}shared.weight": None})
    assert all(torch.equal(before[n], tensor) for n, tensor in load_graft(tmp_path / "m").state_dict().items())
    edit(tmp_path / "m", **{f"{base}encoder.embed_tokens.weight": torch.zeros(288, 32)})
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight is unexpected"):
        load_graft(tmp_path / "m")


@pytest.mark.parametrize("name", ["bart", "mbart", "marian"])
def test_old_files_lack_the_prefix_and_the_bias_and_hold_more(name: str, tmp_path: Path) -> None:
    store_seq2seq(name, tmp_path / "m")
    before = load_graft(tmp_path / "m").state_dict()
    path = tmp_path / "m" / "model.safetensors"
    old = {n.removeprefix("model."): t for n, t in load_file(path).items() if n != "final_logits_bias"}
    more = {"encoder.embed_positions.weight": torch.zeros(40, 32)} if name == "marian" else {}
    old |= more or {"encoder.version": torch.tensor([3.0]), "decoder.version": torch.tensor([3.0])}
    save_file(old, path, {"format": "pt"})
    after = load_graft(tmp_path / "m").state_dict()
    assert after.pop("lm_head.bias").abs().max() == 0
    assert all(torch.equal(before[n], tensor) for n, tensor in after.items())


def test_a_bias_that_old_t5_files_hold_is_left_behind(tmp_path: Path) -> None:
    store_seq2seq("t5", tmp_path / "m")
    edit(tmp_path / "m", **{"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.ones(8, 4)})
    open_donor(tmp_path / "m")


def test_settings_of_old_configs(tmp_path: Path) -> None:
    """Ways to generate were fields of the model's config, and fields of no use stood beside them."""
    stock = store_seq2seq("bart", tmp_path / "m")
    folder = Path(shutil.copytree(tmp_path / "m", tmp_path / "old"))
    (folder / "generation_config.json").unlink()
    raw = json.loads((folder / "config.json").read_text())
    raw |= {"num_beams": 4, "no_repeat_ngram_size": 3, "forced_bos_token_id": 1, "max_length": 30, "min_length": 5}
    raw |= {
        "normalize_before": False,
        "add_final_layer_norm": False,
        "task_specific_params": {},
        "num_hidden_layers": 2,
    }
    (folder / "config.json").write_text(json.dumps(raw))
    theirs = type(stock).from_pretrained(folder).generation_config
    ours = adapt(folder).generation_config
    assert (theirs.num_beams, theirs.forced_bos_token_id, theirs.max_length) == (4, 1, 30)
    assert ours.to_diff_dict() == theirs.to_diff_dict()


def test_the_sources_own_first_token_is_kept(tmp_path: Path) -> None:
    store_seq2seq("mbart", tmp_path / "m")
    assert adapt(tmp_path / "m").generation_config.decoder_start_token_id == 7
    settings = GenerationConfig(eos_token_id=2)
    settings.save_pretrained(tmp_path / "m")
    assert adapt(tmp_path / "m").generation_config.decoder_start_token_id is None
    store_seq2seq("bart", tmp_path / "b")
    settings.save_pretrained(tmp_path / "b")
    assert adapt(tmp_path / "b").generation_config.decoder_start_token_id == 2


@torch.no_grad()
def test_a_graft_is_read_without_a_detour(tmp_path: Path) -> None:
    stock = store_seq2seq("marian-two", tmp_path / "m")
    model, b = load_graft(tmp_path / "m", torch.float32), batch("right")
    found = model(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits
    assert gap(found, stock(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits) <= MODULE
    assert model.config.made_from == {"encoder": "marian", "decoder": "marian"}
    assert model.config.recipe is None
