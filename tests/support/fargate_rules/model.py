"""Members that a structure of an AWS service has, by botocore's own models."""

from __future__ import annotations

from functools import cache
from typing import Any

import botocore.session


@cache
def _service(name: str) -> Any:
    return botocore.session.get_session().get_service_model(name)


def unknown_members(service: str, shape: str, value: Any, path: str = "") -> list[str]:
    """The paths of members of `value` that the structure `shape` does not have, at any depth."""
    return _unknown(_service(service).shape_for(shape), value, path)


def _unknown(shape: Any, value: Any, path: str) -> list[str]:
    found: list[str] = []
    if shape.type_name == "structure" and isinstance(value, dict):
        for key, inner in value.items():
            here = f"{path}.{key}" if path else key
            if key in shape.members:
                found += _unknown(shape.members[key], inner, here)
            elif not _is_function(key):
                found.append(here)
    elif shape.type_name == "list" and isinstance(value, list):
        for number, inner in enumerate(value):
            found += _unknown(shape.member, inner, f"{path}[{_name(inner, number)}]")
    return found


def _name(value: Any, number: int) -> str:
    return str(value["name"]) if isinstance(value, dict) and isinstance(value.get("name"), str) else str(number)


def _is_function(key: str) -> bool:
    """Whether the key is a function of CloudFormation that could not be resolved: nothing is known about its value."""
    return key == "Ref" or key.startswith("Fn::")
