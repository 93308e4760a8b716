"""The rules applied to a CloudFormation template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfnlint.decode import decode

from tests.support.fargate_rules.compute import compute_faults
from tests.support.fargate_rules.job import job_definition_faults
from tests.support.fargate_rules.task import task_definition_faults

_RULES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "AWS::ECS::TaskDefinition": task_definition_faults,
    "AWS::Batch::JobDefinition": job_definition_faults,
    "AWS::Batch::ComputeEnvironment": compute_faults,
}
#: Maps whose keys are data, and no names of members.
_DATA = ("Options", "Parameters", "Tags", "DockerLabels", "Labels")


def template_faults(path: Path) -> list[str]:
    """What Fargate refuses in the template, one sentence each. Raise ValueError if it is no template."""
    template, matches = decode(str(path))
    if matches:
        raise ValueError(f"{path}: {'; '.join(match.message for match in matches)}")
    if not isinstance(template, dict) or not isinstance(template.get("Resources"), dict):
        raise ValueError(f"{path}: no template of CloudFormation: it has no Resources")
    found: dict[str, None] = {}
    for chosen in (0, 1):  # every Fn::If goes both ways
        for name, resource in template["Resources"].items():
            if rules := _RULES.get(resource.get("Type")):
                body = _resolved(resource.get("Properties") or {}, template.get("Parameters") or {}, chosen)
                found |= {f"{name}: {fault}": None for fault in rules(_without_tags(api_names(body)))}
    return list(found)


def api_names(value: Any) -> Any:
    """Return CloudFormation's names as those of the service's API: `ContainerDefinitions` is `containerDefinitions`."""
    if isinstance(value, list):
        return [api_names(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        key if key == "Ref" or key.startswith("Fn::") else key[:1].lower() + key[1:]: (
            dict(inner) if key in _DATA and isinstance(inner, dict) else api_names(inner)
        )
        for key, inner in value.items()
    }


def _without_tags(body: dict[str, Any]) -> dict[str, Any]:
    """CloudFormation writes tags in a form of its own."""
    return {key: value for key, value in body.items() if key != "tags"}


def _resolved(value: Any, parameters: dict[str, Any], chosen: int) -> Any:
    """Put the defaults of parameters in, and one of the ways of each Fn::If."""
    if isinstance(value, list):
        inner = [_resolved(one, parameters, chosen) for one in value]
        return [one for one in inner if one != {"Ref": "AWS::NoValue"}]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Fn::If"}:
        return _resolved(value["Fn::If"][1 + chosen], parameters, chosen)
    if set(value) == {"Ref"} and "Default" in parameters.get(value["Ref"], {}):
        return parameters[value["Ref"]]["Default"]
    resolved = {key: _resolved(inner, parameters, chosen) for key, inner in value.items()}
    return {key: inner for key, inner in resolved.items() if inner != {"Ref": "AWS::NoValue"}}
