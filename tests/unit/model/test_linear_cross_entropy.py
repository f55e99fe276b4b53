"""The loss in chunks against the plain one, in value, gradients and memory."""

import dataclasses
from collections.abc import Sequence
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from graftlm.errors import ConfigError
from graftlm.model import kernels
from graftlm.model import linear_cross_entropy as chunked
from graftlm.model.linear_cross_entropy import LossTerms, Teacher, linear_cross_entropy
from tiny import GRAFTS, batch, gap, gradients, graft, stack

WIDTH, VOCABULARY = 6, 50


def plain(
    states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float | None, terms: LossTerms
) -> Tensor:
    """Loss of every row, as the formula has it."""
    logits = F.linear(states, weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    loss = F.cross_entropy(logits, labels, reduction="none", label_smoothing=terms.label_smoothing)
    if terms.teacher is not None:
        share, heat = terms.teacher.weight, terms.teacher.temperature
        wanted = terms.teacher.probabilities.to(logits.dtype)
        wanted = wanted / wanted.sum(-1, keepdim=True)
        dense = torch.zeros_like(logits).scatter_add(-1, terms.teacher.ids, wanted)
        soft = F.cross_entropy(logits / heat, dense, reduction="none")
        loss = (1 - share) * loss + share * heat**2 * soft
    return (loss + terms.z_loss * logits.logsumexp(-1) ** 2) * (labels != -100)


def parts(rows: int, dtype: torch.dtype, biased: bool = True, seed: int = 0) -> list[Tensor]:
    """States, weight and bias that take gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,)][: 3 if biased else 2]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def labels_of(rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(VOCABULARY, (rows,), generator=generator)
    return labels.where(torch.rand(rows, generator=generator) < 0.7, -100)


def sizes(product: int, softmax: int) -> Any:
    """Rows whose logits, and whose probabilities, are made at a time."""
    rows = {"PRODUCT": product, "TRAINED_PRODUCT": product, "SOFTMAX": softmax}
    return mock.patch.multiple(chunked, **{name: {"cpu": n * VOCABULARY, "cuda": 0} for name, n in rows.items()})


@st.composite
def teachers(draw: st.DrawFn, rows: int) -> Teacher | None:
    count = draw(st.sampled_from([0, 1, 4, VOCABULARY]))
    if count == 0:
        return None
    every = torch.arange(VOCABULARY).expand(rows, -1)
    ids = every if count == VOCABULARY else torch.randint(VOCABULARY, (rows, count))
    weight, temperature = draw(st.sampled_from([0.3, 1.0])), draw(st.sampled_from([1.0, 2.5]))
    return Teacher(ids=ids, probabilities=torch.rand(rows, count) + 0.1, weight=weight, temperature=temperature)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rows=st.integers(1, 11), seed=st.integers(0, 99))
def test_value_and_gradients_of_every_combination(data: st.DataObject, rows: int, seed: int) -> None:
    given = parts(rows, torch.float64, data.draw(st.booleans(), "bias"), seed)
    labels = labels_of(rows, seed)
    torch.manual_seed(seed)
    terms = LossTerms(
        label_smoothing=data.draw(st.sampled_from([0.0, 0.1]), "smoothing"),
        z_loss=data.draw(st.sampled_from([0.0, 1e-2]), "z"),
        teacher=data.draw(teachers(rows), "teacher"),
    )
    softcap = data.draw(st.sampled_from([None, 3.0]), "softcap")
    trains = data.draw(st.lists(st.booleans(), min_size=len(given), max_size=len(given)).filter(any), "trains")
    for part, train in zip(given, trains, strict=True):
        part.requires_grad_(train)
    weight, bias = given[1], given[2] if len(given) > 2 else None
    with sizes(data.draw(st.integers(1, 12), "product"), data.draw(st.integers(1, 12), "softmax")):
        found = linear_cross_entropy(given[0], weight, bias, labels, softcap=softcap, terms=terms)
    expected = plain(given[0], weight, bias, labels, softcap, terms)
    assert found.total.dtype == torch.float64
    assert (found.total - expected.sum()).abs() <= 1e-11
    assert (found.rows - expected).abs().max() <= 1e-11
    assert not found.rows.requires_grad
    wanted = [part for part in given if part.requires_grad]
    mine, theirs = (torch.autograd.grad(3 * loss, wanted) for loss in (found.total, expected.sum()))
    for ours, exact in zip(mine, theirs, strict=True):
        assert (ours - exact).abs().max() <= 1e-11


@pytest.mark.parametrize("emulated", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("dtype", "held"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)], ids=["fp32", "bf16"])
def test_narrow_types(
    dtype: torch.dtype, held: float, autocast: bool, emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No further from fp64 than the plain loss of the same type, rounding apart, and at most `held` of the largest."""
    monkeypatch.setattr(kernels, "_emulates_bf16", lambda: emulated)
    monkeypatch.setattr(chunked, "WIDE_BLOCK", 7)
    rows, terms = 200, LossTerms(label_smoothing=0.1, z_loss=1e-3)
    given, labels = parts(rows, dtype), labels_of(rows)
    exact = [part.detach().double().requires_grad_() for part in given]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), sizes(16, 3):
        found = linear_cross_entropy(*given, labels, softcap=5.0, terms=terms).total
        stock = plain(*given, labels, 5.0, terms).sum()
    expected = plain(*exact, labels, 5.0, terms).sum()
    assert found.dtype == torch.float32
    held = 0.03 if autocast else held
    results = [torch.autograd.grad(loss, of) for loss, of in ((found, given), (stock, given), (expected, exact))]
    values = zip(*([loss[None], *grads] for loss, grads in zip((found, stock, expected), results, strict=True)))  # noqa: B905
    for ours, theirs, truth in values:
        assert ours.dtype == theirs.dtype
        largest = truth.abs().max()
        assert gap(ours, truth) <= held * largest
        assert gap(ours, truth) <= 1.5 * gap(theirs, truth) + 2 * torch.finfo(ours.dtype).eps * largest


