"""Partners with other sources: all different, evenly used, fixed by the seed."""

from collections import Counter

import pytest

from graftlm.data.collate import Example
from graftlm.data.other_sources import other_sources, with_other_sources


@pytest.mark.parametrize(
    "sources",
    [
        "ab",
        "abcdefghij",
        "aabb",
        "aaabbc",
        "aabbccdde",
        "abacadae",
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_partners_are_a_permutation_into_other_sources(sources: str, seed: int) -> None:
    partners = other_sources(sources, seed)
    assert sorted(partners) == list(range(len(sources)))
    assert all(sources[i] != sources[j] for i, j in enumerate(partners))


@pytest.mark.parametrize("sources", ["aaab", "aaaaabc", "aaaaaaaabbc"])
def test_a_source_of_more_than_half_of_the_rows_shares_the_others(sources: str) -> None:
    partners = other_sources(sources)
    assert all(sources[i] != sources[j] for i, j in enumerate(partners))
    uses = Counter(partners)
    most = [uses[i] for i, source in enumerate(sources) if source != "a"]
    assert max(most) - min(most) <= 1


def test_partners_are_fixed_by_the_seed() -> None:
    assert other_sources(range(30), 1) == other_sources(range(30), 1) != other_sources(range(30), 2)


def test_every_target_gets_another_source() -> None:
    examples = [Example([i], [i]) for i in range(9)]
    mixed = with_other_sources(examples, seed=1)
    assert [example.labels for example in mixed] == [example.labels for example in examples]
    assert sorted(example.input_ids for example in mixed) == [example.input_ids for example in examples]
    assert all(example.input_ids != example.labels for example in mixed)
