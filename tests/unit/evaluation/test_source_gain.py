"""Test loss and source gain: by hand, on a model that ignores its source, and on one that has learnt to read it."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tiny
from graftlm.data.collate import Example, Seq2SeqCollator
from graftlm.errors import TaskError
from graftlm.evaluation.loss import loss_and_source_gain, target_nats
from graftlm.model.modeling import EncoderOutput, GraftForConditionalGeneration

EXAMPLES = [
    Example([1, 5, 6, 7], [9, 2]),
    Example([1, 8], [10, 11, 12, 2]),
    Example([1, 9, 9, 9, 9, 9], [2]),
    Example([1, 10, 4], [30, 31, 32, 33, 34, 35, 2]),
    Example([1], [7, 2]),
]


class FirstToken(nn.Module):
    """Bets on the first token of the source everywhere: logit 2 for it, 0 for all the others of eight."""

    device = torch.device("cpu")
    config = SimpleNamespace(pad_token_id=0)

    def forward(self, input_ids: Tensor, labels: Tensor, use_cache: bool, **_: object) -> SimpleNamespace:
        assert use_cache is False
        logits = 2.0 * F.one_hot(input_ids[:, :1], 8).float().expand(-1, labels.shape[1], -1)
        return SimpleNamespace(nats=F.cross_entropy(logits.mT, labels, reduction="none"))


def test_loss_and_gain_by_hand() -> None:
    """A right bet costs log Z - 2 nats, a wrong one log Z; rows have 3 and 1 tokens, all right with their own source.

    With the other's source none is right, so the gain is 2 for every token.
    """
    z = torch.tensor([2.0] + [0.0] * 7).logsumexp(0).item()
    examples = [Example([5], [5, 5, 5]), Example([6, 6], [6])]
    result = loss_and_source_gain(FirstToken(), examples)  # type: ignore[arg-type]
    assert result["loss"].value == pytest.approx(z - 2)
    assert result["source_gain"].to_dict() == pytest.approx({"value": 2.0, "low": 2.0, "high": 2.0})


def test_tokens_weigh_the_same_across_rows() -> None:
    """Of 4 tokens the 3 of the first row are wrong, so the loss is (3 log Z + log Z - 2) / 4."""
    z = torch.tensor([2.0] + [0.0] * 7).logsumexp(0).item()
    examples = [Example([5], [3, 3, 3]), Example([6], [6])]
    loss = loss_and_source_gain(FirstToken(), examples)["loss"]  # type: ignore[arg-type]
    assert loss.value == pytest.approx(z - 0.5)
    assert (loss.low, loss.high) == pytest.approx((z - 2, z))


@pytest.mark.parametrize("name", tiny.GRAFTS)
def test_batches_do_not_change_losses(name: str) -> None:
    model = tiny.graft(**tiny.GRAFTS[name])
    alone = target_nats(model, EXAMPLES, batch_size=1)
    assert target_nats(model, EXAMPLES, batch_size=5) == pytest.approx(alone, abs=1e-4)
    for example, nats in zip(EXAMPLES, alone, strict=True):
        mean = model(**Seq2SeqCollator(0)([example])).loss.item()
        assert nats == pytest.approx(mean * len(example.labels), rel=1e-5)


def test_gain_of_a_model_that_ignores_its_source_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.graft(**tiny.GRAFTS["separate-bos"])
    reading = loss_and_source_gain(model, EXAMPLES)["source_gain"]
    assert abs(reading.value) > 1e-2
    encode = model.encode

    def blind(*args: Tensor, **kwargs: Tensor) -> EncoderOutput:
        output = encode(*args, **kwargs)
        assert output.memory is not None
        output.memory = torch.zeros_like(output.memory)
        return output

    monkeypatch.setattr(model, "encode", blind)
    gain = loss_and_source_gain(model, EXAMPLES)["source_gain"]
    assert gain.to_dict() == pytest.approx({"value": 0.0, "low": 0.0, "high": 0.0}, abs=1e-5)


def test_gain_of_a_model_that_has_learnt_to_copy_is_positive() -> None:
    torch.manual_seed(0)
    model = GraftForConditionalGeneration(tiny.graft(**tiny.GRAFTS["merged-source"]).config)
    examples = [Example([1, token, 3], [token, 2]) for token in range(5, 21)]
    batch = Seq2SeqCollator(0)(examples)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        model(**batch).loss.backward()
        optimiser.step()
    result = loss_and_source_gain(model, examples)
    assert result["loss"].value < 0.5
    assert result["source_gain"].low > 1.0


def test_order_of_results_is_that_of_examples() -> None:
    model = tiny.graft()
    assert target_nats(model, EXAMPLES[::-1], batch_size=2) == pytest.approx(
        target_nats(model, EXAMPLES, batch_size=2)[::-1], abs=1e-4
    )


@pytest.mark.parametrize("examples", [EXAMPLES[:1], [EXAMPLES[0], EXAMPLES[0]]])
def test_one_source_is_not_enough(examples: list[Example]) -> None:
    with pytest.raises(TaskError, match="at least two examples that differ"):
        loss_and_source_gain(tiny.graft(), examples)


def test_progress_covers_both_passes() -> None:
    calls: list[tuple[int, int]] = []
    loss_and_source_gain(tiny.graft(), EXAMPLES, batch_size=4, progress=lambda *call: calls.append(call))
    assert calls == [(4, 10), (8, 10), (10, 10)]
