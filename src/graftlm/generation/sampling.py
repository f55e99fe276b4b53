"""Sampling whose outcome for a row depends on that row's own seed, not on the rows beside it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from graftlm.errors import ConfigError


class GumbelNoise(LogitsProcessor):
    """Adds Gumbel noise from one generator per row, so that the largest score is a sample of the softmax.

    Shapes: scores (B, V) -> (B, V).
    Source: the Gumbel-max trick, arXiv 1411.0030, section 2.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        noise = torch.empty(scores.shape, dtype=torch.float)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores - noise.log().to(scores.device)


def sampler(seeds: Sequence[int], temperature: float = 1.0, top_p: float = 1.0) -> LogitsProcessorList:
    """What makes greedy decoding sample: one seed per row of the batch.

    Raises: ConfigError for a temperature or a top_p out of range.
    """
    if temperature <= 0:
        raise ConfigError(f"temperature is {temperature}; it must be above 0; leave do_sample out for greedy decoding.")
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p is {top_p}; it must be above 0 and at most 1.")
    warpers = [TemperatureLogitsWarper(float(temperature)), TopPLogitsWarper(float(top_p))]
    return LogitsProcessorList([*warpers, GumbelNoise(seeds)])


def row_seed(seed: int, row: int) -> int:
    """Seed of one row, unlike that of any other row or seed."""
    # torch's CPU generator looks at 32 bits only, so both numbers are mixed into those.
    return int(np.random.SeedSequence([seed, row]).generate_state(1)[0])