def test_rows_that_do_not_count_have_no_part() -> None:
    given = parts(5, torch.float32)
    labels = torch.full((5,), -100)
    found = linear_cross_entropy(*given, labels)
    assert found.total.item() == 0
    assert not found.rows.any()
    for grad, part in zip(torch.autograd.grad(found.total, given), given, strict=True):
        assert grad.shape == part.shape
        assert not grad.any()
    with torch.no_grad():
        given[0][3] = float("nan")
    labels[1] = 7
    grads = torch.autograd.grad(linear_cross_entropy(*given, labels).total, given)
    assert all(grad.isfinite().all() for grad in grads)
    assert grads[0].any(-1).tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("softcap", [None, 30.0])
def test_extreme_logits_stay_finite(softcap: float | None) -> None:
    states = torch.tensor([[1e4], [-1e4], [3e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0], [0.5]], requires_grad=True)
    bias = torch.tensor([0.0, 0.0, 0.0, float("-inf")])
    labels = torch.tensor([1, 1, 2])
    found = linear_cross_entropy(states, weight, bias, labels, softcap=softcap).total
    expected = plain(states, weight, bias, labels, softcap, LossTerms()).sum()
    assert expected.isfinite()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(*(torch.autograd.grad(loss, (states, weight)) for loss in (found, expected)), strict=True):
        assert gap(ours, theirs) <= 1e-6 * max(1.0, theirs.abs().max().item())


