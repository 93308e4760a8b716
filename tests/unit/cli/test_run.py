from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from farmhand.cli import run
from farmhand.cli.arguments import OPTIONS
from farmhand.cli.render import Printer
from farmhand.cli.task_options import build_task, read_schema
from farmhand.core.errors import FarmhandError, TaskFailed, UsageError
from farmhand.core.settings import Settings
from tests.support.schemas import check

NOTHING: dict[str, Any] = dict.fromkeys(option.to for option in OPTIONS)


def options(**given: Any) -> dict[str, Any]:
    return {
        **NOTHING,
        "file": (),
        "no_stdin": True,
        "as_json": False,
        "tools": (),
        "labels": (),
        "prompt": "p",
        **given,
    }


def test_what_is_not_asked_for_is_left_to_the_agent() -> None:
    task = build_task(options(), Settings())
    assert task == {"id": task["id"], "prompt": "p", "timeout_s": 0.0}


def test_everything_that_can_be_asked_for() -> None:
    given = options(
        task_id="me", system="s", engine="cli", network="full", max_tokens=7, tools=("Bash, Read", "Grep"), schema="{}",
        labels=("a=b=c", "d="), work_class="w", priority=-3, max_usd=0.05, economy=True,
    )  # fmt: skip
    assert build_task(given, Settings(model="opus", timeout_s=0.0)) == {
        "id": "me",
        "prompt": "p",
        "timeout_s": 0.0,
        "system": "s",
        "model": "opus",
        "engine": "cli",
        "network": "full",
        "max_tokens": 7,
        "tools": ["Bash", "Read", "Grep"],
        "schema": {},
        "labels": {"a": "b=c", "d": ""},
        "work_class": "w",
        "priority": -3,
        "max_usd": 0.05,
        "economy": True,
    }


def test_a_whole_task_is_json(tmp_path: Path) -> None:
    file = tmp_path / "task.json"
    history = [{"prompt": "a", "answer": "b"}]
    file.write_text(json.dumps({"prompt": "p", "model": "opus", "schema": None, "history": history}))
    given = options(prompt=None, task_file=str(file), system="s", max_usd=1)
    made = build_task(given, Settings(model="haiku"))
    assert made == {
        "id": made["id"], "prompt": "p", "model": "opus", "system": "s", "history": history, "timeout_s": 0.0,
        "max_usd": 1,
    }  # fmt: skip
    assert build_task(given | {"task_id": "me"}, Settings())["id"] == "me"
    file.write_bytes(json.dumps({"prompt": "p"}).encode("utf-16"))
    assert build_task(given, Settings())["prompt"] == "p"
    for text, words in (
        ("[]", "is no object with a prompt"),
        ("{", "is not JSON"),
        ('{"prompt": "p", "max_tokens": 9, "max_tokens": 9000}', "task.json has the key 'max_tokens' twice"),
        ('{"prompt": "p", "colour": 1}', "unknown field"),
        ('{"prompt": " "}', "the prompt is empty"),
        ("\udcff", "not valid UTF-8"),
    ):
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(UsageError, match=words):
            build_task(given, Settings())
    for wrong in (options(task_file="x"), options(prompt=None, task_file="x", file=("y",))):
        with pytest.raises(UsageError, match="--task has the prompt"):
            build_task(wrong, Settings())
    with pytest.raises(UsageError, match="--task nowhere: No such file"):
        build_task(options(prompt=None, task_file="nowhere"), Settings())


def test_events_are_lines_before_the_result(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    printer = Printer(stream=False, events=True)
    for event in ({"type": "text", "text": "a"}, {"type": "state"}, {"type": "restart", "reason": "x"}):
        printer.on_event(event)
    assert printer.report({"state": "succeeded", "text": "b"}, as_json=True) == 0
    lines = capsysbinary.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"type": "text", "text": "a"}, {"type": "restart"}, {"state": "succeeded", "text": "b"}
    ]  # fmt: skip
    for line in lines[:2]:
        check("events", json.loads(line))
    for broken in ({"type": "state"}, {"type": "text"}, {"type": "restart", "reason": "x"}):
        with pytest.raises(jsonschema.ValidationError):
            check("events", broken)
    done = CliRunner().invoke(run.command, ["--events", "prompt"])
    assert "give --json too" in str(done.exception)


def test_a_label_has_a_name_and_holds_no_key() -> None:
    for label, what in (
        *(("x", "NAME=VALUE"), ("=x", "NAME=VALUE")),
        *(("a=sk-ant-test-pasted-0000", "API key"), ("a=\udcff", "not valid UTF-8")),
    ):
        with pytest.raises(UsageError, match=what):
            build_task(options(labels=(label,)), Settings())
    with pytest.raises(UsageError, match="--label 'a' is given twice, with two values"):
        build_task(options(labels=("a=1", "b=1", "a=2")), Settings())
    assert build_task(options(labels=("a=1", "a=1")), Settings())["labels"] == {"a": "1"}


