"""One task's side of the model, and batches whose rows belong to different tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from graftlm.errors import ConfigError
from graftlm.model.adapter import Adapter
from graftlm.model.bridge import Bridge
from graftlm.model.embedding import Embedding
from graftlm.model.encoder import Encoder
from graftlm.model.position import last_token_mask, positions_from_mask


@dataclass
class EncoderOutput(ModelOutput):
    """What the decoder needs of a source; computed once, expandable row by row for beams."""

    last_hidden_state: Tensor | None = None
    """Last state of the encoder, normed where the stack has a final norm; (B, S, D)."""
    memory: Tensor | None = None
    """(B, M, S, D), M = 1 where all decoder layers read the same."""
    last_token: Tensor | None = None
    """Last real source token of each row; (B, 1)."""
    hidden_states: tuple[Tensor, ...] | None = None
    adapters: tuple[Adapter | None, ...] | None = None
    """Decoder adapters of the batch, None for none."""
    adapter_rows: Tensor | None = None
    """Which of them each row has, (B,); None where all rows have the only one."""


@dataclass(frozen=True)
class TaskEncoder:
    """Encoder and bridge of one task, and what stands beside the encoder's and the decoder's linear maps for it.

    The encoder reads its own embedding if it has one, else the decoder's.
    """

    encoder: Encoder
    bridge: Bridge
    encoder_adapter: Adapter | None = None
    decoder_adapter: Adapter | None = None

    def __call__(
        self, shared: Embedding, input_ids: Tensor, mask: Tensor, output_hidden_states: bool = False
    ) -> EncoderOutput:
        """Run encoder and bridge. Shapes: input_ids and mask (B, S); `shared` is the decoder's table."""
        embedding = getattr(self.encoder, "embedding", shared)
        states = self.encoder(embedding(input_ids), mask, positions_from_mask(mask), self.encoder_adapter)
        return EncoderOutput(
            last_hidden_state=self.encoder.output(states[-1]),
            memory=self.bridge(states, self.encoder.output),
            last_token=(input_ids * last_token_mask(mask)).sum(-1, keepdim=True),
            hidden_states=tuple(states) if output_hidden_states else None,
            adapters=(self.decoder_adapter,),
        )

    def modules(self) -> list[nn.Module]:
        """Its parts, to move or to switch them together."""
        parts = (self.encoder, self.bridge, self.encoder_adapter, self.decoder_adapter)
        return [part for part in parts if part is not None]


def encode_rows(
    encoders: Mapping[str, TaskEncoder], names: Sequence[str], shared: Embedding, input_ids: Tensor, mask: Tensor
) -> EncoderOutput:
    """Each row by the task encoder that `names` gives for it; rows of one task run together.

    Raises: ConfigError for a name that is not attached, or another number of names than rows.
    """
    if len(names) != len(input_ids):
        raise ConfigError(f"task_encoder has {len(names)} names for {len(input_ids)} rows; give one per row.")
    unknown = sorted(set(names) - encoders.keys())
    if unknown:
        known = ", ".join(encoders) or "none"
        raise ConfigError(f"No task encoder {', '.join(map(repr, unknown))} is attached (attached: {known}); add it.")
    groups = {name: [i for i, other in enumerate(names) if other == name] for name in dict.fromkeys(names)}
    parts = [encoders[name](shared, input_ids[rows], mask[rows]) for name, rows in groups.items()]
    order = torch.tensor([i for rows in groups.values() for i in rows], device=input_ids.device).argsort()
    group_of = {name: number for number, name in enumerate(groups)}
    # A bridge that gives all decoder layers one memory may stand beside one that gives each its own.
    most = max(_memory(part).shape[1] for part in parts)
    return EncoderOutput(
        last_hidden_state=torch.cat([part[0] for part in parts])[order],
        memory=torch.cat([_spread(_memory(part), most) for part in parts])[order],
        last_token=torch.cat([_last_token(part) for part in parts])[order],
        adapters=tuple(encoders[name].decoder_adapter for name in groups),
        adapter_rows=torch.tensor([group_of[name] for name in names], device=input_ids.device),
    )


def _spread(memory: Tensor, layers: int) -> Tensor:
    return memory.expand(-1, layers, -1, -1) if memory.shape[1] == 1 else memory


def _memory(output: EncoderOutput) -> Tensor:
    assert output.memory is not None
    return output.memory


def _last_token(output: EncoderOutput) -> Tensor:
    assert output.last_token is not None
    return output.last_token
