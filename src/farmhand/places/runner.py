"""Tasks through ansible-runner: the module farmhand_task on every host of a pattern, with typed results.

What ansible-runner writes to disk (the command with its environment, events, facts) goes into a private temporary
directory that is removed afterwards, and holds no key: the environment is stripped of credentials, and the action
plugin gets the key from a socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible_runner
import msgspec
import yaml

from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, TaskFailed, WireError
from farmhand.core.keys import redact
from farmhand.core.keysource import DEFAULT_SOURCE, read_key
from farmhand.core.scratch import private_directory
from farmhand.core.task import Result, Task
from farmhand.places.ansible_environment import ansible_environment
from farmhand.places.keyserver import KeyServer
from farmhand.wire import problems

#: The variables by which ansible-runner gets the events of the run.
_RUNNERS = (
    "ANSIBLE_CALLBACK_PLUGINS",
    "ANSIBLE_STDOUT_CALLBACK",
    "ANSIBLE_RETRY_FILES_ENABLED",
    "AWX_ISOLATED_DATA_DIR",
    "RUNNER_OMIT_EVENTS",
    "RUNNER_ONLY_FAILED_EVENTS",
)
#: ansible-playbook's own time for a host, so that an unreachable one does not hold up the others. Seconds.
_CONNECT_TIMEOUT = "10"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one task on one host: the result if there is one, and the error if it did not succeed."""

    host: str
    task_id: str
    result: Result | None
    error: FarmhandError | None


class _Unsafe(str):
    """Text that Ansible must not take for a template."""


class _Dumper(yaml.SafeDumper):
    """Writes `_Unsafe` with the tag !unsafe."""


