"""Decodes one batch of sequences, whatever their tasks."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from graftlm.data.collate import pad
from graftlm.generation.inference import inference
from graftlm.generation.text import stop_ids
from graftlm.model.modeling import GraftForConditionalGeneration
from graftlm.model.task_encoder import EncoderOutput, encode_rows
from graftlm.serving.sequence import Sequence


class Runner:
    """Encodes each source once by its own task encoder, then decodes all of them token by token."""

    def __init__(self, model: GraftForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model = model
        self._ends = frozenset(stop_ids(model, tokenizer))

    def run(self, batch: list[Sequence]) -> None:
        """Decode until every sequence is done; what one row gets does not depend on the others."""
        with inference(self._model):
            ids, mask = self._sources(batch)
            encoded = self._encode(batch, ids, mask)
            # The shift to the right puts the decoder's first input in front.
            tokens = self._model.shift_right(ids[:, :1], encoded)
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
                tokens = _choose(batch, output.logits[:, -1].float())
                for sequence, token in zip(batch, tokens.flatten().tolist(), strict=True):
                    self._hand_out(sequence, token)

    def _sources(self, batch: list[Sequence]) -> tuple[Tensor, Tensor]:
        rows = [sequence.source_ids for sequence in batch]
        ids = pad(rows, self._model.config.pad_token_id or 0, "left")
        mask = pad([[1] * len(row) for row in rows], 0, "left")
        return ids.to(self._model.device), mask.to(self._model.device)

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


def _choose(batch: list[Sequence], scores: Tensor) -> Tensor:
    """Next token of each row: the likeliest one, or a sample. Shapes: scores (B, V) -> (B, 1)."""
    for row, sequence in enumerate(batch):
        if sequence.noise is not None and not sequence.done:
            ids = torch.empty(1, 0, dtype=torch.long, device=scores.device)
            scores[row] = sequence.noise(ids, scores[row : row + 1])[0]  # type: ignore[arg-type]
    return scores.argmax(-1, keepdim=True)
