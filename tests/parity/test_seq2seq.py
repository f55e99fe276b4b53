"""Encoder–decoders of every family against transformers' own: modules, states, logits, gradients and tokens."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from graftlm.adaptation.adapt import adapt
from graftlm.adaptation.store import load_graft
from graftlm.errors import ConfigError
from graftlm.families.donor import open_donor
from graftlm.families.registry import FAMILIES
from graftlm.model.attention import Attention
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.position import positions_from_mask
from tiny import MODULE, PAD, SIDES, WHOLE, batch, gap, gradients
from tiny_seq2seq import SEQ2SEQ, store_seq2seq

Stored = tuple[PreTrainedModel, Path]
Tinies = Callable[[str], Stored]


@pytest.fixture(scope="module")
def tiny_seq2seq(tmp_path_factory: pytest.TempPathFactory) -> Tinies:
    """`tiny_seq2seq(name)` -> (stock model, its folder); shared: do not change."""
    made: dict[str, Stored] = {}

    def make(name: str) -> Stored:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = store_seq2seq(name, folder), folder
        return made[name]

    return make


def row_logits(stock: PreTrainedModel, source: Tensor, target: Tensor) -> Tensor:
    """What transformers says of one row without padding; (T, V)."""
    return stock(input_ids=source[None], labels=target[None]).logits[0]


def calls(stock: PreTrainedModel, source: Tensor, target: Tensor) -> Iterator[tuple[str, Any, Any, Any]]:
    """(name, positional arguments, named arguments, output) of every module of transformers' in one pass."""
    seen: list[tuple[str, Any, Any, Any]] = []

    def record(name: str) -> Any:
        return lambda module, args, named, output: seen.append((name, args, named, output))

    hooks = [m.register_forward_hook(record(n), with_kwargs=True) for n, m in stock.named_modules() if n]
    row_logits(stock, source, target)
    for hook in hooks:
        hook.remove()
    return iter(seen)


def attended(attention: Attention, x: Tensor, memory: Tensor, causal: bool, bias: Tensor | None) -> Tensor:
    mask = torch.ones(1, 1, x.shape[1], memory.shape[1], dtype=torch.bool)
    made = attention.key_value(memory, None)
    return attention(attention.query(x, None), [made], mask.tril() if causal else mask, bias=bias)


def module_gaps(stock: PreTrainedModel, ours: GraftForConditionalGeneration, folder: Path) -> dict[str, float]:
    """Largest difference of every module that has one of ours as its counterpart, given the same inputs."""
    donor, b, gaps = open_donor(folder), batch("right"), dict[str, float]()
    parts = dict(ours.named_modules())
    for name, args, named, output in calls(stock, b.row(0), b.target[0]):
        x = args[0] if args else named.get("hidden_states")
        place = donor.weights.to_ours(f"{name}.weight", donor.base)
        module = None if place is None else parts[place.ours[0].removesuffix(".weight")]
        # Tables are read by what is compared below: the attention with its bias, and the states before the first layer.
        if module is not None and not isinstance(module, nn.Embedding):
            # The bias of the head is no part of transformers' module.
            extra = ours.lm_head.bias if name == "lm_head" and ours.lm_head.bias is not None else 0.0
            gaps[name] = gap(module(x) - extra, output)
        for query in ("q", "q_proj"):
            place = donor.weights.to_ours(f"{name}.{query}.weight", donor.base)
            if place is None:
                continue
            path = place.ours[0].removesuffix(".q_proj.weight")
            memory = named.get("key_value_states")
            stack = ours.encoder if path.startswith("encoder") else ours.decoder
            bias = None
            if memory is None and stack.config.relative_bias is not None:
                positions = torch.arange(x.shape[1])[None]
                bias = stack.relative_bias(positions, positions)
                gaps[f"{name} bias"] = gap(bias, output[1])
            found = attended(
                parts[path], x, x if memory is None else memory, stack is ours.decoder and memory is None, bias
            )
            gaps[name] = gap(found, output[0])
    return gaps


@pytest.mark.parametrize("name", SEQ2SEQ)
@torch.no_grad()
def test_every_module_computes_what_transformers_does(name: str, tiny_seq2seq: Tinies) -> None:
    stock, folder = tiny_seq2seq(name)
    ours = load_graft(folder)
    gaps = module_gaps(stock, ours, folder)
    encoder, decoder = ours.config.encoder, ours.config.decoder
    layers = encoder.num_layers + decoder.num_layers
    norms = 2 * layers + decoder.num_layers + 2 * (decoder.final_norm + decoder.embedding_norm)
    attentions = layers + decoder.num_layers
    linears = 4 * attentions + (3 if decoder.mlp_gated else 2) * layers + 1
    assert len(gaps) == norms + attentions + linears + (layers if decoder.relative_bias else 0)
    assert {n: value for n, value in gaps.items() if value > MODULE} == {}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", SEQ2SEQ)
