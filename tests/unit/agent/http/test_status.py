from __future__ import annotations

from pathlib import Path

from farmhand.agent.http.status import cli_version


def test_the_version_is_the_directory_s_name(tmp_path: Path) -> None:
    binary = tmp_path / "2.1.330" / "claude"
    binary.parent.mkdir()
    link = tmp_path / "claude"
    link.symlink_to(binary)
    assert cli_version(str(link)) is None
    binary.touch()
    assert cli_version(str(link)) == "2.1.330"
    link.unlink()
    link.touch()
    assert cli_version(str(link)) == "unknown"
