"""Decodes one batch of sequences, whatever their tasks."""

from __future__ import annotations

import torch
from torch import Tensor

from graftlm.data.collate import pad
from graftlm.data.tokenizers import Tokenizers
from graftlm.generation.inference import inference
from graftlm.generation.text import start_id, stop_ids
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.task_encoder import EncoderOutput, encode_rows
from graftlm.serving.sequence import Sequence


class Runner:
    """Encodes each source once by its own task encoder, then decodes all of them token by token."""

    def __init__(self, model: GraftForConditionalGeneration, tokenizers: Tokenizers) -> None:
        self._model = model
        self._ends = frozenset(stop_ids(model, tokenizers))
        self._padding = tokenizers.source_pad_id

    def run(self, batch: list[Sequence]) -> None:
        """Decode until every sequence is done; what one row gets does not depend on the others."""
        with inference(self._model):
            ids, mask = self._sources(batch)
            encoded = self._encode(batch, ids, mask)
            tokens = written = self._first(encoded)
            cache = None
            while not all(sequence.done for sequence in batch):
                output = self._model(
                    encoder_outputs=encoded,
                    attention_mask=mask,
                    decoder_input_ids=tokens,
                    past_key_values=cache,
                    use_cache=True,
                )
                cache = output.past_key_values
                tokens = _choose(batch, written, output.logits[:, -1].float())
                written = torch.cat((written, tokens), dim=1)
                for sequence, token in zip(batch, tokens.flatten().tolist(), strict=True):
                    self._hand_out(sequence, token)

    def _sources(self, batch: list[Sequence]) -> tuple[Tensor, Tensor]:
        rows = [sequence.source_ids for sequence in batch]
        ids = pad(rows, self._padding, "left")
        mask = pad([[1] * len(row) for row in rows], 0, "left")
        return ids.to(self._model.device), mask.to(self._model.device)

    def _first(self, encoded: EncoderOutput) -> Tensor:
        """First decoder input of each row; (B, 1)."""
        assert encoded.last_token is not None
        if self._model.starts_with_source:
            return encoded.last_token
        return torch.full_like(encoded.last_token, start_id(self._model))  # type: ignore[arg-type]

    def _encode(self, batch: list[Sequence], ids: Tensor, mask: Tensor) -> EncoderOutput:
        encoders = list(dict.fromkeys(sequence.encoder for sequence in batch))
        by_number = {str(number): encoder for number, encoder in enumerate(encoders)}
        names = [str(encoders.index(sequence.encoder)) for sequence in batch]
        return encode_rows(by_number, names, self._model.decoder.embedding, ids, mask)

    def _hand_out(self, sequence: Sequence, token: int) -> None:
        if sequence.done:
            return
        try:
            sequence.push(token, is_end=token in self._ends)
        except Exception as error:
            # A token without text, or a listener that is gone, is this sequence's own trouble.
            sequence.fail(error)


def _choose(batch: list[Sequence], written: Tensor, scores: Tensor) -> Tensor:
    """Next token of each row: the one of the largest score once the row's processors have changed them.

    Shapes: written (B, t), from the first decoder input on; scores (B, V) -> (B, 1).
    """
    for row, sequence in enumerate(batch):
        if sequence.processors and not sequence.done:
            one = slice(row, row + 1)
            scores[one] = sequence.processors(written[one], scores[one])  # type: ignore[arg-type]
    return scores.argmax(-1, keepdim=True)
