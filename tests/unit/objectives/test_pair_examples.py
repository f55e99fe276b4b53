"""Pairs as documents: what a language model reads of them, whatever stands around source and target."""

import pytest

from graftlm.data.collate import Example
from graftlm.objectives.frame import Frame
from graftlm.objectives.objective import NOWHERE
from graftlm.objectives.pair_examples import PairExamples

AROUND = {"source_start": (1,), "source_end": (3,), "target_start": (4,), "target_end": (2,)}


@pytest.mark.parametrize("without", [(), ("source_start",), ("source_end", "target_start"), tuple(AROUND)], ids=str)
def test_documents_and_positions(without: tuple[str, ...]) -> None:
    """Every target token that is in the document is where its position says, and the others are the frame's."""
    frame = Frame(**{name: ids for name, ids in AROUND.items() if name not in without})  # type: ignore[arg-type]
    bare = [([10, 11, 12], [20, 21]), ([10], []), ([13], [22])]
    made = [
        Example([*frame.source_start, *s, *frame.source_end], [*frame.target_start, *t, *frame.target_end])
        for s, t in bare
    ]
    pairs = PairExamples(made, frame, "t")
    assert (len(pairs), pairs.length, pairs.start, pairs.renewed(3)) == (3, 5, frame.source_start, pairs)
    for number, (source, target) in enumerate(bare):
        document, split = pairs.documents[number].tolist(), pairs.split(number)
        assert document == source + target
        assert split.example == made[number] == pairs[number].example()
        found = [p for p in split.positions if p != NOWHERE]
        assert [document[p] for p in found] == target
        assert len(split.positions) == len(split.target)
        assert [t for t, p in zip(split.target, split.positions, strict=True) if p != NOWHERE] == target
        assert pairs.place(number) == (number, 0)
        assert (pairs[number].number, pairs[number].task) == (number, "t")
        assert pairs[number].lengths == tuple(map(len, made[number][:2]))
