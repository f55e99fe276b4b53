"""bf16 products that are made in fp32, and what linear maps keep for backward."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graftlm.model import kernels
from graftlm.model.kernels import attend, linear
from tiny import GRAFTS, batch, gap, graft


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without bf16 instructions, and blocks so small that there are several, the last one short."""
    monkeypatch.setattr(kernels, "_emulates_bf16", lambda: True)
    monkeypatch.setattr(kernels, "WIDE_BLOCK", 5)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("biased", [False, True])
def test_a_wide_linear_map(biased: bool) -> None:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*shape).bfloat16().requires_grad_() for shape in ((4, 9, 6), (13, 6), (13,)))
    parts = (x, weight, bias) if biased else (x, weight)
    found = linear(x, weight, bias if biased else None)
    assert "WideLinear" in type(found.grad_fn).__name__
    expected = F.linear(x.float(), weight.float(), bias.float() if biased else None)
    assert torch.equal(found, expected.bfloat16())
    grad = torch.randn(4, 9, 13).bfloat16()
    mine = torch.autograd.grad(found, parts, grad)
    theirs = torch.autograd.grad(expected, parts, grad.float())
    for ours, exact in zip(mine, theirs, strict=True):
        assert ours.dtype == torch.bfloat16
        assert gap(ours, exact) <= 2**-8 * exact.abs().max()


@pytest.mark.usefixtures("emulated")
def test_inference_rounds_as_ever() -> None:
    x, weight = torch.randn(40, 6).bfloat16(), torch.randn(13, 6).bfloat16()
    with torch.no_grad():
        assert torch.equal(linear(x, weight, None), F.linear(x, weight))


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_wide_attention(softcap: float | None) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, 6, 8).bfloat16().requires_grad_() for heads in (4, 2, 2))
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    mask[1] = False
    found = attend(query.repeat(1, 1, 6, 1), key, value, mask.repeat(1, 1, 6, 1), scale=0.3, softcap=softcap)
    wide = (part.detach().float() for part in (query, key, value))
    query_, key_, value_ = wide
    expected = attend(query_.repeat(1, 1, 6, 1), key_, value_, mask.repeat(1, 1, 6, 1), scale=0.3, softcap=softcap)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    found.sum().backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in (query, key, value))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("emulate", [False, True])
def test_frozen_maps_keep_no_inputs(precision: torch.dtype, emulate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a weight's gradient needs what the map was given; the product inside the MLP has no other use."""
    monkeypatch.setattr(kernels, "_emulates_bf16", lambda: emulate)
    model = graft(**GRAFTS["separate-bos"]).to(precision).train()
    assert kept_inputs(model) == {"encoder", "decoder"}
    for part in (model.decoder, model.lm_head):
        part.requires_grad_(False)
    assert kept_inputs(model) == {"encoder"}
    assert all((p.grad is not None) == name.startswith("encoder.") for name, p in model.named_parameters())


def kept_inputs(model: torch.nn.Module) -> set[str]:
    """Stacks in which a step keeps the inputs of the MLPs' last maps."""
    given: dict[int, str] = {}
    inputs: list[Tensor] = []  # Kept alive, so that no address is used twice.
    kept: set[int] = set()

    def pack(tensor: Tensor) -> Tensor:
        inputs.append(tensor)
        kept.add(tensor.data_ptr())
        return tensor

    hooks = []
    for stack in ("encoder", "decoder"):
        for layer in getattr(model, stack).layers:

            def note(module: torch.nn.Module, args: tuple[Tensor, ...], stack: str = stack) -> None:
                inputs.append(args[0])
                given[args[0].data_ptr()] = stack

            hooks.append(layer.mlp.down_proj.register_forward_pre_hook(note))
    b = batch("both", vocabulary=40, lengths=(14, 9, 1, 5, 7))
    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=b.ids, attention_mask=b.mask, labels=b.target).loss.backward()
    for hook in hooks:
        hook.remove()
    assert len(given) == len(hooks)
    return {stack for address, stack in given.items() if address in kept}
