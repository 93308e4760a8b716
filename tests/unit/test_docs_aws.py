"""Every command of docs/aws.md: the real command line takes it, and a test of the double or of containers runs it."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from farmhand.aws.places.live_check import ROWS
from farmhand.cli.app import farmhand

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/aws.md").read_text("utf-8")
PROGRAMS = ("farmhand", "ansible-playbook")
E2E, AWS = "tests/e2e", "tests/integration/aws"
COLLECTED = "test_what_is_left_alone_is_collected_by_the_same_command"
LOGS = "test_a_task_s_text_is_shown_as_it_comes_and_its_log_and_cost_are_there"
VERIFIED = "test_every_row_is_looked_at_and_passes_where_the_double_has_it"
CLONED = "test_a_private_repository_is_fetched_in_the_task_on_a_federation_s_token"
KINDS = f"{E2E}/test_aws_kinds.py"
PLACES, DOCKER, CLOUD = f"{E2E}/test_aws_places.py", f"{E2E}/test_place_docker.py", f"{AWS}/test_cloud.py"
DOCS = f"{AWS}/test_docs_commands.py::test_the_commands_of_the_credentials_page_work_in_their_order"
#: Command, without what it may have besides → the test that runs it.
RUN_BY = {
    "farmhand code REPO TASK": f"{PLACES}::test_a_repository_task_runs_on_fargate_and_its_patch_is_judged",
    "farmhand code REPO TASK --clone-in-task": f"{KINDS}::{CLONED}",
    "farmhand code --place docker": f"{E2E}/test_code.py::test_a_patch_comes_back_and_applies",
    "farmhand run --place fargate …": f"{PLACES}::test_one_task_runs_on_fargate",
    "farmhand batch IN --out FILE --place aws-batch": f"{PLACES}::{COLLECTED}",
    "farmhand up --place docker": f"{DOCKER}::test_down_removes_the_containers_and_keeps_the_ledger",
    "farmhand down": f"{DOCKER}::test_down_removes_the_containers_and_keeps_the_ledger",
    "farmhand status": f"{DOCKER}::test_status_and_cost_know_the_place",
    "farmhand doctor": f"{DOCKER}::test_status_and_cost_know_the_place",
    "farmhand cost": f"{DOCKER}::test_status_and_cost_know_the_place",
    "farmhand report": f"{DOCKER}::test_status_and_cost_know_the_place",
    "farmhand rotate": f"{AWS}/test_rotation.py::test_ten_rotations_under_load",
    "farmhand cloud up": f"{CLOUD}::test_up_makes_changes_and_removes_the_stacks",
    "farmhand cloud down": f"{CLOUD}::test_down_removes_all_but_the_data_and_then_the_data",
    "farmhand cloud push": f"{E2E}/aws/test_push.py::test_the_command_says_what_it_pushed",
    "farmhand cloud status": f"{CLOUD}::test_status_and_cost_of_a_place_where_nothing_runs",
    "farmhand cloud logs TASK|BATCH": f"{PLACES}::{LOGS}",
    "farmhand cloud cancel TASK|BATCH": f"{CLOUD}::test_a_job_is_shown_counted_and_cancelled",
    "farmhand cloud cost": f"{PLACES}::{LOGS}",
    "farmhand cloud verify": f"{E2E}/test_aws_verify.py::test_without_live_it_says_what_it_would_do",
    "farmhand cloud verify --live": f"{E2E}/test_aws_verify.py::{VERIFIED}",
    "farmhand cloud credential put": DOCS,
    "farmhand cloud credential put --kind git --source file:~/tokens.env#GIT_TOKEN --expires 2027-03-01": DOCS,
    "farmhand cloud credential status": DOCS,
    "farmhand cloud credential check --upload": DOCS,
    "farmhand cloud credential rotate": DOCS,
    "farmhand cloud credential rotate --new-key file:~/new.env#KEY": DOCS,
    "farmhand cloud credential remove --kind git --yes": DOCS,
    "ansible-playbook playbooks/credential.yml --check --diff": DOCS,
}
#: What the section of what was never verified has to name: the design's list, and what has come since.
UNVERIFIED = (
    *("routes", "security groups", "endpoints' policies", "private names", "grants", "trail", "quotas", "scheduling"),
    *("ListJobs", "Spot's real notice", "pull", "exit codes", "volume", "IPv6", "seccomp", "plan's token", "SNS"),
)


@cache
def commands() -> dict[str, list[list[str]]]:
    """Command of the page, without what is in brackets → every way to write it, a choice at a time."""
    found: dict[str, list[list[str]]] = {}
    for text in _texts():
        optional = [group[1:-1] for group in re.findall(r"\[[^\]]*\]", text)]
        base = shlex.split(re.sub(r"\[[^\]]*\]", "", text))
        known = found.setdefault(" ".join(base), [base])
        for group in optional:
            known += [[*base, *words] for words in _ways(group)]
    return found


def _texts() -> Iterator[str]:
    """The commands as they stand there: lines of code blocks, which may go on, and pieces of text."""
    block = re.compile(r"```\n(.*?)```", re.DOTALL)
    for code in block.findall(TEXT):
        yield from (re.sub(r"\s+# .*", "", line) for line in re.sub(r"\n +", " ", code).splitlines())
    for piece in re.findall(r"`([^`]+)`", block.sub("", TEXT)):
        if piece.split()[0] in PROGRAMS and len(piece.split()) > 1:
            yield piece


def _ways(group: str) -> Iterator[list[str]]:
    """`--x a|b` is two, `--x|--y` too, `--x NAME` one."""
    for one in group.split(" | "):
        head, *rest = shlex.split(one)
        if rest:
            yield from ([head, value, *rest[1:]] for value in rest[0].split("|"))
        else:
            yield from ([word] for word in head.split("|"))


def is_group(words: list[str]) -> bool:
    found: click.Command | None = farmhand
    for word in words[1:]:
        found = found.get_command(click.Context(found), word) if isinstance(found, click.Group) else None
    return isinstance(found, click.Group)


def asked() -> list[str]:
    """The commands that do something; `farmhand cloud` alone is the name of a group."""
    return [name for name in commands() if name.split()[0] in PROGRAMS and not is_group(name.split())]


#: What stands for a value, in the page's own way → a value that the option takes.
VALUES = {"N": "1", "X": "1", "…": "hello"}


@pytest.mark.parametrize("name", asked())
def test_the_command_line_takes_it(name: str) -> None:
    for words in commands()[name]:
        program, *rest = [VALUES.get(word, word) for word in words]
        if program == "ansible-playbook":
            from ansible.cli.playbook import PlaybookCLI

            command = PlaybookCLI([program, *rest])
            command.init_parser()
            assert [(ROOT / path).exists() for path in command.parser.parse_args(rest).args] == [True]
            continue
        if name == "farmhand code --place docker":  # the page names the way, not the task
            rest += ["REPO", "TASK"]
        _parsed(farmhand, rest)


def _parsed(command: click.Command, words: list[str]) -> None:
    """Raise click's error for an option, a choice or a number of arguments that is not there."""
    while isinstance(command, click.Group):
        found = command.resolve_command(click.Context(command), words)
        command, words = found[1] or command, list(found[2])
    command.make_context(command.name or "", list(words))


