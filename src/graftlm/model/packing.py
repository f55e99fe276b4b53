"""The forward pass of a packed batch: all sources in one row and all targets in another, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graftlm.errors import ConfigError
from graftlm.model.adapter import RowAdapters
from graftlm.model.decoder import Placement
from graftlm.model.grouping import SPARE, Group, alike, in_groups
from graftlm.model.linear_cross_entropy import IGNORED_LABEL, LossTerms
from graftlm.model.pretrained import GraftOutput
from graftlm.model.task_encoder import EncoderOutput

if TYPE_CHECKING:
    from graftlm.model.modeling import GraftForConditionalGeneration


def forward_packed(
    model: GraftForConditionalGeneration,
    input_ids: Tensor | None,
    labels: Tensor | None,
    source_lengths: Tensor | None,
    target_lengths: Tensor | None,
    num_items: Tensor | int | None = None,
    loss_terms: LossTerms | None = None,
    others: Sequence[object] = (),
) -> GraftOutput:
    """Loss, and logits (1, T, V) without `loss_terms`, of n examples, each as if alone, by the model's own encoder.

    Shapes: input_ids (1, S) and labels (1, T) hold the examples one after the other, source_lengths and target_lengths
    (n,) say how many tokens each of them has there. Only attention knows of examples, in groups of like
    lengths; all else runs over the row.
    `others` are the model's other inputs, which a packed batch has no place for.
    Raises: ConfigError for parts that are missing or too many, and lengths that do not add up.
    """
    if any(other is not None for other in others):
        raise ConfigError("A packed batch is input_ids, labels, source_lengths and target_lengths alone.")
    if input_ids is None or labels is None or source_lengths is None or target_lengths is None:
        raise ConfigError("A packed batch needs all of input_ids, labels, source_lengths and target_lengths.")
    sources = _lengths("source_lengths", source_lengths, "input_ids", input_ids)
    targets = _lengths("target_lengths", target_lengths, "labels", labels)
    if len(sources) != len(targets):
        raise ConfigError(f"There are {len(sources)} source_lengths and {len(targets)} target_lengths; give as many.")
    own = model.own_task_encoder
    real_sources, real_targets = _real(source_lengths), _real(target_lengths)
    spare = SPARE.get(input_ids.device.type, SPARE["cuda"])
    pairs = alike([*zip(targets, sources, strict=True)], spare)
    placed = model.place_source(real_sources.long())
    source = _in_a_row(placed, real_sources, in_groups(source_lengths, pairs))
    states = own.encoder(
        model.source_embedding(input_ids),
        torch.ones_like(input_ids),
        source.positions,
        own.encoder_adapter,
        in_groups(source_lengths, alike([(length,) for length in sources], spare)),
    )
    memory = own.bridge(states, own.encoder.output)
    ends = input_ids[0, source_lengths.cumsum(0) - 1, None]
    padded = labels.new_full(real_targets.shape, IGNORED_LABEL).masked_scatter_(real_targets, labels)
    decoder_input_ids = model.shift_right(padded, EncoderOutput(last_token=ends))
    placed = model.place_target(decoder_input_ids, real_sources.long(), None, 0)
    target = _in_a_row(placed, real_targets, in_groups(target_lengths, pairs))
    states = model.decoder(
        decoder_input_ids[real_targets][None],
        target,
        memory,
        source,
        adapters=RowAdapters((own.decoder_adapter,)),
    )
    return GraftOutput(**model.read(states[-1], labels, num_items, loss_terms)._asdict())


def _real(lengths: Tensor) -> Tensor:
    """(n,) -> (n, longest), True for what is no padding where each example has a row."""
    return torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]


def _in_a_row(placed: Placement, real: Tensor, groups: tuple[Group, ...]) -> Placement:
    """Examples that have a row each (n, longest), one after the other."""
    return Placement(positions=placed.positions[real][None], valid=placed.valid.bool()[real][None], groups=groups)


def _lengths(name: str, lengths: Tensor, what: str, ids: Tensor) -> Sequence[int]:
    numbers: list[int] = lengths.tolist()
    if len(ids) != 1 or min(numbers, default=0) < 1 or sum(numbers) != ids.shape[1]:
        raise ConfigError(
            f"{name} are {numbers} for {what} of shape {tuple(ids.shape)}; a packed batch is one row, and the lengths "
            "of its examples, each at least 1, add up to it."
        )
    return numbers
