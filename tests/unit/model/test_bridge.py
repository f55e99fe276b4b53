"""What each decoder layer reads."""

import pytest
import torch

from graftlm.errors import ConfigError
from graftlm.model.bridge import Bridge
from graftlm.model.config import BridgeConfig

STATES = [torch.full((2, 3, 4), float(i)) for i in range(3)]


def test_aligned_gives_layer_j_the_raw_state_before_it() -> None:
    memory = Bridge(BridgeConfig(kind="aligned"))(STATES, torch.neg)
    assert memory.shape == (2, 3, 3, 4)
    assert memory[:, :, 0, 0].tolist() == [[0.0, 1.0, 2.0]] * 2


def test_last_gives_every_layer_the_normed_output() -> None:
    memory = Bridge(BridgeConfig(kind="last"))(STATES, torch.neg)
    assert memory.shape == (2, 1, 3, 4)
    assert memory.unique().tolist() == [-2.0]


def test_a_bridge_has_no_weights() -> None:
    for kind in ("last", "aligned"):
        assert not list(Bridge(BridgeConfig(kind=kind)).parameters())


def test_unknown_kind() -> None:
    with pytest.raises(ConfigError, match=r"bridge\.kind is 'linear'; it must be one of 'last', 'aligned'"):
        BridgeConfig(kind="linear")
