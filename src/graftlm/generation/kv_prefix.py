"""What an encoder produces, as the key/value cache that the stock LLM continues from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from graftlm.errors import ConfigError, TaskError
from graftlm.model.decoder import Placement
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.position import positions_from_mask


@torch.no_grad()
def kv_prefix(
    model: GraftForConditionalGeneration,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    task_encoder: str | Sequence[str] | None = None,
) -> DynamicCache:
    """Cache of a batch of sources for transformers' own `generate` on the LLM that the graft was made of.

    Shapes: input_ids and attention_mask (B, S) -> per layer (B, G, n - 1, E), n the tokens of the longest source.
    Rows are laid left-padded, since stock windows count slots; call stock `generate` with the left-padded source
    (`left_padded`), its mask and this cache. A source of one token only leaves nothing to cache. `task_encoder` names
    an attached encoder, or one per row.
    Raises: ConfigError for a graft whose decoder does not continue its source and for task encoders with a decoder
    adapter, TaskError for one-token batches.
    """
    config = model.config
    if config.cross_mode != "merged" or not model.starts_with_source or not config.memory_rotary:
        raise ConfigError("kv_prefix needs a graft whose decoder continues its source, as recipe lossless makes it.")
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    input_ids, mask = left_padded(input_ids, mask)
    if input_ids.shape[1] < 2:
        raise TaskError("Sources of one token have an empty prefix; call stock generate without a cache.")
    encoded = model.encode(input_ids, mask, task_encoder=task_encoder)
    memory = encoded.memory
    assert memory is not None
    if any(adapter is not None for adapter in encoded.adapters or ()):
        raise ConfigError(
            "A decoder adapter also works on target tokens, which stock generate would decode without it."
        )
    positions = positions_from_mask(mask)
    views = model.decoder.views(
        memory[:, 0, -1:], Placement(positions=positions, valid=mask), Placement(positions=positions, valid=mask)
    )
    cache = DynamicCache()
    for layer in model.decoder.layers:
        read = memory[:, min(layer.index, memory.shape[1] - 1)]
        key, value = layer.memory_key_value(read, views[layer.layer_type])
        # The last slot holds the last source token of every row, which stock generate feeds itself.
        cache.update(key[:, :, :-1], value[:, :, :-1], layer.index)
    return cache


def left_padded(input_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The same rows with all padding moved to the left and columns without any token cut.

    >>> left_padded(torch.tensor([[5, 6, 0], [0, 7, 0]]), torch.tensor([[1, 1, 0], [0, 1, 0]]))[0].tolist()
    [[5, 6], [0, 7]]
    """
    order = torch.argsort(mask.long(), dim=1, stable=True)
    longest = int(mask.sum(1).max())
    rows, kept = input_ids.gather(1, order), mask.gather(1, order)
    return (rows * kept)[:, -longest:], kept[:, -longest:]
