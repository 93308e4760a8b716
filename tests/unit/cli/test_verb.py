"""What every verb has in common."""

from __future__ import annotations

import pytest

from farmhand.cli.verb import VerbResult, print_result


def test_where_something_is_kept_is_said_though_stdout_is_full(capsys: pytest.CaptureFixture[str]) -> None:
    """A patch that was paid for and could not be printed must be found."""

    def full() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        print_result(VerbResult({}, full, notes=["the patch is in /kept"]), as_json=False)
    assert "the patch is in /kept" in capsys.readouterr().err
