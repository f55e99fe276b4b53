"""Choices of layers and of embedding tables: what they do, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor

from graftlm.adaptation.adapt import adapt, adapt_to_folder
from graftlm.adaptation.layers import Layers
from graftlm.errors import ConfigError
from graftlm.model.config import BridgeConfig, ExpertsConfig
from graftlm.model.modeling import GraftForConditionalGeneration
from tiny import MODULE, WHOLE, batch, gap, stack

BATCH = batch("both")


@torch.no_grad()
def logits(model: GraftForConditionalGeneration) -> Tensor:
    return model(input_ids=BATCH.ids, attention_mask=BATCH.mask, labels=BATCH.target).logits


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ("0-11", tuple(range(12))),
        ("0,2, 4", (0, 2, 4)),
        ("0-10:2", (0, 2, 4, 6, 8, 10)),
        ("0-11:5", (0, 5, 10)),
        ("0-1,5,8-11:3", (0, 1, 5, 8, 11)),
        ("7", (7,)),
        ([1, 3], (1, 3)),
        (range(0, 12, 4), (0, 4, 8)),
    ],
    ids=str,
)
def test_layers_that_are_given(given: Any, numbers: tuple[int, ...]) -> None:
    assert Layers.of(given, 12, "encoder_layers").numbers == numbers


@pytest.mark.parametrize(
    "given",
    [
        *(
            "",
            ",",
            "0-12",
            "12",
            "-1",
            "4-2",
            "2,1",
            "1,1",
            "0-5,5",
            "0-4:0",
            "a",
            "0-",
            "0:2",
            "1.5",
            "0-99999",
            "9" * 30,
        ),
        *([], [12], [-1, 2], [2, 1], [1, 1], [1.5], ["1"]),
    ],
    ids=str,
)
def test_layers_that_there_are_not(given: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^decoder_layers is .*; give some of layers 0 to 11, each once and in rising"
    ):
        Layers.of(given, 12, "decoder_layers")


def test_what_a_layer_has_goes_with_it() -> None:
    experts = ExpertsConfig(number=4, per_token=2, size=8, normalised=True, layers=(1, 2))
    whole = stack(num_layers=4, unrotated_layers=(0, 3), experts=experts, first_attention_norm=False)
    some = whole.pick((0, 2, 3))
    assert (some.num_layers, some.unrotated_layers, some.experts.layers) == (3, (0, 2), (1,))
    assert some.layer_types == ("sliding_attention", "full_attention", "full_attention")
    assert not some.first_attention_norm
    assert whole.pick((1, 3)).first_attention_norm
    assert whole.first(2) == whole.pick((0, 1))


def test_rotary_of_other_layers_is_left_out(tiny_lm: Any) -> None:
    config = adapt(tiny_lm("gemma2")[1], recipe="t5gemma", encoder_layers="1,3", decoder_layers="0,2").config
    assert (set(config.encoder.rotary), set(config.decoder.rotary)) == ({"full_attention"}, {"sliding_attention"})


def test_lossless_needs_every_layer(tiny_lm: Any) -> None:
    for choice in ({"encoder_layers": "0-1"}, {"decoder_layers": "0-3"}, {"share_embeddings": False}):
        with pytest.raises(ConfigError, match=r"Recipe lossless .* needs every layer and one table"):
            adapt(tiny_lm("llama")[1], **choice)


def test_layers_that_a_model_does_not_have(tiny_lm: Any) -> None:
    for side in ("encoder", "decoder"):
        with pytest.raises(ConfigError, match=f"{side}_layers is '2-4'; give some of layers 0 to 3,"):
            adapt(tiny_lm("llama")[1], recipe="t5gemma", **{f"{side}_layers": "2-4"})


@pytest.mark.parametrize("bridge", ["scalar", "linear", "map", "gated", "joined"])
def test_bridges_read_the_layers_that_there_are(bridge: str, tiny_lm: Any) -> None:
    model = adapt(tiny_lm("llama")[1], recipe="t5gemma", bridge=bridge, encoder_layers="0,3", decoder_layers="0-2")
    assert (model.config.encoder.num_layers, model.config.decoder.num_layers) == (2, 3)
    assert logits(model).isfinite().all()


def test_an_aligned_bridge_of_chosen_layers(tiny_lm: Any) -> None:
    """Decoder layer j reads what its own layer read in the LLM, if both sides take the same ones."""
    same = {"encoder_layers": "0,2,3", "decoder_layers": "0,2,3", "bridge": "aligned"}
    assert adapt(tiny_lm("llama")[1], recipe="t5gemma2", **same).config.encoder.num_layers == 2
    with pytest.raises(ConfigError, match="bridge aligned needs an encoder of 1 layers"):
        adapt(tiny_lm("llama")[1], recipe="t5gemma2", **same | {"decoder_layers": "0,2"})


@pytest.mark.parametrize("old", ["map", "linear"])
def test_a_bridge_that_is_replaced_need_not_fit(old: str, tiny_lm: Any, tmp_path: Any) -> None:
    states = {"states": (2, 4)} if old == "linear" else {}
    bridge = BridgeConfig.from_dict({"kind": old, **states})
    adapt_to_folder(tiny_lm("llama")[1], tmp_path / "graft", recipe="t5gemma", bridge=bridge)
    model = adapt(tmp_path / "graft", bridge="scalar", encoder_layers="0-1", decoder_layers="0,3")
    assert (model.config.encoder.num_layers, model.config.decoder.num_layers) == (2, 2)
    held = adapt(tmp_path / "graft", bridge="scalar").state_dict()
    assert torch.equal(
        model.state_dict()["decoder.layers.1.mlp.up_proj.weight"], held["decoder.layers.3.mlp.up_proj.weight"]
    )


@pytest.mark.parametrize("recipe", ["t5gemma", "t5gemma2"])
def test_a_table_of_its_own_begins_as_the_same(recipe: str, tiny_lm: Any, tmp_path: Any) -> None:
    """Whether one table or two: the function is kept, and a table is stored once or twice."""
    source = tiny_lm("gemma2")[1]
    shared = recipe == "t5gemma2"
    usual, other = adapt(source, recipe=recipe), adapt(source, recipe=recipe, share_embeddings=not shared)
    assert (usual.config.share_embeddings, other.config.share_embeddings) == (shared, not shared)
    assert gap(logits(usual), logits(other)) <= MODULE
    report = adapt_to_folder(source, tmp_path / "graft", recipe=recipe, share_embeddings=not shared)
    assert ("encoder.embedding.weight" in report["tensors"]) == shared
    with pytest.raises(ConfigError, match=f"share_embeddings is {str(shared).lower()} already; leave it out"):
        adapt(source, recipe=recipe, share_embeddings=shared)


@pytest.mark.parametrize("recipe", ["lossless", "t5gemma", "t5gemma2"])
def test_an_untied_head_begins_as_the_table(recipe: str, tiny_lm: Any, tmp_path: Any) -> None:
    source = tiny_lm("gemma2")[1]
    model = adapt(source, recipe=recipe, tie_word_embeddings=False)
    assert model.lm_head.weight.data_ptr() != model.decoder.embedding.weight.data_ptr()
    assert gap(logits(model), logits(adapt(source, recipe=recipe))) <= MODULE
    tensors = adapt_to_folder(source, tmp_path / "graft", recipe=recipe, tie_word_embeddings=False)["tensors"]
    assert tensors["lm_head.weight"] == tensors["decoder.embedding.weight"]
    with pytest.raises(ConfigError, match="tie_word_embeddings is true already; leave it out"):
        adapt(source, recipe=recipe, tie_word_embeddings=True)


def test_a_tied_head_leaves_the_models_own_behind(tiny_lm: Any) -> None:
    source = tiny_lm("llama", tie_word_embeddings=False)[1]
    own, tied = adapt(source, recipe="t5gemma"), adapt(source, recipe="t5gemma", tie_word_embeddings=True)
    assert tied.lm_head.weight is tied.decoder.embedding.weight
    assert gap(logits(own), logits(tied)) > 100 * WHOLE


def test_two_models_have_two_tables(tiny_lm: Any) -> None:
    other = tiny_lm("gemma2", seed=1, hidden_size=48)[1]
    with pytest.raises(ConfigError, match="share_embeddings needs one vocabulary, width and scale"):
        adapt(tiny_lm("llama")[1], encoder_from=other, recipe="t5gemma", share_embeddings=True)
