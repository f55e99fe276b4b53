"""Metrics against sacrebleu's own scores and against numbers worked out by hand."""

import doctest
import math
import random
from importlib import import_module

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from graftlm.data.task import METRICS
from graftlm.evaluation.metrics import REGISTRY, SCORES
from graftlm.evaluation.metrics.bleu import bleu
from graftlm.evaluation.metrics.bootstrap import measure
from graftlm.evaluation.metrics.chrf import chrf
from graftlm.evaluation.metrics.exact_match import exact_match

WORDS = [*"abcdefghijklm", ",", "."]


def random_corpus(rows: int, most_references: int) -> tuple[list[str], list[list[str]]]:
    """Random sentences with one to `most_references` noisy references each."""
    draw = random.Random(5)
    predictions = [" ".join(draw.choices(WORDS, k=draw.randint(4, 12))) for _ in range(rows)]
    noisy = [
        [" ".join(w if draw.random() < 0.8 else draw.choice(WORDS) for w in text.split()) for _ in range(count)]
        for text, count in ((text, draw.randint(1, most_references)) for text in predictions)
    ]
    return predictions, noisy


@pytest.mark.parametrize(
    "module",
    [
        "compare",
        "metrics.bootstrap",
        "metrics.corpus",
        "metrics.mean",
        "metrics.overlap",
        "metrics.rouge_l",
        "metrics.rouge_n",
        "metrics.token_f1",
    ],
)
def test_docstring_examples(module: str) -> None:
    failed, attempted = doctest.testmod(import_module(f"graftlm.evaluation.{module}"))
    assert failed == 0
    assert attempted > 0


def test_every_name_of_the_task_format_is_implemented() -> None:
    assert set(REGISTRY) == set(SCORES) == set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_scores_of_summed_statistics_are_the_values(name: str) -> None:
    predictions, references = random_corpus(20, 3)
    ours = REGISTRY[name](predictions, references)
    assert len(ours.statistics) == 20
    sums = [sum(column) for column in zip(*ours.statistics, strict=True)]
    assert SCORES[name](sums) == pytest.approx(ours.value, rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_values_are_percentages(name: str) -> None:
    predictions, references = random_corpus(20, 3)
    among = [[*row, text] for row, text in zip(references, predictions, strict=True)]
    assert REGISTRY[name](predictions, among).value == pytest.approx(100.0)
    perfect = REGISTRY[name](predictions, [[text] for text in predictions])
    assert perfect.to_dict() == pytest.approx({"value": 100.0, "low": 100.0, "high": 100.0})


@pytest.mark.parametrize(("metric", "scorer"), [(bleu, BLEU), (chrf, CHRF)])
@pytest.mark.parametrize("most_references", [1, 4])
def test_values_and_signatures_are_sacrebleus(metric, scorer, most_references: int) -> None:  # type: ignore[no-untyped-def]
    predictions, references = random_corpus(40, most_references)
    theirs = scorer()
    streams = [[row[i] if i < len(row) else None for row in references] for i in range(most_references)]
    expected = theirs.corpus_score(predictions, streams).score
    ours = metric(predictions, references)
    assert ours.value == pytest.approx(expected, rel=1e-12)
    assert 0 < ours.low < ours.value < ours.high < 100
    assert ours.signature == str(theirs.get_signature())
    assert ("nrefs:var" in ours.signature) == (most_references > 1)


@pytest.mark.parametrize(("metric", "scorer"), [(bleu, BLEU), (chrf, CHRF)])
def test_intervals_are_those_of_rescored_texts(metric, scorer) -> None:  # type: ignore[no-untyped-def]
    """Adding up counts must give what scoring every resampled corpus from its texts gives."""
    predictions, references = random_corpus(12, 1)
    draws = np.random.default_rng(0)
    scores = []
    for _ in range(1000):
        rows = draws.integers(12, size=12)
        texts = [references[i][0] for i in rows]
        scores.append(scorer().corpus_score([predictions[i] for i in rows], [texts]).score)
    ours = metric(predictions, references)
    assert [ours.low, ours.high] == pytest.approx(np.percentile(scores, [2.5, 97.5]).tolist())


def test_bleu_by_hand() -> None:
    """Matches 5/6, 3/5, 2/4, 1/3 and equal lengths: no brevity penalty."""
    ours = bleu(["the quick brown fox jumped over"], [["the quick brown fox leaped over"]])
    assert ours.value == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


def test_bleu_brevity_penalty_goes_by_the_closest_reference() -> None:
    """Four of five tokens, all right, beside a much longer reference: exp(1 - 5/4)."""
    references = [["a b c d e", "a b c d e f g h i j"]]
    assert bleu(["a b c d"], references).value == pytest.approx(100 * math.exp(-0.25))


def test_any_reference_counts_for_bleu_and_chrf() -> None:
    predictions, references = random_corpus(5, 1)
    for metric in (bleu, chrf):
        both = metric(predictions, [[row[0], text] for text, row in zip(predictions, references, strict=True)])
        assert both.value == pytest.approx(100)


def test_exact_match_by_hand() -> None:
    predictions = ["a  b\n", "A b", "x", "yes"]
    references = [["a b"], ["a b"], ["y", "x"], ["no", "yes!"]]
    assert exact_match(predictions, references).value == 50.0
    assert exact_match(["a"], [["a"]]).to_dict() == {"value": 100.0, "low": 100.0, "high": 100.0}


def test_empty_predictions_score_nothing() -> None:
    for metric in REGISTRY.values():
        assert metric(["", ""], [["one two"], ["three"]]).value == 0.0


def test_bootstrap_of_a_mean_is_the_normal_interval() -> None:
    draws = np.random.default_rng(1).normal(3.0, 2.0, 2000)
    ours = measure([[x, 1.0] for x in draws], lambda sums: sums[0] / sums[1])
    error = 1.96 * draws.std() / math.sqrt(len(draws))
    assert ours.value == pytest.approx(draws.mean())
    assert ours.low == pytest.approx(draws.mean() - error, abs=0.02)
    assert ours.high == pytest.approx(draws.mean() + error, abs=0.02)


def test_bootstrap_is_fixed_by_its_seed() -> None:
    rows = [[x, 1.0] for x in np.random.default_rng(1).normal(size=50)]

    def bounds(seed: int) -> tuple[float, float]:
        ours = measure(rows, lambda sums: sums[0] / sums[1], seed=seed)
        return ours.low, ours.high

    assert bounds(0) == bounds(0) != bounds(1)
