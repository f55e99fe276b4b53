"""Mixtures: rates from sizes, and draws that keep them."""

import itertools
import math
from collections import Counter

import pytest

from graftlm.data.mixture import Mixture, parse_rates, sampling_rates
from graftlm.errors import ConfigError, TaskError

SIZES = {"small": 100, "middle": 900, "large": 3600}
EXAMPLES = {name: [f"{name}{i}" for i in range(size)] for name, size in SIZES.items()}


@pytest.mark.parametrize(
    ("rates", "weights"),
    [
        ("proportional", (100, 900, 3600)),
        ("sqrt", (10, 30, 60)),
        ("temperature", (100 ** (1 / 3), 900 ** (1 / 3), 3600 ** (1 / 3))),
        ("uniform", (1, 1, 1)),
        ({"large": 1, "small": 5, "middle": 2}, (5, 2, 1)),
    ],
)
def test_rates(rates: str | dict[str, float], weights: tuple[float, ...]) -> None:
    found = sampling_rates(SIZES, rates, temperature=3)
    assert list(found) == list(SIZES)
    assert list(found.values()) == pytest.approx([weight / sum(weights) for weight in weights])


@pytest.mark.parametrize(
    "rates", ["proportional", "sqrt", "temperature", "uniform", {"small": 8, "middle": 1, "large": 1}]
)
def test_realised_shares_are_the_rates(rates: str | dict[str, float]) -> None:
    number = 20_000
    mixture = Mixture.of(EXAMPLES, rates, temperature=4)
    counts = Counter(name for name, _ in mixture.draws(number, seed=0))
    # Pearson's chi-squared with two degrees of freedom exceeds 13.8 once in a thousand seeds.
    assert sum((counts[n] - number * p) ** 2 / (number * p) for n, p in mixture.rates.items()) < 13.8


def test_draws_of_tasks_are_independent_of_each_other() -> None:
    names = [name for name, _ in Mixture.of(EXAMPLES, "uniform").draws(18_000, seed=1)]
    pairs = Counter(itertools.pairwise(names))
    assert all(count == pytest.approx(2_000, abs=5 * math.sqrt(2_000)) for count in pairs.values())


def test_draws_follow_from_the_seed_and_a_longer_run_begins_with_a_shorter() -> None:
    mixture = Mixture.of(EXAMPLES)
    first = list(mixture.draws(500, seed=3))
    assert list(mixture.draws(800, seed=3))[:500] == first
    assert list(mixture.draws(500, seed=4)) != first


def test_each_epoch_of_a_task_visits_all_its_examples_once_in_another_order() -> None:
    mixture = Mixture.of({"a": list(range(10)), "b": list(range(7))}, "uniform")
    drawn = [item for name, item in mixture.draws(200, seed=0) if name == "a"]
    epochs = [drawn[i : i + 10] for i in range(0, len(drawn) - 9, 10)]
    assert len(epochs) >= 5
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_an_empty_task_is_refused() -> None:
    with pytest.raises(TaskError, match="Task b has no examples"):
        Mixture.of({"a": [1], "b": []})


@pytest.mark.parametrize(
    ("rates", "temperature", "words"),
    [
        ("square", 2, "one of proportional, sqrt, temperature, uniform"),
        ("temperature", 0.5, "at least 1"),
        ("temperature", math.nan, "at least 1"),
        ({"small": 1, "middle": 1}, 2, "the tasks are small, middle, large"),
        ({"small": 1, "middle": 1, "large": 0}, 2, "above 0"),
        ({"small": 1, "middle": 1, "large": math.nan}, 2, "above 0"),
    ],
)
def test_rates_that_cannot_be_drawn_at(rates: str | dict[str, float], temperature: float, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        sampling_rates(SIZES, rates, temperature)


def test_rates_on_the_command_line() -> None:
    assert parse_rates("a=b=2, c=0.5") == {"a=b": 2.0, "c": 0.5}
    with pytest.raises(ConfigError, match="'a=x'; write NAME=NUMBER"):
        parse_rates("b=1,a=x")
