"""CloudFormation's engine: unknown types are refused, a failure is a failed stack, a change set tells the truth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from moto.cloudformation import models, parsing, responses


def change() -> None:
    """Change moto."""
    # A list is described as it was given, not as Python shows it.
    models.Stack.parameter_list = property(
        lambda self: [
            {
                "ParameterKey": key,
                "ParameterValue": "****" if key in self.resource_map.no_echo_parameter_keys else _given(v),
            }
            for key, v in self.resource_map.resolved_parameters.items()
        ]
    )
    of_type, references = parsing.resource_class_from_type, parsing.get_references_from_template
    create_change_set = responses.CloudFormationResponse.create_change_set

    def strict_class(kind: str) -> Any:
        found = of_type(kind)
        if found is None and kind not in parsing.NULL_MODELS:
            raise parsing.ValidationError(message=f"Template format error: Unrecognized resource types: [{kind}]")
        return found

    def all_references(template: Any) -> list[str]:
        return [*references(template), *_substituted(template)]

    def _create_change_set(self: Any) -> Any:
        get = self._get_param
        self._get_param = lambda key, default=None: get(key, None) or ("UPDATE" if key == "ChangeSetType" else default)
        same = _is_same(self)
        self._validate_different_update = lambda *_: None
        answer = create_change_set(self)
        if same:
            made = self.cloudformation_backend.describe_change_set(answer.result["Id"])
            made.status, made.execution_status = "FAILED", "UNAVAILABLE"
            made.status_reason = "The submitted information didn't contain changes. Submit different information."
        return answer

    parsing.resource_class_from_type, parsing.get_references_from_template = strict_class, all_references
    parsing.ResourceMap.delete = _delete_in_order
    responses.CloudFormationResponse._validate_different_update = _refuse_same
    responses.CloudFormationResponse.create_change_set = _create_change_set
    resolve = models.CloudFormationBackend._resolve_update_parameters

    def with_defaults(self: Any, instance: Any, incoming_params: Any) -> Any:
        """UsePreviousValue also holds for a parameter that the stack has by its default."""
        known = {key: str(value) for key, value in instance.resource_map.resolved_parameters.items()}
        instance.parameters = known | dict(instance.parameters)
        return resolve(self, instance, incoming_params)

    models.CloudFormationBackend._resolve_update_parameters = with_defaults
    _fail_as_stacks_do()


def _substituted(value: Any) -> Iterator[str]:
    """The names in Fn::Sub, which moto does not follow."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "Fn::Sub":
                yield from re.findall(r"\${([A-Za-z0-9]+)", inner if isinstance(inner, str) else inner[0])
            yield from _substituted(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _substituted(inner)


def _refuse_same(self: Any, incoming: Any, body: str, old: Any) -> None:
    """moto calls a stack changed whenever a parameter with a default was left out."""
    now = {key: _given(value) for key, value in old.resource_map.resolved_parameters.items()}
    new = {k: str(v.get("Default")) for k, v in (old.parse_template(body).get("Parameters") or {}).items()}
    new |= {key: _given(value) for key, value in self._get_param_values(incoming or [], old.stack_parameters).items()}
    if old.has_template(body) and now == new:
        raise responses.ValidationError(old.name, message="No updates are to be performed.")


def _given(value: Any) -> str:
    """A parameter as it was given: moto splits a CommaDelimitedList."""
    return ",".join(value) if isinstance(value, list) else str(value)


def _delete_in_order(self: Any, keeping: tuple[str, ...] = ("Retain", "RetainExceptOnCreate")) -> None:
    """The youngest first: moto's order is by chance, and what others need may be gone before them."""
    kept = {name for name, body in self._resource_json_map.items() if body.get("DeletionPolicy") in keeping}
    left = [name for name in reversed(list(self._parsed_resources)) if name in self._resource_json_map.keys() - kept]
    while left:
        failed: list[str] = []
        last: Exception | None = None
        for name in left:
            resource = self._parsed_resources[name]
            try:
                if resource is not None and not isinstance(resource, str):
                    self._delete_resource(resource, self._resource_json_map[name])
            except Exception as error:  # another may have to go before it
                failed, last = [*failed, name], error
            else:
                self._parsed_resources.pop(name)
        if failed == left and last is not None:
            raise last
        left = failed


def _is_same(self: Any) -> bool:
    """Whether the change set of this request would change nothing."""
    try:
        old = self.cloudformation_backend.get_stack(self._get_param("StackName"))
        _refuse_same(self, self._get_param("Parameters", []), self._get_param("TemplateBody"), old)
    except responses.ValidationError as error:
        return "No updates" in str(error.__dict__) + str(error)
    return False


def _fail_as_stacks_do() -> None:
    """What a service refuses is in the stack's events and status; CreateStack itself has succeeded by then."""
    create, update, delete = models.Stack.create_resources, models.Stack.update, models.Stack.delete
    execute, delete_by_name = models.CloudFormationBackend.execute_change_set, models.CloudFormationBackend.delete_stack

    def create_resources(self: Any) -> None:
        try:
            create(self)
        except parsing.ValidationError:
            raise  # the template itself is wrong
        except Exception as error:
            _failed(self, "CREATE", error, "ROLLBACK")
            try:
                self.resource_map.delete(("Retain",))
            except Exception as left:
                _failed(self, "DELETE", left, "ROLLBACK")
            # moto makes again what an output of the stack names.
            self.output_map = parsing.OutputMap(self.resource_map, {}, self.stack_id)

    def update_stack(self: Any, *args: Any, **kwargs: Any) -> None:
        self.failure = ""
        try:
            update(self, *args, **kwargs)
        except parsing.ValidationError:
            raise
        except Exception as error:
            _failed(self, "UPDATE", error, "UPDATE_ROLLBACK")

    def delete_stack(self: Any) -> None:
        self.failure = ""
        try:
            delete(self)
            self.deletion_time = datetime.now(UTC)
        except Exception as error:
            _event(self, "DELETE_FAILED", error)
            self.failure = self.status = "DELETE_FAILED"
            self.stack_status_reason = str(error)

    def execute_change_set(self: Any, *args: Any, **kwargs: Any) -> None:
        execute(self, *args, **kwargs)
        for stack in self.stacks.values():  # moto says COMPLETE whatever happened
            stack.status = getattr(stack, "failure", "") or stack.status

    def delete_named(self: Any, name: str) -> None:
        stack = next((one for one in self.stacks.values() if name in (one.name, one.stack_id)), None)
        delete_by_name(self, name)
        if stack is not None and stack.failure:
            self.deleted_stacks.pop(stack.stack_id, None)
            self.stacks[stack.stack_id] = stack

    models.Stack.create_resources, models.Stack.update = create_resources, update_stack
    models.Stack.delete, models.Stack.failure = delete_stack, ""
    models.CloudFormationBackend.execute_change_set = execute_change_set
    models.CloudFormationBackend.delete_stack = delete_named
    for name in ("parse_and_create_resource", "parse_and_update_resource"):
        setattr(parsing, name, _naming(getattr(parsing, name)))


def _naming(parse: Any) -> Any:
    """Let an error know which resource it comes from."""

    def named(logical_id: str, resource_json: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return parse(logical_id, resource_json, *args, **kwargs)
        except Exception as error:
            if not hasattr(error, "resource"):
                error.resource = (logical_id, resource_json["Type"])  # type: ignore[attr-defined]
            raise

    return named


def _failed(stack: Any, doing: str, error: Exception, back: str) -> None:
    _event(stack, f"{doing}_FAILED", error)
    stack._add_stack_event(f"{back}_IN_PROGRESS", resource_status_reason=str(error))
    stack._add_stack_event(f"{back}_COMPLETE")
    stack.failure = stack.status = f"{back}_COMPLETE"
    stack.stack_status_reason = str(error)


def _event(stack: Any, status: str, error: Exception) -> None:
    """An event of the resource that failed."""
    name, kind = getattr(error, "resource", (stack.name, "AWS::CloudFormation::Stack"))
    stack.events.append(
        models.Event(
            stack_id=stack.stack_id,
            stack_name=stack.name,
            logical_resource_id=name,
            physical_resource_id="",
            resource_type=kind,
            resource_status=status,
            resource_status_reason=f"{type(error).__name__}: {error}",
            resource_properties=None,
        )
    )
