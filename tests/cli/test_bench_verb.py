"""graftlm bench."""

from typing import Any


def test_an_unknown_benchmark_is_named(graftlm: Any) -> None:
    result = graftlm("bench", "speed")
    assert result.code == 2
    assert "There is no benchmark 'speed'; choose train." in result.err
