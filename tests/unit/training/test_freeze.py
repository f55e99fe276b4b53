"""The freeze plan: which tensors train, and that nothing is computed for the others."""

from collections.abc import Iterator

import pytest
import torch
from rich.console import Console

import tiny
from graftlm.errors import ConfigError
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.training.freeze import freeze


def trained(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def names(model: torch.nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


def nodes(node: object) -> Iterator[object]:
    """Every node of the graph that a backward pass would walk."""
    seen, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [parent for parent, _ in node.next_functions]  # type: ignore[attr-defined]


def separate() -> GraftForConditionalGeneration:
    return tiny.graft(**tiny.GRAFTS["separate-bos"] | {"tie_word_embeddings": False})


def test_none_trains_everything() -> None:
    model = tiny.graft()
    plan = freeze(model, "none")
    assert plan.frozen == 0
    assert plan.trainable == sum(p.numel() for p in model.parameters())
    assert not plan.keeps_decoder


@pytest.mark.parametrize("settings", tiny.GRAFTS.values(), ids=tiny.GRAFTS)
def test_decoder_is_all_that_tasks_share(settings: dict) -> None:
    model = tiny.graft(**settings)
    plan = freeze(model, "decoder")
    assert trained(model) == plan.trained == names(model, "encoder.", "bridge.")
    assert plan.keeps_decoder


def test_groups_globs_and_exceptions() -> None:
    model = separate()
    assert not freeze(model, "decoder,!cross_attention").keeps_decoder
    cross = {name for name in names(model, "decoder.") if "cross_attention" in name}
    assert cross
    assert trained(model) == names(model, "encoder.") | cross
    assert freeze(model, "decoder, head, encoder.layers.0.*").keeps_decoder
    assert trained(model) == names(model, "encoder.") - names(model, "encoder.layers.0.")
    freeze(model, "embeddings")
    everything = names(model, "")
    assert everything - trained(model) == {"encoder.embedding.weight", "decoder.embedding.weight"}
    freeze(model, "*,!head")
    assert trained(model) == {"lm_head.weight"}


def test_the_plan_counts_every_tensor_once() -> None:
    model = separate()
    plan = freeze(model, "decoder,!decoder.layers.0.*")
    assert [(row.group, row.trains) for row in plan.rows] == [
        ("head", False),
        ("embeddings", False),
        ("embeddings", True),
        ("cross_attention", False),
        ("cross_attention", True),
        ("encoder", True),
        ("decoder", False),
        ("decoder", True),
    ]
    assert sum(row.tensors for row in plan.rows) == len(list(model.parameters()))
    assert plan.trainable + plan.frozen == sum(p.numel() for p in model.parameters())
    console = Console(width=80)
    with console.capture() as captured:
        console.print(plan.table())
    assert "cross_attention" in captured.get()


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("head", "'head', which matches no tensor of this model; its groups are embeddings, encoder, decoder"),
        ("decoder,layers", "'layers'"),
        ("decoder,", "''"),
        ("none,decoder", "'none'"),
        ("encoder,decoder", "nothing to train"),
    ],
)
def test_choices_that_cannot_be_used_change_nothing(choice: str, words: str) -> None:
    model = tiny.graft()
    before = trained(model)
    with pytest.raises(ConfigError, match=words):
        freeze(model, choice)
    assert trained(model) == before


@pytest.mark.parametrize("settings", tiny.GRAFTS.values(), ids=tiny.GRAFTS)
def test_gradients_of_frozen_parts_are_neither_computed_nor_stored(settings: dict) -> None:
    model = tiny.graft(**settings)
    freeze(model, "decoder")
    batch = tiny.batch("both", vocabulary=40)
    loss = model(input_ids=batch.ids, attention_mask=batch.mask, labels=batch.target).loss
    reached = {id(node.variable) for node in nodes(loss.grad_fn) if hasattr(node, "variable")}
    allowed = {id(p) for p in model.parameters() if p.requires_grad}
    assert reached
    assert reached <= allowed
    loss.backward()
    assert set(tiny.gradients(model)) <= trained(model)
    # The decoder's inputs come from its frozen table: no gradient flows into their embedding either.
    assert not model.decoder.embedding(batch.target).requires_grad
