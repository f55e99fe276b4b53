"""Documents as examples: all of every document, once a round, and another example each round."""

import numpy as np
import pytest

from graftlm.data.mixture import Mixture
from graftlm.data.texts import Documents
from graftlm.errors import ConfigError
from graftlm.objectives.frame import Frame
from graftlm.objectives.prefix_lm import PrefixLM
from graftlm.objectives.registry import document_objective
from graftlm.objectives.span_corruption import SpanCorruption
from graftlm.objectives.text_examples import TextExamples, pieces

FRAME = Frame(source_start=(1,), target_end=(2,), sentinels=tuple(range(90, 99)), source_length=9, target_length=9)
SIZES = (40, 2, 17, 16, 33)


def documents() -> Documents:
    return Documents(np.arange(100, 100 + sum(SIZES), dtype=np.int32), np.cumsum([0, *SIZES]))


def test_every_token_is_in_one_example_of_a_round_and_eos_ends_documents_alone() -> None:
    found = TextExamples(documents(), PrefixLM(), FRAME, seed=0)
    made = [found[i].example() for i in range(len(found))]
    text = [token for example in made for token in (*example.input_ids[1:], *example.labels) if token != 2]
    # 17 tokens are a piece of 16 and one token that would be alone.
    assert sorted(text) == sorted(set(documents().ids.tolist()) - {100 + 40 + 2 + 16, 100 + sum(SIZES) - 1})
    ends = [example.labels[-2] for example in made if example.labels[-1] == 2]
    assert ends == [139, 141, 174]


def test_rounds_differ_and_each_is_the_same_again() -> None:
    found = TextExamples(documents(), SpanCorruption(rate=0.3, mean_length=1), FRAME, seed=0)
    first, second = found.renewed(0), found.renewed(1)
    assert [item.example() for item in first] == [item.example() for item in found]
    assert [item.example() for item in second] == [item.example() for item in found.renewed(1)]
    assert [item.example() for item in first] != [item.example() for item in second]
    others = TextExamples(documents(), SpanCorruption(rate=0.3, mean_length=1), FRAME, seed=1)
    assert [item.example() for item in first] != [item.example() for item in others]


def test_a_mixture_goes_through_text_anew() -> None:
    found = TextExamples(documents(), SpanCorruption(rate=0.3, mean_length=1), FRAME, seed=0)
    drawn = [item.example() for _, item in Mixture.of({"text": found}).draws(2 * len(found), seed=0)]
    rounds = [[found.renewed(epoch)[i].example() for i in range(len(found))] for epoch in (0, 1)]
    assert sorted(drawn[: len(found)]) == sorted(rounds[0])
    assert sorted(drawn[len(found) :]) == sorted(rounds[1])


def test_lengths_are_about_those_of_the_examples() -> None:
    big = Documents(np.full(4000, 7, dtype=np.int32), np.arange(0, 4001, 100))
    frame = Frame(target_end=(2,), sentinels=tuple(range(90, 99)), source_length=64, target_length=64)
    found = TextExamples(big, SpanCorruption(), frame, seed=0)
    told = np.array([item.lengths for item in found]).sum(0)
    real = np.array([[len(side) for side in item.example()[:2]] for item in found]).sum(0)
    assert np.allclose(told, real, rtol=0.05)


def test_slices_and_indices_from_the_end() -> None:
    found = TextExamples(documents(), PrefixLM(), FRAME, seed=0)
    assert found[-1].example() == found[len(found) - 1].example()
    assert [item.number for item in found[1:3]] == [1, 2]
    with pytest.raises(IndexError):
        found[len(found)]


def test_pieces_leave_out_what_cannot_be_split() -> None:
    assert pieces(Documents(np.arange(9), np.array([0, 9])), 4) == [(0, 0, 4), (0, 4, 8)]


def test_pairs_are_no_objective_on_documents() -> None:
    with pytest.raises(ConfigError, match="leave out `objective`"):
        document_objective({"name": "seq2seq"})