_Dumper.add_representer(_Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"'))


def run_task(task: Task, *, project_dir: Path, hosts: str = "farm", **options: Any) -> list[Outcome]:
    """`run_tasks` with one task."""
    return run_tasks([task], project_dir=project_dir, hosts=hosts, **options)


def run_tasks(
    tasks: Sequence[Task],
    *,
    project_dir: Path,
    hosts: str = "farm",
    inventory: str | None = None,
    key_source: str = DEFAULT_SOURCE,
    module_args: dict[str, Any] | None = None,
) -> list[Outcome]:
    """Run every task on every host of the pattern `hosts`, in the checkout `project_dir`: an outcome for each pair.

    `inventory` is the checkout's own if None. `module_args` are further arguments of farmhand_task, such as `socket`.
    Raises NotConfigured for the key or an unusable inventory; what befalls a single task is in its outcome.
    """
    if not tasks:
        return []
    try:
        key = read_key(key_source)
    except WireError as error:
        raise problems.from_wire(error) from None
    with private_directory() as private, KeyServer(key, private) as server:
        playbook = private / "play.yml"
        playbook.write_text(play(tasks, hosts, {**(module_args or {}), "key_source": server.source}), "utf-8")
        runner = prepare(playbook, private, project_dir, inventory)
        runner.run()
        outcomes = list(_outcomes(runner.events))
        if not outcomes:
            raise nothing_ran(runner, hosts)
    return outcomes + list(_not_tried(tasks, outcomes))


def play(tasks: Iterable[Task], hosts: str, module_args: dict[str, Any]) -> str:
    """The playbook as YAML. Every string of a task is marked as no template."""
    steps = [
        {
            "name": _Unsafe(task.id),
            "farmhand_task": _unsafe({**_arguments(task), **module_args}),
            # One task's failure is its own outcome and must not keep the next one from running.
            "ignore_errors": True,
        }
        for task in tasks
    ]
    document = [{"name": "Farm tasks out", "hosts": hosts, "gather_facts": False, "tasks": steps}]
    text: str = yaml.dump(document, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=2**31)
    return text


def _arguments(task: Task) -> dict[str, Any]:
    """The task as arguments of the module, without what it does not know yet (max_usd, work_class)."""
    fields: dict[str, Any] = msgspec.to_builtins(task)
    return {name: value for name, value in fields.items() if name not in ("max_usd", "work_class")}


def _unsafe(value: Any) -> Any:
    if isinstance(value, str):
        return _Unsafe(value)
    if isinstance(value, dict):
        return {_unsafe(key): _unsafe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_unsafe(item) for item in value]
    return value


def prepare(
    playbook: Path,
    private: Path,
    project_dir: Path,
    inventory: str | None,
    *,
    settings: dict[str, str] | None = None,
    on_event: Callable[[dict[str, Any]], bool] | None = None,
) -> Any:
    """ansible-runner, ready to run in the checkout, with an environment that holds no credential.

    `settings` are further variables of the environment. `on_event` gets each event and says whether it is kept.
    """
    arguments: dict[str, Any] = {"inventory": inventory} if inventory is not None else {}
    if on_event is not None:
        arguments["event_handler"] = on_event
    own = {"ANSIBLE_TIMEOUT": _CONNECT_TIMEOUT, **(settings or {})}
    # ansible-runner starts from our whole environment and adds to what these already say.
    empty = dict.fromkeys(("ANSIBLE_CALLBACK_PLUGINS", "ANSIBLE_STDOUT_CALLBACK", "AWX_LIB_DIRECTORY"), "")
    runner = ansible_runner.interface.init_runner(
        private_data_dir=str(private),
        project_dir=str(project_dir),
        playbook=str(playbook),
        envvars=empty,
        quiet=True,
        **arguments,
    )
    made: dict[str, str] = runner.config.env
    runner.config.env = ansible_environment(project_dir) | {name: made[name] for name in _RUNNERS} | own
    return runner


def _outcomes(events: Iterable[dict[str, Any]]) -> Iterator[Outcome]:
    for event in events:
        kind = event.get("event")
        if kind not in ("runner_on_ok", "runner_on_failed", "runner_on_unreachable"):
            continue
        data = event["event_data"]
        yield _outcome(kind, str(data["host"]), str(data["task"]), data.get("res") or {})


def _not_tried(tasks: Sequence[Task], outcomes: Sequence[Outcome]) -> Iterator[Outcome]:
    """Ansible leaves a host alone once it was unreachable; its other tasks have that outcome as well."""
    done = {(outcome.host, outcome.task_id) for outcome in outcomes}
    for outcome in outcomes:
        if isinstance(outcome.error, FarmUnreachable) and outcome.result is None:
            for task in tasks:
                if (outcome.host, task.id) not in done:
                    done.add((outcome.host, task.id))
                    yield Outcome(host=outcome.host, task_id=task.id, result=None, error=outcome.error)


def _outcome(kind: str, host: str, task_id: str, answer: dict[str, Any]) -> Outcome:
    message = redact(" ".join(str(answer.get("msg") or "no reason given").split()))
    if kind == "runner_on_unreachable":
        error = FarmUnreachable(f"{host}: {message}", hint="check the inventory and ssh")
        return Outcome(host=host, task_id=task_id, result=None, error=error)
    known = {name: answer[name] for name in Result.__struct_fields__ if name in answer}
    try:
        result = msgspec.convert(known, Result, strict=False) if "state" in known else None
    except (msgspec.ValidationError, ValueError, ArithmeticError, RecursionError) as wrong:
        # What a host sends is that host's problem, and no other outcome's.
        error = FarmUnreachable(f"{host}: its result is not one of the wire: {str(wrong)[:200]}", code="bad_answer")
        return Outcome(host=host, task_id=task_id, result=None, error=error)
    return Outcome(host=host, task_id=task_id, result=result, error=_error(result, answer, f"{host}: {message}"))


def _error(result: Result | None, answer: dict[str, Any], message: str) -> FarmhandError | None:
    if result is not None:
        return problems.from_result(msgspec.to_builtins(result))
    wire = answer.get("error")
    if isinstance(wire, dict):
        code, said = str(wire.get("code") or "agent_error"), str(wire.get("message") or message)
        return problems.from_wire(WireError(code, said, str(wire.get("hint") or ""), 400))
    return TaskFailed(message, code="module_failed")


def nothing_ran(runner: Any, hosts: str) -> FarmhandError:
    """Why no host had a task: as a rule the inventory knows none, or the playbook could not start."""
    said = redact(runner.stdout.read()[-20_000:])
    if "no hosts matched" in said or "did not match any hosts" in said:
        return NotConfigured(f"no host of the inventory matches {hosts!r}", hint="see: ansible-inventory --graph")
    return NotConfigured(f"ansible-playbook ended with {runner.rc} before any task: {' '.join(said.split())[-300:]}")


__all__ = ["Outcome", "nothing_ran", "prepare", "run_task", "run_tasks"]