def test_backward_can_run_again() -> None:
    given, labels = parts(9, torch.float64), labels_of(9)
    total = linear_cross_entropy(*given, labels).total
    first, second = (torch.autograd.grad(total, given, retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


class Made(TorchDispatchMode):
    """Sizes of the storages that operators make, in elements."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self._given = {part.untyped_storage().data_ptr() for part in given}
        self.sizes: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self._given:
                self.sizes.add(tensor.untyped_storage().nbytes() // tensor.element_size())
        return output


@pytest.mark.parametrize("trains", ["states", "head", "nothing"])
def test_no_tensor_as_large_as_the_logits(trains: str) -> None:
    """With 90 rows, 8 at a time; a head that is frozen has no gradient anywhere."""
    rows, at_once = 90, 8
    given, labels = parts(rows, torch.float32), torch.arange(rows) % VOCABULARY
    for part, train in zip(given, (trains != "nothing", trains == "head", trains == "head"), strict=True):
        part.requires_grad_(train)
    terms = LossTerms(label_smoothing=0.1, teacher=Teacher(ids=labels[:, None], probabilities=torch.ones(rows, 1)))
    with sizes(at_once, at_once), Made(given) as made:
        total = linear_cross_entropy(*given, labels, softcap=5.0, terms=terms).total
        if trains != "nothing":
            total.backward()
    assert max(made.sizes) <= max(at_once * VOCABULARY, rows * WIDTH)
    assert (VOCABULARY * WIDTH in made.sizes) == (trains == "head")
    with Made(given) as made:
        plain(*given, labels, 5.0, terms)
    assert max(made.sizes) >= rows * VOCABULARY


def steps(name: str, **given: Any) -> tuple[Any, dict[str, Tensor]]:
    """Output and gradients of a graft with caps, a head bias and a scale."""
    decoder = stack(logit_softcap=2.0, logit_scale=0.7, logit_bias=True)
    model = graft(**GRAFTS[name] | {"decoder": decoder})
    with torch.no_grad():
        model.lm_head.bias.copy_(torch.linspace(-1, 1, 40))
    b = batch("left", vocabulary=40, lengths=(14, 9, 1))
    labels = b.target.where(torch.arange(9) < torch.tensor([[9], [4], [1]]), -100)
    output = model(input_ids=b.ids, attention_mask=b.mask, labels=labels, **given)
    output.loss.backward()
    return output, gradients(model)


@pytest.mark.parametrize("num_items", [None, 31])
@pytest.mark.parametrize("name", GRAFTS)
def test_a_model_without_logits(name: str, num_items: int | None) -> None:
    """Tied head included: the same loss and the same gradients, with all logits and without them."""
    whole, expected = steps(name, num_items_in_batch=num_items)
    with sizes(2, 1):
        lean, found = steps(name, num_items_in_batch=num_items, loss_terms=LossTerms())
    assert whole.logits is not None
    assert lean.logits is None
    assert abs(lean.loss.item() - whole.loss.item()) <= 1e-6
    assert abs(lean.nats.sum().item() / (num_items or 14) - whole.loss.item()) <= 1e-6
    assert found.keys() == expected.keys()
    assert "lm_head.bias" in found
    for parameter, gradient in found.items():
        assert gap(gradient, expected[parameter]) <= 1e-6 * max(1.0, expected[parameter].abs().max()), parameter


def test_a_model_learns_from_a_teacher() -> None:
    """Ids and probabilities come by row and target token; the labels' part is left as it is."""
    ids, probabilities = torch.randint(40, (3, 9, 4)), torch.rand(3, 9, 4)
    teacher = Teacher(ids=ids, probabilities=probabilities, weight=0.25, temperature=2.0)
    whole, _ = steps("merged-source")
    lean, found = steps("merged-source", loss_terms=LossTerms(teacher=teacher))
    counted = lean.nats != 0
    wanted = probabilities / probabilities.sum(-1, keepdim=True)
    soft = -(wanted * (whole.logits / 2).log_softmax(-1).gather(-1, ids)).sum(-1)[counted].mean()
    assert abs(lean.loss.item() - (0.75 * whole.loss + 0.25 * 4 * soft).item()) <= 1e-5
    alone, _ = steps("merged-source", loss_terms=LossTerms(teacher=dataclasses.replace(teacher, weight=0.0)))
    assert abs(alone.loss.item() - whole.loss.item()) <= 1e-6
    assert all(gradient.isfinite().all() for gradient in found.values())


def test_a_wrapped_head_is_refused() -> None:
    model = graft()
    model.lm_head = nn.Sequential(model.lm_head)
    ids = torch.tensor([[5, 6]])
    with pytest.raises(ConfigError, match="head is wrapped"):
        model(input_ids=ids, labels=ids, loss_terms=LossTerms())
