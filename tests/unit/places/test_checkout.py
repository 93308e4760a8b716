from __future__ import annotations

from pathlib import Path

import pytest

from farmhand.core.errors import NotConfigured
from farmhand.places.checkout import find_project, is_project


def test_the_checkout_is_found_upwards_or_where_it_is_set(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="is not in a checkout"):
        find_project("", tmp_path)
    (tmp_path / "site.yml").touch()
    assert not is_project(tmp_path)
    (tmp_path / "ansible.cfg").touch()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_project("", below) == tmp_path
    assert find_project(str(tmp_path), Path("/")) == tmp_path
    with pytest.raises(NotConfigured, match=r"has no site\.yml"):
        find_project(str(below), tmp_path)
