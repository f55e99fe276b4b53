"""The lossless graft computes its language model's own function, with its language model's own bytes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from graftlm.adaptation.adapt import adapt, adapt_to_folder
from graftlm.errors import ConfigError, TaskError
from graftlm.families.donor import load_causal_lm, open_donor
from graftlm.families.registry import FAMILIES as TABLES
from graftlm.generation.kv_prefix import kv_prefix, left_padded
from graftlm.model.modeling import GraftForConditionalGeneration
from tiny import BOS, FAMILIES, LENGTHS, PAD, SIDES, VOCABULARY, WHOLE, WINDOW, Batch, batch, gap

GREEDY = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": PAD}
BEAM = {"max_new_tokens": 12, "do_sample": False, "num_beams": 3, "num_return_sequences": 2, "pad_token_id": PAD}

pytestmark = pytest.mark.parametrize("family", FAMILIES)


@torch.no_grad()
def target_logits(stock: PreTrainedModel, b: Batch, row: int, *more: int) -> Tensor:
    """What the language model, alone with one row, `more` and no padding, says of its target tokens; (T, V)."""
    source = torch.cat((b.row(row), torch.tensor(more, dtype=torch.long)))
    return stock(torch.cat((source, b.target[row, :-1]))[None]).logits[0, len(source) - 1 :]


def new_tokens(stock: PreTrainedModel, b: Batch, **settings: Any) -> Tensor:
    """What transformers generates after the left-padded sources."""
    ids, mask = left_padded(b.ids, b.mask)
    return stock.generate(input_ids=ids, attention_mask=mask, **settings)[:, ids.shape[1] :]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_logits_are_the_language_models_own(family: str, side: str, dtype: torch.dtype, tiny_lm: Any) -> None:
    """The checkpoint may be stored in bf16; the arithmetic compared is fp32."""
    stock, folder = tiny_lm(family, dtype)
    if dtype != torch.float32:
        stock = type(stock).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    b = batch(side)
    assert min(LENGTHS) == 1
    assert max(LENGTHS) > 2 * WINDOW
    with torch.no_grad():
        found = adapt(folder, dtype=torch.float32)(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits
    for row in range(len(b.ids)):
        assert gap(found[row], target_logits(stock, b, row)) <= WHOLE, row


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("settings", [GREEDY, BEAM], ids=["greedy", "beam"])
def test_generate_gives_the_language_models_tokens(
    family: str, side: str, settings: dict[str, Any], tiny_lm: Any
) -> None:
    stock, folder = tiny_lm(family)
    b = batch(side)
    found = adapt(folder).generate(input_ids=b.ids, attention_mask=b.mask, **settings)
    assert found.tolist() == new_tokens(stock, b, **settings).tolist()


@pytest.mark.parametrize("side", SIDES)
@torch.no_grad()
def test_cached_steps_equal_one_pass(family: str, side: str, tiny_lm: Any) -> None:
    """Ours, of one token and of several at once, and those of transformers, of one."""
    stock, folder = tiny_lm(family)
    model, b = adapt(folder), batch(side)
    whole = model(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits
    encoded, cache, steps = model.encode(b.ids, b.mask), None, []
    inputs = torch.cat((encoded.last_token, b.target[:, :-1]), dim=1)
    for tokens in inputs.split((1, 1, 3, 1, 2, 1), dim=1):
        step = model(
            encoder_outputs=encoded,
            attention_mask=b.mask,
            decoder_input_ids=tokens,
            past_key_values=cache,
            use_cache=True,
        )
        cache = step.past_key_values
        steps.append(step.logits)
    assert gap(torch.cat(steps, dim=1), whole) <= WHOLE
    for row in range(len(b.ids)):
        step = stock(b.row(row)[None], use_cache=True)
        theirs = [step.logits[:, -1:]]
        for token in b.target[row, :-1]:
            step = stock(token.view(1, 1), past_key_values=step.past_key_values, use_cache=True)
            theirs.append(step.logits)
        assert gap(whole[row], torch.cat(theirs, dim=1)[0]) <= WHOLE, row


@pytest.mark.parametrize("side", SIDES)
def test_stock_generate_continues_from_the_prefix(family: str, side: str, tiny_lm: Any) -> None:
    stock, folder = tiny_lm(family)
    b = batch(side)
    cache = kv_prefix(adapt(folder), b.ids, b.mask)
    assert cache.get_seq_length() == max(LENGTHS) - 1
    assert new_tokens(stock, b, past_key_values=cache, **GREEDY).tolist() == new_tokens(stock, b, **GREEDY).tolist()


def test_a_changed_encoder_changes_what_stock_generate_continues(family: str, tiny_lm: Any) -> None:
    """The prefix is the encoder's: with another encoder, stock decoding follows the graft and leaves the LLM."""
    stock, folder = tiny_lm(family)
    model, b = adapt(folder), batch("left")
    model.copy_layers()
    with torch.no_grad():
        for layer in model.encoder.layers:
            layer.mlp.up_proj.weight.mul_(-1.0)
    prefixed = new_tokens(stock, b, past_key_values=kv_prefix(model, b.ids, b.mask), **GREEDY).tolist()
    assert prefixed == model.generate(input_ids=b.ids, attention_mask=b.mask, **GREEDY).tolist()
    assert prefixed != new_tokens(stock, b, **GREEDY).tolist()