def test_a_wrong_one_would_be_seen() -> None:
    for words in (["cloud", "down", "--network"], ["code", "R", "T", "--place", "moon"], ["cloud", "cancel"]):
        with pytest.raises(click.ClickException):
            _parsed(farmhand, words)


def test_every_command_has_a_test_that_runs_it() -> None:
    assert sorted(asked()) == sorted(RUN_BY)


@pytest.mark.parametrize("name", RUN_BY)
def test_that_test_is_there_and_has_its_words(name: str) -> None:
    path, _, function = RUN_BY[name].partition("::")
    source = (ROOT / path).read_text("utf-8")
    found = [one for one in ast.walk(ast.parse(source)) if getattr(one, "name", "") == function]
    assert found, RUN_BY[name]
    if RUN_BY[name] == DOCS:  # which reads them from the page
        return
    whole = source if name.startswith("farmhand batch") else ast.get_source_segment(source, found[0]) or ""
    for word in name.split():
        plain = re.fullmatch(r"[a-z-]+", word) and word not in (*PROGRAMS, "cloud", "--place", "docker")
        assert not plain or re.search(rf"""["'( .]{word}["'() ]""", whole), f"{function} does not run {word}"


def test_every_option_that_the_page_shows_is_given_in_a_test() -> None:
    files = [path for part in ("e2e", "integration") for path in (ROOT / "tests" / part).rglob("*.py")]
    sources = [path.read_text("utf-8") for path in files]
    shown = [words for name in asked() if RUN_BY.get(name) != DOCS for words in commands()[name]]
    for option in sorted({word for words in shown for word in words if word.startswith("--")}):
        assert any(f'"{option}"' in source for source in sources), option


def test_what_was_never_verified_is_listed_and_so_is_what_the_command_looks_at() -> None:
    section = TEXT.partition("## What was never verified\n")[2].partition("\n## ")[0]
    assert [word for word in UNVERIFIED if word not in section] == []
    assert [name for name in ROWS if f"| {name} |" not in section] == []
