"""The examples in docstrings are true."""

import doctest
from importlib import import_module

import pytest

MODULES = {
    "graftlm.adaptation.layers": 2,
    "graftlm.data.mixture": 5,
    "graftlm.data.other_sources": 1,
    "graftlm.model.mask": 3,
    "graftlm.model.position": 4,
    "graftlm.families.weight_map": 2,
    "graftlm.generation.kv_prefix": 1,
    "graftlm.objectives.distillation": 6,
    "graftlm.objectives.lengths": 2,
    "graftlm.objectives.objective": 1,
    "graftlm.objectives.pair_examples": 2,
    "graftlm.objectives.prefix_lm": 1,
    "graftlm.objectives.registry": 2,
    "graftlm.objectives.seq2seq": 1,
    "graftlm.objectives.span_corruption": 3,
    "graftlm.objectives.spans": 3,
    "graftlm.objectives.teacher_targets": 1,
    "graftlm.objectives.ul2": 3,
    "graftlm.studies.adaptation.analysis": 1,
    "graftlm.studies.outline": 1,
    "graftlm.studies.results": 1,
    "graftlm.training.lessons": 2,
}
"""Modules and how many examples they have."""


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(import_module(name))
    assert result.attempted >= MODULES[name]
    assert result.failed == 0