def test_sources_without_a_prefix(family: str, tiny_lm: Any) -> None:
    _, folder = tiny_lm(family)
    with pytest.raises(TaskError, match="one token"):
        kv_prefix(adapt(folder), torch.tensor([[5], [6]]))
    with pytest.raises(ConfigError, match="recipe lossless"):
        kv_prefix(adapt(folder, recipe="t5gemma"), torch.tensor([[5, 6]]))


@pytest.mark.parametrize("rows", [1, 3])
def test_one_token_sources_alone(family: str, rows: int, tiny_lm: Any) -> None:
    """A batch in which no row has any memory."""
    stock, folder = tiny_lm(family)
    b = batch("right", lengths=(1,) * rows)
    model = adapt(folder)
    with torch.no_grad():
        found = model(input_ids=b.ids, labels=b.target).logits
    for row in range(rows):
        assert gap(found[row], target_logits(stock, b, row)) <= WHOLE
    assert model.generate(input_ids=b.ids, **GREEDY).tolist() == new_tokens(stock, b, **GREEDY).tolist()


@pytest.mark.parametrize("side", SIDES)
def test_targets_may_begin_with_bos(family: str, side: str, tiny_lm: Any) -> None:
    """The whole source is memory then, and BOS stands at the position after it."""
    stock, folder = tiny_lm(family)
    model, b = adapt(folder), batch(side)
    model.config.decoder_start = "bos"
    with torch.no_grad():
        found = model(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits
    for row in range(len(b.ids)):
        assert gap(found[row], target_logits(stock, b, row, BOS)) <= WHOLE, row


def test_padding_inside_the_targets(family: str, tiny_lm: Any) -> None:
    """Targets of different lengths: what follows a row's end does not reach back, nor does padding on the left."""
    stock, folder = tiny_lm(family)
    model, b = adapt(folder), batch("both")
    ends = (9, 4, 7, 1)
    last = torch.stack([b.row(row)[-1] for row in range(len(b.ids))])[:, None]
    inputs = torch.cat((last, b.target[:, :-1]), dim=1)
    left, mask = torch.full_like(inputs, PAD), torch.zeros_like(inputs)
    for row, end in enumerate(ends):
        left[row, -end:], mask[row, -end:] = inputs[row, :end], 1
    with torch.no_grad():
        right = model(input_ids=b.ids, attention_mask=b.mask, labels=b.target.where(left.flip(1) != PAD, -100)).logits
        found = model(
            input_ids=b.ids, attention_mask=b.mask, decoder_input_ids=left, decoder_attention_mask=mask
        ).logits
    for row, end in enumerate(ends):
        expected = target_logits(stock, b, row)[:end]
        assert gap(right[row, :end], expected) <= WHOLE
        assert gap(found[row, -end:], expected) <= WHOLE


@pytest.mark.parametrize("side", SIDES)
def test_the_causal_lm_is_the_donor(family: str, side: str, tiny_lm: Any) -> None:
    stock, folder = tiny_lm(family)
    b = batch(side)
    with torch.no_grad():
        found = load_causal_lm(folder)(b.ids, attention_mask=b.mask).logits
        for row in range(len(b.ids)):
            assert gap(found[row][b.mask[row].bool()], stock(b.row(row)[None]).logits[0]) <= WHOLE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_decoder_is_the_donor_byte_for_byte(family: str, dtype: torch.dtype, tiny_lm: Any, tmp_path: Path) -> None:
    _, folder = tiny_lm(family, dtype)
    adapt_to_folder(folder, tmp_path / "graft")
    donor, made = stored(folder), stored(tmp_path / "graft")
    held = {name: tensor for name, tensor in made.items() if not name.startswith("encoder.")}
    decoder = TABLES[family].stock_tensors(held, open_donor(folder).config)
    assert decoder.keys() == donor.keys()
    for name, tensor in donor.items():
        assert decoder[name].dtype == tensor.dtype == dtype
        assert torch.equal(decoder[name].view(torch.uint8), tensor.view(torch.uint8)), name
    loaded = GraftForConditionalGeneration.from_pretrained(tmp_path / "graft")
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}


def stored(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder of one file."""
    with safe_open(str(folder / "model.safetensors"), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_nothing_dead_is_stored(family: str, tiny_lm: Any) -> None:
    """The encoder has one layer fewer than the decoder, no final norm and no table of its own."""
    stock, folder = tiny_lm(family)
    names = [name for name, _ in adapt(folder).named_parameters() if name.startswith("encoder.")]
    layers = stock.config.num_hidden_layers - 1
    assert {name.split(".")[1] for name in names} == {"layers"}
    assert {int(name.split(".")[2]) for name in names} == set(range(layers))
    assert stock.config.vocab_size == VOCABULARY
