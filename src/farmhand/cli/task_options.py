"""The task that the command line describes. Imported after ssh was started: see run_task."""

from __future__ import annotations

import json
import os
from typing import Any

from farmhand.cli.prompt import assemble, read_text
from farmhand.core.decoding import KeyTwice, as_labels, as_name, as_names, as_text, decoded, json_value, not_text, shown
from farmhand.core.errors import UsageError
from farmhand.core.files import read_most
from farmhand.core.ids import MAX_PROMPT_BYTES, new_task_id
from farmhand.core.settings import Settings


def build_task(given: dict[str, Any], conf: Settings) -> dict[str, Any]:
    """Return the task as the protocol has it. Fields that were not given are left out. Raises UsageError."""
    task_id = own_id(given)
    fields = task_fields(given, conf)
    if given["task_file"] is not None:
        return _written_task(given, conf, fields | ({"id": task_id} if task_id else {}))
    prompt, files = assemble(given["prompt"], given["file"], use_stdin=not given["no_stdin"])
    if files:
        fields["files"] = files
    if given["max_usd"] is not None:
        fields["max_usd"] = given["max_usd"]
    task = {"id": task_id or new_task_id(), "prompt": prompt, "timeout_s": conf.timeout_s} | fields
    if files:
        check(task)
    return task


def _written_task(given: dict[str, Any], conf: Settings, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the task that --task gives; its own fields count more than options, but for the id. Raises UsageError."""
    if given["prompt"] is not None or given["file"]:
        raise UsageError("--task has the prompt and the files in it", hint="leave out the argument and -f")
    text, where = read_text(given["task_file"], "--task")
    try:
        task = json_value(text)
    except KeyTwice as error:
        raise UsageError(f"{where} {error}", code="invalid_task") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON: {error}", code="invalid_task") from None
    if not isinstance(task, dict):
        raise UsageError(f"{where} is no object with a prompt", code="invalid_task")
    task = {name: value for name, value in task.items() if value is not None}
    usual = {"id": new_task_id(), "timeout_s": conf.timeout_s}
    if given["max_usd"] is not None:
        usual["max_usd"] = given["max_usd"]
    made = usual | fields | task | {name: fields[name] for name in ("id",) if name in fields}
    check(made)
    return made


def own_id(given: dict[str, Any]) -> str | None:
    """Return the id that --id gives a task; an empty variable of a script is no id. Raises UsageError."""
    if given["task_id"] == "":
        raise UsageError("--id is empty", hint="leave it out for a new id")
    return given["task_id"] and as_name(given["task_id"], "--id")


def check(task: dict[str, Any]) -> None:
    """Raise UsageError for the first rule of `farmhand.core.rules` that the task breaks."""
    import msgspec

    from farmhand.core import rules  # not at the top: a host checks an ordinary task
    from farmhand.core.task import Task

    try:
        broken = rules.check(msgspec.convert(task, Task))
    except msgspec.ValidationError as error:
        raise UsageError(f"it is no task: {error}", code="invalid_task") from None
    if broken is not None:
        raise UsageError(broken.message, hint=broken.hint, code=broken.code)


def task_fields(given: dict[str, Any], conf: Settings) -> dict[str, Any]:
    """Return the fields that a task and the tasks of a batch can be given. Raises UsageError."""
    fields = {
        "system": given["system"] and as_text(given["system"], "--system"),
        "model": conf.model and as_name(conf.model, "--model"),
        "engine": given["engine"],
        "network": given["network"],
        "max_tokens": given["max_tokens"],
        "tools": as_names(given["tools"], "--tools"),
        "labels": as_labels(given["labels"]) or None,
        "work_class": given["work_class"] and as_name(given["work_class"], "--work-class"),
        "priority": given["priority"] or None,
        "pot": conf.pot,
        "economy": given["economy"] or None,
        "schema": None if given["schema"] is None else read_schema(given["schema"]),
    }
    return {name: value for name, value in fields.items() if value not in (None, "", [])}


def on_pot(conf: Settings, name: str, given: str | None) -> Settings:
    """Return the settings with the pot of an earlier task or turn, unless one is `given` or that one is gone."""
    asked = given or os.environ.get("FARMHAND_POT")
    found = None if asked else next((pot for pot in conf.pots if pot.name == name), None)
    return conf if found is None else conf._replace(pot=found.name, key_source=found.key_source)


def read_schema(given: str) -> dict[str, Any]:
    """Return the JSON Schema in the file `given`, or in `given` itself if it begins with `{`. Raises UsageError."""
    where = "--schema"
    if given.lstrip().startswith("{"):
        text = as_text(given, where)
    else:
        where = f"--schema {shown(given)}"
        try:
            text = decoded(read_most(given, MAX_PROMPT_BYTES))
        except OSError as error:
            raise UsageError(f"{where}: {error.strerror}", code="invalid_schema") from None
        except ValueError:
            raise UsageError(f"{where}: not UTF-8 text", code="invalid_schema") from None
    try:
        schema = json_value(text)
    except KeyTwice as error:
        raise UsageError(f"{where}: it {error}", code="invalid_schema") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {error}", code="invalid_schema") from None
    if not isinstance(schema, dict):
        raise UsageError(f"{where}: a JSON Schema is an object", code="invalid_schema")
    try:
        json.dumps(schema, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate
        raise not_text(where) from None
    from farmhand.core import schemas  # not at the top: most calls have no schema

    if message := schemas.problem(schema):
        raise UsageError(f"{where}: {message}", code="invalid_schema")
    return schema
