"""`farmhand code`, which is `claude-agent-aws`: a task on a repository, in a sandbox; a checked patch comes back."""

from __future__ import annotations

import os
import posixpath
import re
import sys
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote

import click

from farmhand.cli import render, task_options
from farmhand.cli.amount import MAX_USD
from farmhand.cli.code_kept import empty_directory, keep, keep_patch, write_result
from farmhand.cli.code_runs import FARGATE, CodeRun, DockerRun, FargateRun
from farmhand.cli.prompt import assemble
from farmhand.cli.say import note
from farmhand.cli.signals import Stoppable
from farmhand.cli.verb import VerbResult, verb
from farmhand.code import changes, repository
from farmhand.code.changes import Changes, PatchRefused
from farmhand.code.login import check_url
from farmhand.code.repository import FetchedCommit
from farmhand.core.decoding import as_name, as_names, as_text
from farmhand.core.errors import UsageError, from_result
from farmhand.core.ids import new_task_id
from farmhand.core.readable import counted, printable
from farmhand.core.scratch import private_directory
from farmhand.core.settings import Settings
from farmhand.core.task import PATCH
from farmhand.core.task_access import CloneOrder
from farmhand.places import docker

#: Seconds for a task where no time is given: work on a repository takes longer than an answer.
TIMEOUT_S = 1800.0
TOOLS = ("Bash", "Edit", "Glob", "Grep", "Read", "Write")


@verb(
    "code",
    *("model", "system", "timeout_s", "key_source", "pot", "project_dir"),
    json_help="Print the task's whole result, with what its patch changes, as one JSON object.",
    epilog="Exit status: 0 done (also with nothing changed), 1 the task failed, 2 usage, 3 not configured, 4 the "
    "containers do not answer, 5 the patch or the task was refused, 130 stopped by Ctrl-C. Without --timeout: "
    "30 minutes.",
)
@click.argument("where", metavar="REPO")
@click.argument("prompt", metavar="TASK")
@click.option("--ref", default="HEAD", metavar="REF", help="A branch, a tag or a whole commit id. Default: HEAD.")
@click.option("--subdir", default="", metavar="DIR", help="The directory of the repository to start in.")
@click.option(
    "--depth", type=click.IntRange(min=0), default=1, metavar="N", help="Commits of history; 0: all. Default: 1."
)
@click.option("--tools", multiple=True, metavar="TOOL[,TOOL…]", help=f"Tools it may use. Default: {','.join(TOOLS)}.")
@click.option("--max-usd", type=MAX_USD, default=2.0, metavar="US$", help="Default: 2.")
@click.option(
    "--place",
    "chosen",
    type=click.Choice(["auto", docker.NAME, FARGATE]),
    default="auto",
    help="auto (default): docker if you trust the repository, else fargate.",
)
@click.option("--spot", "on_spot", is_flag=True, help="On fargate: capacity that AWS may take back, for less.")
@click.option(
    "--subscription", is_flag=True, help="On fargate: run it on the token of your own plan: docs/subscription.md."
)
@click.option(
    "--credential-source",
    default="",
    metavar="SOURCE",
    help="On fargate: s3://BUCKET/KEY, secretsmanager:NAME or federation, if the stack lets its tasks use it.",
)
@click.option(
    "--clone-in-task",
    is_flag=True,
    help="On fargate with a public network: the task fetches REPO (https) itself, with the git token that is there.",
)
@click.option(
    "--trust", is_flag=True, help="Run it in containers on this machine, though the repository is not listed."
)
@click.option("--out", metavar="DIR", help="Write result.json, changes.patch, transcript.jsonl and what it left there.")
@click.option(
    "--patch", "as_patch", is_flag=True, help="Print the patch and nothing else: farmhand code … | git apply."
)
@click.option("--push", metavar="BRANCH", help="Push the changes to a new branch, with your own git login.")
@click.option(
    "--allow-ci-changes", is_flag=True, help="Accept changes of files that CI, git, editors or agents act on."
)
def command(
    conf: Settings,
    *,
    as_json: bool,
    where: str,
    prompt: str,
    ref: str,
    subdir: str,
    depth: int,
    tools: tuple[str, ...],
    max_usd: float,
    chosen: str,
    on_spot: bool,
    subscription: bool,
    clone_in_task: bool,
    credential_source: str,
    trust: bool,
    out: str | None,
    as_patch: bool,
    push: str | None,
    allow_ci_changes: bool,
    system: str | None = None,
) -> VerbResult:
    """Let Claude work on a repository in a sandbox, and return what it changed as a patch.

    Your own git fetches REPO (an address or a directory) here, with your login. One commit goes into the sandbox, no
    login and no key. What comes back is checked before anything of it is used. TASK - is read from stdin.
    """
    repository.check(where, ref)
    if push is not None:
        repository.check_branch(push)
    if as_patch and as_json:
        raise UsageError("--patch and --json: choose one")
    conf = conf._replace(place=_choose(conf, where, chosen, trust=trust))
    for name, given in (("--subscription", subscription), ("--credential-source", credential_source)):
        if given and conf.place != FARGATE:
            raise UsageError(f"{name} is for --place fargate", hint="containers on this machine use the key")
    clone = None
    if clone_in_task:
        _check_clone(conf, where, push)
        clone = CloneOrder(url=where, ref=ref, depth=depth, allow_ci=allow_ci_changes)
    task: dict[str, Any] = {
        "id": new_task_id(),
        "prompt": assemble(prompt, (), use_stdin=prompt == "-").text,
        "tools": as_names(tools, "--tools") or list(TOOLS),
        "timeout_s": conf.timeout_s or TIMEOUT_S,
        "max_usd": max_usd,
        "labels": {"repo": os.fsencode(where).decode("utf-8", "replace")[-200:]},
        # Its commit is known when it is fetched.
        "repo": {"commit": "0" * 40, "subdir": _plain(subdir)},
    }
    task |= {"model": as_name(conf.model, "--model")} if conf.model else {}
    task |= {"pot": conf.pot} if conf.pot else {}
    task |= {"system": as_text(system, "--system")} if system else {}
    task_options.check(task)
    run: CodeRun = (
        FargateRun(
            *(conf, task, where),
            asked=chosen == FARGATE,
            spot=on_spot,
            subscription=subscription,
            clone=clone,
            source=credential_source,
        )
        if conf.place == FARGATE
        else DockerRun(conf, task)
    )
    target = None if out is None else empty_directory(out)
    with (
        Stoppable() as stoppable,
        run.cancelled(stoppable),
        private_directory() as directory,
        stoppable.whole_cleanup(),
    ):
        source = None
        if clone is None:
            note(f"fetching {where}")
            source = repository.fetch(where, ref, directory, depth=depth)
            if submodules := repository.submodules(source):
                note(f"submodules are not fetched, and what is written there is lost: {submodules}")
            repository.check_subdir(source, task["repo"]["subdir"])
            if push is not None:
                changes.check_push(source, where, push)
            task["repo"] |= {"commit": source.commit, "shallow": list(source.shallow)}
        result = run.run(source, directory, stoppable, quiet=as_json or as_patch)
        notes: list[str] = []
        try:
            patch = (directory / PATCH).read_bytes()
            keep(target, directory, result)
            if (failure := from_result(result)) is not None:
                raise failure
            if source is None:
                found = _judged_there(result)
            else:
                found = changes.judge(source, patch, allow_ci=allow_ci_changes)
                result["repo"] = _about(source, found, patch)
            notes.append(_summary(found))
            if source is not None and push is not None and found is not None:
                changes.check_lfs(source, found)
                changes.push(source, changes.commit(source, found, _message(prompt, result)), where, push)
                result["repo"]["branch"] = push
                notes.append(f"pushed to the new branch {push}")
            write_result(target, result)
        except BaseException:  # Ctrl-C, too
            for line in notes:
                note(line)
            if where_kept := keep_patch(target, directory, result):
                note(f"its changes so far are in {where_kept}: read them before you apply them")
            raise
        # A patch that is printed is kept as well: the pipe may be closed, or `git apply` may not take it.
        if not (target or push) and (where_kept := keep_patch(None, directory, result)):
            notes.append(f"the patch is in {where_kept}")
    if as_patch:
        return VerbResult(result, lambda: _write(patch), notes=notes)
    # On a terminal it was shown as it came.
    seen = sys.stdout.isatty() and sys.stderr.isatty()
    return VerbResult(result, "" if seen else printable(render.answer_text(result)), notes=notes)


