"""The order of a run: the draws of the mixture, with like lengths in one batch."""

from collections import Counter

from graftlm.data.collate import Example
from graftlm.data.mixture import Mixture
from graftlm.training.order import WINDOW, training_order

EXAMPLES = {
    "short": [Example([i] * (2 + i % 5), [i]) for i in range(40)],
    "long": [Example([i] * (10 + i % 30), [i]) for i in range(60)],
}


def test_the_order_holds_the_draws_window_by_window() -> None:
    mixture = Mixture.of(EXAMPLES)
    drawn = [example for _, example in mixture.draws(40 * 4, seed=5)]
    order = training_order(mixture, 40, 4, seed=5)
    for start in range(0, len(order), WINDOW * 4):
        window = slice(start, start + WINDOW * 4)
        assert Counter(map(repr, order[window])) == Counter(map(repr, drawn[window]))


def test_padding_is_small() -> None:
    order = training_order(Mixture.of(EXAMPLES), 64, 4, seed=0)
    batches = [[len(e.input_ids) for e in order[i : i + 4]] for i in range(0, len(order), 4)]
    padded, real = sum(4 * max(batch) for batch in batches), sum(map(sum, batches))
    assert padded < 1.15 * real
    assert batches != sorted(batches)


def test_the_seed_alone_decides() -> None:
    mixture = Mixture.of(EXAMPLES)
    assert training_order(mixture, 8, 4, seed=1) == training_order(mixture, 8, 4, seed=1)
    assert training_order(mixture, 8, 4, seed=1) != training_order(mixture, 8, 4, seed=2)
