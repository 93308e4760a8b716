"""Templates of CloudFormation, read by libyaml and once: moto reads one in Python at each of its calls, for 0.3 s.

Whoever reads one gets a copy of its own. What is no YAML is refused in the same way.
"""

from __future__ import annotations

import pickle
from functools import cache
from types import SimpleNamespace
from typing import Any

import yaml
from moto.cloudformation import models, responses
from moto.cloudformation.utils import yaml_tag_constructor


class _Loader(yaml.CLoader):
    """moto's own loader, and its short forms of functions."""


_Loader.add_multi_constructor("", yaml_tag_constructor)


def read_once() -> None:
    """Make moto keep what it has read in this process; call it as often as you like."""
    models.yaml = responses.yaml = SimpleNamespace(
        load=_load, Loader=yaml.Loader, add_multi_constructor=lambda *_: None
    )


def _load(text: str, Loader: Any) -> Any:  # noqa: N803 (yaml's own name)
    assert Loader is yaml.Loader
    return pickle.loads(_pickled(text))  # noqa: S301 (made below)


@cache
def _pickled(text: str) -> bytes:
    return pickle.dumps(yaml.load(text, _Loader))  # noqa: S506 (templates of these tests)