def _choose(conf: Settings, where: str, place: str, *, trust: bool) -> str:
    """Return the place for the repository: containers on this machine only if the operator says so."""
    if place != "auto":
        return place
    return docker.NAME if trust or _trusted(conf, where) else FARGATE


def _trusted(conf: Settings, where: str) -> bool:
    """Return whether a pattern of the settings names the repository: a directory's whole path, or an address.

    No pattern names an address with `..` in it, since the server is asked for another one.
    """
    if os.path.isdir(where):
        where = os.path.abspath(where)
    elif ".." in re.split("[/:]", unquote(where)):
        return False
    patterns = [pattern.strip() for pattern in conf.trusted_repos.split(",") if pattern.strip()]
    return any(fnmatchcase(where, pattern) for pattern in patterns)


def _check_clone(conf: Settings, where: str, push: str | None) -> None:
    """Raise UsageError if the task cannot fetch the repository itself."""
    if conf.place != FARGATE:
        raise UsageError("--clone-in-task is for --place fargate", hint="leave it out: your own git fetches it here")
    if push is not None:
        hint = "apply the patch in a clone of yours, and push that"
        raise UsageError("--push needs the clone on this machine, which --clone-in-task does not make", hint=hint)
    check_url(where)


def _judged_there(result: dict[str, Any]) -> Changes | None:
    """Return what the task's own container says that the patch changes. Raise PatchRefused as it says."""
    about = result.get("repo") or {}
    if refused := about.pop("refused", None):
        raise PatchRefused(str(refused["message"]), hint=str(refused["hint"]), code=str(refused["code"]))
    found = about.get("patch")
    return None if found is None else Changes(found["files"], found["insertions"], found["deletions"], tree="")


def _plain(subdir: str) -> str:
    """Return a directory of the repository as the rules want it: a/b for ./a/b/."""
    plain = posixpath.normpath(subdir).strip("/") if subdir else ""
    return "" if plain == "." else plain


def _about(source: FetchedCommit, found: Changes | None, patch: bytes) -> dict[str, Any]:
    about: dict[str, Any] = {"commit": source.commit, "branch": None, "patch": None}
    if found is not None:
        sizes = {
            "bytes": len(patch),
            "files": found.files,
            "insertions": found.insertions,
            "deletions": found.deletions,
        }
        about["patch"] = sizes
    return about


def _summary(found: Changes | None) -> str:
    if found is None:
        return "nothing was changed"
    files, lines = counted(found.files, "file"), counted(found.insertions, "line")
    return f"{files} changed, {lines} more, {found.deletions} less"


def _message(prompt: str, result: dict[str, Any]) -> str:
    subject = " ".join(prompt.split())[:72]
    return f"{subject}\n\n{render.answer_text(result).strip()[:4000]}\n"


def _write(patch: bytes) -> None:
    sys.stdout.buffer.write(patch)
    sys.stdout.buffer.flush()
