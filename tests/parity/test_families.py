"""Every family against transformers' own modules: alone, together, and their gradients."""

import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

from graftlm.adaptation.adapt import adapt
from graftlm.families.donor import load_causal_lm, open_donor
from graftlm.families.registry import FAMILIES as TABLES
from graftlm.families.stock_config import complete
from graftlm.families.tensors import SINGLE, save_tensors
from graftlm.model.causal_lm import CausalLM
from graftlm.model.config import StackConfig
from graftlm.model.decoder import Decoder, Placement
from graftlm.model.kernels import _grouped_matmul, attend, linear
from graftlm.model.position import positions_from_mask
from tiny import (
    FAMILIES,
    MODULE,
    ROPE,
    ROTARY,
    SIDES,
    WHOLE,
    Batch,
    batch,
    gap,
    gradients,
    hf_config,
    rope_settings,
    stock_lm,
)

ROTARY_NAMES = tuple({tiny.names.rotary for tiny in FAMILIES.values()})
SWITCHES: dict[str, list[dict[str, Any]]] = {
    "llama": [{"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}],
    "mistral": [{"sliding_window": None}],
    "qwen2": [{"use_sliding_window": False}],
    "qwen3": [{"use_sliding_window": False}],
    "gemma": [{"attention_bias": False}],
    "gemma2": [{"attn_logit_softcapping": None}, {"final_logit_softcapping": None}, {"sliding_window": 128}],
    "gemma3_text": [
        {"final_logit_softcapping": None},
        {"sliding_window": 128},
        {"query_pre_attn_scalar": 64},
        {"rope_parameters": None},
    ],
    "smollm3": [{"no_rope_layers": [1, 1, 1, 1]}, {"sliding_window": 128}],
    "olmo2": [{"attention_bias": False}],
}

NEUTRAL = {field.name: field.default for field in dataclasses.fields(StackConfig)} | {"rotary": {}, "window": (128, 0)}


def special(family: str) -> list[str]:
    """Fields of the family's stack that are not what they are by default; rounding shows in bf16 alone."""
    raw = hf_config(family).to_dict()
    stack = TABLES[family].config.read(raw, complete(raw)).decoder
    beside = {"initializer_range", "layer_types", "norm_eps", "norm_in_fp32", "rotary_in_fp32"}
    values = {name: value for name, value in NEUTRAL.items() if value is not dataclasses.MISSING and name not in beside}
    return [name for name, value in values.items() if getattr(stack, name) not in (value, None)]


@torch.no_grad()
def stock_logits(model: PreTrainedModel, b: Batch) -> Tensor:
    """transformers, with positions that count tokens, as its own `generate` passes them."""
    return model(b.ids, attention_mask=b.mask, position_ids=positions_from_mask(b.mask)).logits


def record(stock: PreTrainedModel, b: Batch) -> dict[str, tuple[Any, Any]]:
    """What went into every module of the base model, and what came out; a layer type that was given is in the name."""
    seen: dict[str, tuple[Any, Any]] = {}

    def hook_of(name: str) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = [args[0] if args else kwargs["hidden_states"], *args[1:]]
            kinds = [argument for argument in given if isinstance(argument, str)]
            plain = output if not isinstance(output, tuple) or name.endswith(ROTARY_NAMES) else output[0]
            seen[" ".join([name, *kinds])] = given[0], plain

        return hook

    named = [(name, module) for name, module in stock.base_model.named_modules() if name]
    hooks = [module.register_forward_hook(hook_of(name), with_kwargs=True) for name, module in named]
    stock_logits(stock, b)
    for hook in hooks:
        hook.remove()
    return seen


def module_pairs(stock: PreTrainedModel, ours: CausalLM, b: Batch) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(name, ours, theirs) of every module, each fed what transformers fed its counterpart."""
    seen, names = record(stock, b), FAMILIES[stock.config.model_type].names
    positions = positions_from_mask(b.mask)
    decoder = ours.decoder
    x = seen[f"{names.layers}.0"][0]
    views = decoder.views(x, Placement(positions=positions, valid=b.mask), None)
    yield "embedding", decoder.stem(decoder.embedding(b.ids), positions), x
    for kind, view in views.items():
        if view.rotary is not None:
            own = f"{names.rotary} {kind}"
            cos, sin = seen[own if own in seen else names.rotary][1]
            yield f"{kind} cos", view.rotary.cos.squeeze(1), cos
            yield f"{kind} sin", view.rotary.sin.squeeze(1), sin
    for i, layer in enumerate(decoder.layers):
        view, prefix = views[layer.layer_type], f"{names.layers}.{i}"
        rotary = view.rotary if layer.rotated else None
        y, attended = seen[f"{prefix}.{names.attention}"]
        query, made = layer.attention.query(y, rotary), layer.attention.key_value(y, rotary)
        yield f"{prefix} attention", layer.attention(query, [made], view.mask), attended
        yield f"{prefix} norm", layer.attention_norm(seen[prefix][0]), y
        y, mixed = seen[f"{prefix}.{names.mlp}"]
        yield f"{prefix} mlp", layer.mlp(y), mixed
        yield prefix, layer(seen[prefix][0], view), seen[prefix][1]
    yield "final norm", decoder.norm(seen[names.norm][0]), seen[names.norm][1]


@torch.no_grad()
def module_gaps(stock: PreTrainedModel, ours: CausalLM, b: Batch) -> dict[str, float]:
    """Largest difference of every module over real tokens."""
    real = b.mask.bool()
    gaps = {name: gap(mine[real], theirs[real]) for name, mine, theirs in module_pairs(stock, ours, b)}
    stack = ours.config.decoder
    kinds = len(stack.rotary.keys() & set(stack.layer_types))
    assert len(gaps) == 2 + 2 * kinds + 4 * stock.config.num_hidden_layers
    return gaps


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_module_computes_what_transformers_does(family: str, side: str, tiny_lm: Any) -> None:
    stock, folder = tiny_lm(family)
    gaps = module_gaps(stock, load_causal_lm(folder), batch(side))
    assert {name: value for name, value in gaps.items() if value > MODULE} == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_in_bf16_round_where_transformers_does(family: str, tiny_lm: Any) -> None:
    """Bit for bit, but for attention: its sums run in another order."""
    stock, folder = tiny_lm(family, torch.bfloat16)
    gaps = module_gaps(stock, load_causal_lm(folder), batch("left"))
    exact = {name: value for name, value in gaps.items() if name.endswith(("embedding", "cos", "sin", "norm", "mlp"))}
    assert len(exact) > 2 * stock.config.num_hidden_layers
    assert set(exact.values()) == {0.0}


def check_logits_loss_and_gradients(stock: PreTrainedModel, ours: CausalLM, b: Batch) -> None:
    # The first token is left out: with padding before it, nothing real predicts it.
    labels = b.ids.masked_fill((b.mask == 0) | (positions_from_mask(b.mask) == 0), -100)
    mine = ours(b.ids, attention_mask=b.mask, labels=labels)
    theirs = stock(b.ids, attention_mask=b.mask, position_ids=positions_from_mask(b.mask), labels=labels)
    assert gap(mine.logits[b.mask.bool()], theirs.logits[b.mask.bool()]) <= WHOLE
    assert abs(mine.loss.item() - theirs.loss.item()) <= WHOLE
    stock.zero_grad()
    mine.loss.backward()
    theirs.loss.backward()
    found = TABLES[stock.config.model_type].stock_tensors(gradients(ours), ours.config)
    expected = gradients(stock)
    assert found.keys() == expected.keys() == dict(stock.named_parameters()).keys()
    for name, grad in expected.items():
        assert gap(found[name], grad) <= WHOLE * min(1.0, grad.abs().max().item()), name
    stock.zero_grad()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_model_and_its_gradients(family: str, side: str, tiny_lm: Any) -> None:
    stock, folder = tiny_lm(family)
    check_logits_loss_and_gradients(stock, load_causal_lm(folder), batch(side))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("family", "heads"), [(f, heads) for f, tiny in FAMILIES.items() for heads in tiny.kv_heads])
def test_any_key_value_heads_and_output_tables(family: str, heads: int | None, tied: bool, tiny_lm: Any) -> None:
    """The language model alone, and as a lossless graft."""
    settings = {} if heads is None else {"num_key_value_heads": heads}
    stock, folder = tiny_lm(family, tie_word_embeddings=tied, **settings)
    ours = load_causal_lm(folder)
    assert heads in (None, ours.config.decoder.num_kv_heads)
    assert (ours.lm_head.weight is ours.decoder.embedding.weight) == tied
    check_logits_loss_and_gradients(stock, ours, batch("both"))
    b = batch("left", lengths=(14, 14))
    with torch.no_grad():
        found = adapt(folder)(input_ids=b.ids, labels=b.target).logits
        assert gap(found, stock(torch.cat((b.ids, b.target[:, :-1]), dim=1)).logits[:, 13:]) <= WHOLE


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_there_and_back(family: str, dtype: torch.dtype, tied: bool, tiny_lm: Any, tmp_path: Path) -> None:
    """What transformers saved, in our terms and back, is the same bytes under the same names, and it loads them."""
    stock, folder = tiny_lm(family, dtype, tie_word_embeddings=tied)
    donor = open_donor(folder)
    written = donor.family.stock_tensors({name: donor.read(name) for name in donor.shapes}, donor.config)
    stored = load_file(folder / SINGLE)
    assert written.keys() == stored.keys()
    for name, tensor in stored.items():
        assert (written[name].dtype, written[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(written[name].contiguous().view(torch.uint8), tensor.view(torch.uint8)), name
    save_tensors(written, tmp_path / SINGLE)
    (tmp_path / "config.json").write_text(json.dumps(donor.family.stock_config(donor.config)))
    again = type(stock).from_pretrained(tmp_path, dtype=dtype, attn_implementation="eager")
    assert torch.equal(stock_logits(again, batch("left")), stock_logits(stock, batch("left")))


@pytest.mark.parametrize(("family", "switch"), [(f, s) for f, switches in SWITCHES.items() for s in switches], ids=str)
def test_every_mechanism_changes_the_logits(family: str, switch: dict[str, Any], tiny_lm: Any) -> None:
    """Without this, parity could hold with a mechanism that does nothing."""
    b = batch("right", lengths=(24, 14))
    usual, without = (stock_logits(tiny_lm(family, **overrides)[0], b) for overrides in ({}, switch))
    assert gap(usual, without) > 1000 * WHOLE


@pytest.mark.parametrize(("family", "field"), [(f, name) for f in FAMILIES for name in special(f)])
@torch.no_grad()
def test_every_value_that_a_family_gives_a_stack_changes_the_logits(family: str, field: str, tiny_lm: Any) -> None:
    ours, b = load_causal_lm(tiny_lm(family)[1]), batch("right", lengths=(24, 14))
    without = CausalLM(copy.deepcopy(ours.config))
    without.decoder = Decoder(dataclasses.replace(ours.config.decoder, **{field: NEUTRAL[field]}))
    held = {name: tuple(tensor.shape) for name, tensor in without.state_dict().items()}
    fitting = {name: t for name, t in ours.state_dict().items() if held.get(name) == tuple(t.shape)}
    without.eval().load_state_dict(fitting, strict=False)
    assert gap(ours(b.ids, b.mask).logits, without(b.ids, b.mask).logits) > 1000 * WHOLE


@pytest.mark.parametrize("length", [12, 40])
@pytest.mark.parametrize("kind", ROPE)
@pytest.mark.parametrize("family", ROTARY)
def test_rope_scalings(family: str, kind: str, length: int, tiny_lm: Any) -> None:
    """Below and beyond the length that `dynamic` and `longrope` change their frequencies at."""
    settings = rope_settings(family, kind)
    # A new model: transformers' keeps the frequencies of the longest sequence that it has seen.
    stock, (_, folder) = stock_lm(family, **settings), tiny_lm(family, **settings)
    plain = stock_lm(family, rope_parameters=None)
    b = batch("left", lengths=(length, 9))
    expected = stock_logits(stock, b)
    with torch.no_grad():
        found = load_causal_lm(folder)(b.ids, attention_mask=b.mask).logits
    assert gap(found[b.mask.bool()], expected[b.mask.bool()]) <= WHOLE
    if not (kind == "dynamic" and length < settings["max_position_embeddings"]):
        assert gap(stock_logits(plain, b), expected) > 1000 * WHOLE


def qkv(groups: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(groups)
    query = torch.randn(3, 4, 7, 8, generator=generator)
    key, value = torch.randn(2, 3, groups, 11, 8, generator=generator)
    mask = torch.rand(3, 1, 7, 11, generator=generator) > 0.4
    mask[0, :, 2] = mask[2, :, 6] = False
    return query.to(dtype), key.to(dtype), value.to(dtype), mask


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_fused_attention_equals_grouped_products(groups: int) -> None:
    query, key, value, mask = qkv(groups, torch.float32)
    fused = attend(query, key, value, mask, scale=0.5)
    grouped = _grouped_matmul(query, key, value, mask, 0.5, None, 0.0)
    assert gap(fused, grouped) <= MODULE
    for output in (fused, grouped):
        assert output[0, :, 2].abs().max() == output[2, :, 6].abs().max() == 0
        assert (output.abs().amax(-1) > 0).sum() == output[..., 0].numel() - 2 * 4


@pytest.mark.parametrize("softcap", [None, 1.0])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_attention_in_bf16_is_as_exact_as_eager(groups: int, softcap: float | None) -> None:
    query, key, value, mask = qkv(groups, torch.bfloat16)
    module = torch.nn.Module()
    module.num_key_value_groups, module.head_dim = 4 // groups, 8
    bias = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)

    def eager(dtype: torch.dtype) -> Tensor:
        tensors = (tensor.to(dtype) for tensor in (query, key, value))
        output, _ = eager_attention_forward(module, *tensors, bias.to(dtype), scaling=0.5, softcap=softcap)
        return output.transpose(1, 2)

    sees = mask.any(-1).expand(3, 4, 7)
    found = attend(query, key, value, mask, scale=0.5, softcap=softcap)
    assert found.dtype == torch.bfloat16
    assert gap(found[sees], eager(torch.bfloat16)[sees]) <= 4 * torch.finfo(torch.bfloat16).eps
    exact = eager(torch.float32)[sees]
    assert gap(found[sees], exact) <= 1.5 * gap(eager(torch.bfloat16)[sees], exact)
    assert found[~sees].abs().max() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_models_agree_to_its_precision(family: str, tiny_lm: Any) -> None:
    """Both err from fp32 by their rounding; ours by no more than half as much again."""
    stock, folder = tiny_lm(family, torch.bfloat16)
    b = batch("left")
    with torch.no_grad():
        found, exact = (load_causal_lm(folder, dtype)(b.ids, b.mask).logits for dtype in (None, torch.float32))
    assert found.dtype == torch.bfloat16
    real = b.mask.bool()
    assert gap(found[real], exact[real]) <= 1.5 * gap(stock_logits(stock, b)[real], exact[real])


@pytest.mark.parametrize("trained", ["x", "weight", "bias"])
def test_linear_maps_are_differentiable_in_every_part(trained: str) -> None:
    """Whichever part alone is trained: the kernel for inference has no backward."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (2, 5, 16), "weight": (4, 16), "bias": (4,)}
    parts = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    inference = linear(**parts)
    parts[trained].requires_grad_()
    output = linear(**parts)
    assert gap(inference, output) <= MODULE
    output.square().sum().backward()
    found, parts[trained].grad = parts[trained].grad, None
    torch.nn.functional.linear(parts["x"], parts["weight"], parts["bias"]).square().sum().backward()
    assert found is not None
    assert torch.equal(found, parts[trained].grad)
