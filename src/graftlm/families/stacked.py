"""Checkpoints that hold the tensors of all experts of a layer in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from graftlm.families.tensors import TensorFolder, TensorInfo, opened
from graftlm.families.weight_map import Stacked, fill, match


class UnstackedFolder(TensorFolder):
    """A folder in which such tensors appear as the parts of single experts; each is read by itself."""

    def __init__(self, folder: str | Path, stacked: Sequence[Stacked]) -> None:
        super().__init__(folder)
        self._slices: dict[str, tuple[str, int, slice]] = {}
        for rule in stacked:
            for name in list(self.infos):
                found = match(rule.source, name)
                if found is not None and len(self.infos[name].shape) > 1:
                    self._unstack(name, [fill(part, found) for part in rule.parts])

    def _unstack(self, name: str, parts: list[str]) -> None:
        info = self.infos.pop(name)
        experts, height, *rest = info.shape
        rows = height // len(parts)
        for expert in range(experts):
            for number, part in enumerate(parts):
                own = fill(part, {"expert": str(expert)})
                self.infos[own] = TensorInfo(info.file, (rows, *rest), info.dtype)
                self._slices[own] = name, expert, slice(number * rows, (number + 1) * rows)

    def read(self, name: str) -> torch.Tensor:
        """One tensor, as stored."""
        if name not in self._slices:
            return super().read(name)
        source, expert, rows = self._slices[name]
        with opened(self.infos[name].file) as shard:
            part: torch.Tensor = shard.get_slice(source)[expert : expert + 1, rows]
            return part.squeeze(0)
