"""What a model's own generation settings force and forbid, such as BART's BOS and EOS or Marian's padding."""

from __future__ import annotations

from transformers import (
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    NoBadWordsLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)


def constraints(
    settings: GenerationConfig, ends: list[int], max_new_tokens: int, device: str = "cpu"
) -> LogitsProcessorList:
    """Processors of a target of up to `max_new_tokens`, in the order in which transformers' `generate` applies them.

    Their `input_ids` begin with the decoder's first input. `ends` are the tokens that end a target.
    """
    made: list[LogitsProcessor] = []
    if settings.bad_words_ids is not None:
        made.append(NoBadWordsLogitsProcessor(settings.bad_words_ids, ends))
    if settings.forced_bos_token_id is not None:
        made.append(ForcedBOSTokenLogitsProcessor(settings.forced_bos_token_id))
    if settings.forced_eos_token_id is not None:
        made.append(ForcedEOSTokenLogitsProcessor(1 + max_new_tokens, settings.forced_eos_token_id, device))
    if settings.suppress_tokens is not None:
        made.append(SuppressTokensLogitsProcessor(settings.suppress_tokens, device))
    if settings.begin_suppress_tokens is not None:
        # After a forced first token, the second one is the first that the model chooses.
        begin = 1 if settings.forced_bos_token_id is None else 2
        made.append(SuppressTokensAtBeginLogitsProcessor(settings.begin_suppress_tokens, begin, device))
    return LogitsProcessorList(made)
