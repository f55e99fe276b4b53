"""The parts of a graft, by the names of its tensors."""

from fnmatch import fnmatchcase

GROUPS: dict[str, tuple[str, ...]] = {
    "head": ("lm_head.*",),
    "embeddings": ("*.embedding.*", "encoder.stem.*", "decoder.stem.*"),
    "cross_attention": ("decoder.layers.*.cross_attention*",),
    "bridge": ("bridge.*",),
    "encoder_adapter": ("encoder_adapter.*",),
    "decoder_adapter": ("decoder_adapter.*",),
    "encoder": ("encoder.*",),
    "decoder": ("decoder.*", "lm_head.*"),
}
"""Group -> globs of its tensors' names. `encoder` and `decoder` hold the finer groups of their side too, so `decoder`
is all that tasks share: the fingerprinted part. A table shows a tensor in the first group that has it."""

OTHER = "other"
"""Shown for tensors of no group."""


def in_group(name: str, pattern: str) -> bool:
    """Whether a tensor belongs to a group, or fits a glob that is no group's name."""
    return any(fnmatchcase(name, glob) for glob in GROUPS.get(pattern, (pattern,)))


def group_of(name: str) -> str:
    """The first group that has a tensor.

    >>> group_of("decoder.layers.0.cross_attention.k_proj.weight")
    'cross_attention'
    """
    return next((group for group in GROUPS if in_group(name, group)), OTHER)