def test_an_empty_variable_of_a_script_is_neither_an_id_nor_a_conversation() -> None:
    with pytest.raises(UsageError, match="--id is empty"):
        build_task(options(task_id=""), Settings())
    done = CliRunner().invoke(run.command, ["--conversation", "", "prompt"])
    assert isinstance(done.exception, UsageError)
    assert "--conversation '' does not match" in str(done.exception)


@pytest.mark.parametrize("field", ["system"])
def test_arguments_that_are_not_text(field: str) -> None:
    with pytest.raises(UsageError, match="not valid UTF-8"):
        build_task(options(**{field: "\udcff"}), Settings())


@pytest.mark.parametrize("given", ["{", "{'a': 1}", '{"type": 1}', '{"properties": []}'])
def test_schemas_that_are_none(given: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_schema(given)
    assert caught.value.code == "invalid_schema"
    assert "\n" not in caught.value.message


def test_a_schema_from_a_file(tmp_path: Any) -> None:
    path = tmp_path / "s.json"
    path.write_text('{"type": "string"}')
    assert read_schema(str(path)) == {"type": "string"}
    path.write_text("[]")
    with pytest.raises(UsageError, match="is an object"):
        read_schema(str(path))


@pytest.mark.parametrize(
    "given",
    [
        ["--schema", "/dev/zero", "x"],
        ["--task", "/dev/zero"],
        ["--config", "/dev/zero", "x"],
    ],
)
def test_a_file_without_end_is_one_line(given: list[str]) -> None:
    done = CliRunner().invoke(run.command, given)
    assert isinstance(done.exception, FarmhandError)
    assert "/dev/zero" in str(done.exception)
    assert "it has more than" in str(done.exception)


def test_help_names_every_option_once() -> None:
    text = CliRunner().invoke(run.command, ["--help"]).output
    for name in ("--file", "--json", "--model", "--schema", "--tools", "--key-source", "--id", "--no-stdin"):
        assert text.count(f"{name} ") + text.count(f"{name}\n") >= 1
    assert "claude-cheap -- '--help'" in text


def test_an_answer_that_was_cut_off_is_noted_beside_it(capfd: pytest.CaptureFixture[str]) -> None:
    result = {"id": "t", "state": "succeeded", "text": "half an ans", "stop_reason": "max_tokens"}
    assert Printer(stream=False).report(result, as_json=False) == 0
    shown = capfd.readouterr()
    assert shown.out == "half an ans\n"
    assert "raise --max-tokens" in shown.err
    assert Printer(stream=False).report(result | {"stop_reason": "end_turn"}, as_json=False) == 0
    assert capfd.readouterr().err == ""


def test_a_failed_task_is_raised_or_told_beside_its_json(capfd: pytest.CaptureFixture[str]) -> None:
    result = {"id": "t", "state": "failed", "text": "", "error": {"code": "timeout", "message": "late", "hint": "more"}}
    with pytest.raises(TaskFailed, match="late"):
        Printer(stream=False).report(result, as_json=False)
    assert capfd.readouterr().out == ""
    assert Printer(stream=False).report(result, as_json=True) == 1
    shown = capfd.readouterr()
    assert json.loads(shown.out) == result
    assert shown.err == "farmhand: late (more)\n"


PASTED = "sk-ant-test-pasted-0000000000"


@pytest.mark.parametrize(
    ("given", "option"),
    [({"task_id": PASTED}, "--id"), ({"model": f"x-{PASTED}"}, "--model"), ({"tools": (f"Bash,{PASTED}",)}, "--tools")],
)
def test_a_key_is_no_name(given: dict[str, Any], option: str) -> None:
    conf = Settings(model=given.get("model", ""))
    with pytest.raises(UsageError, match=f"an API key stands in {option}") as caught:
        build_task(options(**given), conf)
    assert (caught.value.code, caught.value.exit_code) == ("key_in_task", 2)


#: Prints the task, or the defaults of a batch, that the arguments make.
PROGRAM = """
import json, sys
from tests.unit.cli import test_batch, test_run
from farmhand.batch.template import read_template
from farmhand.core.settings import Settings
from tests.support.schemas import check
text, file = sys.argv[1:]
given = test_run.options(prompt=text, system=text, file=(file,), schema=json.dumps({"title": "X"}).replace("X", text))
task = test_run.build_task(given, Settings())
made = test_batch.made(system=text, labels=(f"{text}={text}",), work_class=text)
print(json.dumps([task["prompt"], task["system"], task["schema"], made, read_template(text + "{x}")]))
"""


def test_arguments_are_utf_8_in_any_locale(tmp_path: Path) -> None:
    file = tmp_path / "grüße"
    file.write_text("é", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "ö…", str(file)],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == [
        f"ö…\n\n----- file: {file} -----\né",
        "ö…",
        {"title": "ö…"},
        {"system": "ö…", "labels": {"ö…": "ö…"}, "work_class": "ö…"},
        "ö…{x}",
    ]