@torch.no_grad()
def test_states_and_logits(name: str, side: str, tiny_seq2seq: Tinies) -> None:
    """Every row, padded with the others, is what transformers says of it alone."""
    stock, folder = tiny_seq2seq(name)
    ours, b = load_graft(folder), batch(side)
    encoded = ours.encode(b.ids, b.mask, output_hidden_states=True)
    found = ours(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits
    for row in range(len(b.ids)):
        real = b.mask[row].bool()
        theirs = stock.get_encoder()(b.row(row)[None], output_hidden_states=True)
        assert gap(encoded.last_hidden_state[row][real], theirs.last_hidden_state[0]) <= WHOLE
        # Before the first layer: the module that adds positions and norms, where there is one.
        assert gap(encoded.hidden_states[0][row][real], theirs.hidden_states[0][0]) <= MODULE
        for mine, state in zip(encoded.hidden_states[:-1], theirs.hidden_states[:-1], strict=True):
            assert gap(mine[row][real], state[0]) <= WHOLE
        assert gap(found[row], row_logits(stock, b.row(row), b.target[row])) <= WHOLE


@pytest.mark.parametrize(
    ("name", "side"), [(n, s) for n, tiny in SEQ2SEQ.items() for s in (("right",) if tiny.counts_slots else SIDES)]
)
def test_loss_and_gradients(name: str, side: str, tiny_seq2seq: Tinies) -> None:
    stock, folder = tiny_seq2seq(name)
    ours, b = load_graft(folder), batch(side)
    labels = b.target.clone()
    labels[1, 4:] = labels[3, 1:] = -100
    mine = ours(input_ids=b.ids, attention_mask=b.mask, labels=labels)
    theirs = stock(input_ids=b.ids, attention_mask=b.mask, labels=labels)
    assert abs(mine.loss.item() - theirs.loss.item()) <= WHOLE
    stock.zero_grad()
    mine.loss.backward()
    theirs.loss.backward()
    found = FAMILIES[stock.config.model_type].stock_tensors(gradients(ours), ours.config)
    # The bias of the head is a constant in transformers.
    found.pop("final_logits_bias", None)
    expected = gradients(stock)
    assert found.keys() == expected.keys()
    largest = max(grad.abs().max().item() for grad in expected.values())
    for tensor, grad in expected.items():
        if "embed_tokens" in tensor or "shared" in tensor:
            # transformers keeps the padding token's row, from which Marian's targets begin, out of training.
            found[tensor][PAD] = grad[PAD]
        # What sums to about nothing, as the gradient of the keys' bias does, has no digits of its own to compare.
        scale = max(grad.abs().max().item(), 0.01 * largest)
        assert gap(found[tensor], grad) <= WHOLE * min(1.0, scale), tensor
    stock.zero_grad()


@pytest.mark.parametrize("name", SEQ2SEQ)
@torch.no_grad()
def test_cached_steps_are_the_full_pass(name: str, tiny_seq2seq: Tinies) -> None:
    stock, folder = tiny_seq2seq(name)
    ours, b = load_graft(folder), batch("both")
    encoded = ours.encode(b.ids, b.mask)
    cache, steps = None, []
    for position in range(b.target.shape[1]):
        given = b.target[:, position : position + 1]
        output = ours(
            attention_mask=b.mask,
            decoder_input_ids=given,
            encoder_outputs=encoded,
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        steps.append(output.logits[:, 0])
    for row in range(len(b.ids)):
        full = stock(input_ids=b.row(row)[None], decoder_input_ids=b.target[row][None]).logits[0]
        assert gap(torch.stack(steps, dim=1)[row], full) <= WHOLE


@pytest.mark.parametrize("beams", [1, 3], ids=["greedy", "beam"])
@pytest.mark.parametrize("name", SEQ2SEQ)
def test_generate_gives_transformers_tokens(name: str, beams: int, tiny_seq2seq: Tinies) -> None:
    """With the source's own settings, and with padding on any side."""
    stock, folder = tiny_seq2seq(name)
    ours = load_graft(folder)
    assert ours.generation_config.to_diff_dict().items() >= SEQ2SEQ[name].generation.items()
    settings = {"max_new_tokens": 10, "num_beams": beams, "num_return_sequences": beams}
    if beams == 1:
        settings["length_penalty"] = 1.0
    rows = [stock.generate(batch("right").row(row)[None], **settings) for row in range(4)]
    expected = [sequence.tolist() for row in rows for sequence in row]
    for side in SIDES:
        b = batch(side)
        found = ours.generate(input_ids=b.ids, attention_mask=b.mask, **settings).tolist()
        for mine, theirs in zip(found, expected, strict=True):
            # A batch goes on until its last row has ended.
            assert mine == theirs + [PAD] * (len(mine) - len(theirs)), side


SWITCHES = [
    ("t5", "both", {"relative_bias": None}),
    ("t5", "decoder", {"logit_scale": 1.0}),
    ("t5", "both", {"query_scale": None}),
    ("bart", "both", {"position_offset": 0}),
    ("bart", "both", {"embedding_norm": False}),
    ("bart", "both", {"norm_placement": "pre"}),
    ("bart", "decoder", {"logit_bias": False}),
    ("bart-scaled", "both", {"embedding_scale": 1.0}),
    ("mbart", "both", {"final_norm": False}),
    ("mbart", "both", {"norm_placement": "post"}),
    ("marian", "both", {"absolute_positions": None}),
    ("marian", "both", {"embedding_scale": 1.0}),
]


@pytest.mark.parametrize(("name", "part", "switch"), SWITCHES, ids=str)
@torch.no_grad()
def test_every_mechanism_changes_the_logits(name: str, part: str, switch: dict[str, Any], tiny_seq2seq: Tinies) -> None:
    """The same weights under a config without it, as far as that has a place for them."""
    ours, b = load_graft(tiny_seq2seq(name)[1]), batch("right")
    config = type(ours.config).from_dict(ours.config.to_dict())
    for side in ("encoder", "decoder") if part == "both" else (part,):
        setattr(config, side, dataclasses.replace(getattr(config, side), **switch))
    other = GraftForConditionalGeneration(config).eval()
    state = ours.state_dict()
    if "norm_placement" in switch:
        turned = ("_out_norm.", "_norm.") if switch["norm_placement"] == "pre" else ("_norm.", "_out_norm.")
        state = {n.replace(*turned) if ".layers." in n else n: tensor for n, tensor in state.items()}
    fits = {n: state[n][: p.shape[0]] for n, p in other.state_dict().items()}
    other.load_state_dict(fits, strict=True)
    logits = [m(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits for m in (ours, other)]
    assert gap(*logits) > 1000 * WHOLE


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_dropout_acts_in_training_only(name: str, tiny_seq2seq: Tinies) -> None:
    ours, b = adapt(tiny_seq2seq(name)[1]), batch("right")
    assert ours.config.decoder.residual_dropout == 0.1

    def logits() -> Tensor:
        return ours(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits.detach()

    assert gap(logits(), logits()) == 0
    ours.train()
    assert gap(logits(), logits()) > 1000 * WHOLE


@pytest.mark.parametrize("place", ["embedding", "attention", "activation", "residual", "output"])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_every_dropout_acts_alone(place: str, part: str, tiny_seq2seq: Tinies) -> None:
    ours, b = load_graft(tiny_seq2seq("t5-gated")[1]), batch("right")
    config = type(ours.config).from_dict(ours.config.to_dict())
    for side in ("encoder", "decoder"):
        none = {f"{other}_dropout": 0.0 for other in ("embedding", "attention", "activation", "residual", "output")}
        rates = none | ({f"{place}_dropout": 0.3} if side == part else {})
        setattr(config, side, dataclasses.replace(getattr(config, side), **rates))
    model = GraftForConditionalGeneration(config)
    model.load_state_dict(ours.state_dict())

    def logits() -> Tensor:
        return model(input_ids=b.ids, attention_mask=b.mask, labels=b.target).logits.detach()

    model.eval()
    still = logits()
    model.train()
    assert gap(logits(), still) > 100 * WHOLE


@pytest.mark.parametrize("name", ["bart", "mbart"])
def test_positions_end_where_the_learned_ones_do(name: str, tiny_seq2seq: Tinies) -> None:
    ours = load_graft(tiny_seq2seq(name)[1])
    fits, beyond = torch.full((1, 40), 9), torch.full((1, 41), 9)
    assert ours(input_ids=fits, decoder_input_ids=fits).logits.shape[1] == 40
    for source, target in ((beyond, fits), (fits, beyond)):
        with pytest.raises(ConfigError, match="A text has 41 tokens, but this model has only learned 40 positions"):
            ours(input_ids=source, decoder_input_ids=target)


@torch.no_grad()
def test_distances_of_t5_have_no_end(tiny_seq2seq: Tinies) -> None:
    stock, folder = tiny_seq2seq("t5")
    ids = batch("right", lengths=(300,)).ids
    target = ids[:, :200]
    found = load_graft(folder)(input_ids=ids, labels=target).logits
    assert gap(found, stock(input_ids=ids, labels=target).logits) <= WHOLE


def test_buckets_follow_positions_and_not_slots(tiny_seq2seq: Tinies) -> None:
    """A gap of padding between two tokens is no distance."""
    ours = load_graft(tiny_seq2seq("t5")[1])
    mask = torch.tensor([[1, 0, 0, 1]])
    bias = ours.encoder.relative_bias(positions_from_mask(mask), positions_from_mask(mask))
    near = torch.tensor([[0, 1]])
    assert torch.equal(bias[0, :, 0, 3], ours.encoder.relative_bias(near, near)[0, :, 0, 1])
