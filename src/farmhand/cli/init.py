"""`farmhand init`: ask for host, login and key, check each, write inventory and settings, and offer to build it."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import click

from farmhand.aws.boxes.keys import HostKey
from farmhand.cli import init_host
from farmhand.cli.init_files import SetupFile, write_all
from farmhand.cli.playbook import play
from farmhand.cli.say import note
from farmhand.cli.verb import VerbResult, verb
from farmhand.core.errors import FarmhandError, NotConfigured, Refused, UsageError
from farmhand.core.keysource import read_key
from farmhand.core.settings import UPSTREAM, Settings
from farmhand.places.ansible_environment import find_program
from farmhand.places.checkout import find_project, inventory_of
from farmhand.rotation.provider import check_key

_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_GROUPS = frozenset({"all", "farm", "localhost", "ungrouped"})
_MARK = "# Written by farmhand init. Settings of this host go into host_vars/{name}.yml."


@dataclass(frozen=True)
class _Answers:
    """What was asked and checked. `key` is the host key to write down, None if it is on record."""

    name: str
    way: init_host.Way
    user: str
    key: HostKey | None
    login: init_host.BoxLogin
    source: str


@verb(
    "init",
    "key_source",
    "project_dir",
    "connect_timeout_s",
)
@click.option("--address", metavar="ADDRESS", help="The box: a name, an IP address, or an alias of ~/.ssh/config.")
@click.option("--user", metavar="LOGIN", help="A login there that may become root.")
@click.option("--port", type=click.IntRange(1, 65535), help="The port of its sshd, if ssh's configuration has none.")
@click.option("--name", default="farm1", show_default=True, metavar="NAME", help="What the host is called here.")
@click.option("--host-key", metavar="FINGERPRINT", help="SHA256:… of its host key, as its console shows it.")
@click.option("--up/--no-up", "build", default=None, help="Whether to build the host at once, without a question.")
@click.option("--yes", is_flag=True, help="Replace what is there without a question.")
def command(
    conf: Settings,
    *,
    as_json: bool,
    address: str | None,
    user: str | None,
    port: int | None,
    name: str,
    host_key: str | None,
    build: bool | None,
    yes: bool,
) -> VerbResult:
    """Set this workstation up for a farm host: asks for what is not given, and checks each answer at once.

    It writes the inventory, config.toml and, once you have compared the fingerprint, the host key. Nothing is written
    before all is known, and nothing is replaced unasked.
    """
    directory = find_project(conf.project_dir, Path.cwd())
    _programs()
    if not _NAME.fullmatch(name):
        raise UsageError(f"--name {name!r} is no name for a host", hint="letters, digits, _ and -")
    if name in _GROUPS:
        raise UsageError(f"--name {name!r} is no name for a host", hint="Ansible has something else of that name")
    way = _asked(address, "Address of the box (or its alias in ~/.ssh/config)", None, lambda a: init_host.way(a, port))
    patience_s = round(conf.connect_timeout_s)
    key = _compared(way, host_key, patience_s)
    login_name, login = _asked(
        user, "Login there that may become root", "admin", lambda u: _login(way, u, key, patience_s)
    )
    source = _asked(
        conf.key_source if conf.key_source != Settings().key_source else None,
        "Where the metered API key is",
        conf.key_source,
        lambda text: _source(text, conf.upstream_url),
    )
    answers = _Answers(name, way, login_name, key, login, source)
    changes = [change for change in _changes(answers, conf, inventory_of(directory)) if change.changed]
    _may_replace([change for change in changes if change.before and not change.adds], yes=yes)
    write_all(changes)
    for change in changes:
        note(f"wrote {change.path}")
    document = {"name": name, "address": way.address, "written": [change.path for change in changes], "built": False}
    become = () if login.root else ("-K",)
    if build is None and _terminal():
        build = click.confirm(f"Build {name} now? It takes some minutes", default=True, err=True)
    if build:
        _environ_for(conf)
        play(directory, "site.yml", ("--limit", name, *become), as_json=as_json)
        return VerbResult(document | {"built": True}, "")
    return VerbResult(document, f"Next: {' '.join(('farmhand up', *become))}\n")


def _programs() -> None:
    find_program("ansible-playbook")
    for program, package in (("ssh-keyscan", "openssh-client"), ("npm", "npm")):
        if shutil.which(program) is None:
            raise NotConfigured(f"{program} is missing, which building a host needs", hint=f"install {package}")


def _terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _asked(given: str | None, question: str, default: str | None, check: Callable[[str], _T]) -> _T:
    """Return what `check` makes of what was given, or of an answer; a wrong answer is asked for again."""
    if given is not None:
        return check(given)
    if not _terminal():
        if default is not None:
            return check(default)
        raise UsageError("there is no terminal to ask on", hint="give --address, --user, --host-key and --key-source")
    while True:
        answer = click.prompt(question, default=default, err=True)
        try:
            return check(answer.strip())
        except FarmhandError as error:
            note(str(error))


def _compared(way: init_host.Way, given: str | None, patience_s: int) -> HostKey | None:
    """Return the host key once the operator has compared it; None if it is on record. Raise Refused."""
    known = init_host.known_keys(way)
    if known and way.proxied:
        return None
    key = init_host.host_key(way, patience_s)
    if key in known:
        return None
    if any(each.kind == key.kind for each in known):
        hint = f"find out why; if the box was made anew: ssh-keygen -R '{way.known_as}'"
        raise Refused(f"{way.address} shows another host key than the one on record: {key.fingerprint}", hint=hint)
    if given is not None:
        if given.rstrip("=").removeprefix("SHA256:") != key.fingerprint.removeprefix("SHA256:"):
            hint = "another machine answers there, or the fingerprint is of another kind of key"
            raise Refused(f"{way.address} has the host key {key.fingerprint} ({key.kind}), not {given!r}", hint=hint)
        return key
    file = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}.get(key.kind, "ecdsa")
    shown = f"{way.address} has the host key {key.fingerprint} ({key.kind})"
    compare = f"compare it on the box's console: ssh-keygen -lf /etc/ssh/ssh_host_{file}_key.pub"
    if not _terminal():
        raise Refused(f"{shown}, which is not on record", hint=f"{compare}; then give --host-key")
    note(f"{shown}; {compare}")
    if not click.confirm("Is it the same?", default=False, err=True):
        raise Refused("nothing was written: another machine may answer at that address")
    return key


def _login(way: init_host.Way, user: str, key: HostKey | None, patience_s: int) -> tuple[str, init_host.BoxLogin]:
    if not user or user.startswith("-") or any(c.isspace() or c == "@" for c in user):
        raise UsageError(f"{user!r} is no login")
    found = init_host.log_in(way, user, key, patience_s)
    root = "becomes root" if found.root else "does not become root without a password (farmhand up -K asks for it)"
    note(f"{user} on {way.address}: {found.system}; {root}")
    return user, found


def _source(text: str, upstream_url: str) -> str:
    key = read_key(text)
    try:
        check_key(key, upstream_url)
    except FarmhandError as error:
        if error.code != "api_unreachable":
            raise
        note(f"the key could not be tried: {error}")
    else:
        note(f"{upstream_url} accepts the key")
    return text


def _changes(answers: _Answers, conf: Settings, inventory: Path) -> list[SetupFile]:
    """Return the files before and after, those that lead to others last."""
    way, name = answers.way, answers.name
    host = {"ansible_host": way.address, "ansible_user": answers.user}
    lines = [f"      {word}: {_quoted(value)}" for word, value in host.items()]
    if way.port != init_host.way(way.address, None).port:
        lines.append(f"      ansible_port: {way.port}")
    text = "\n".join(["---", _MARK.format(name=name), "farm:", "  hosts:", f"    {_quoted(name)}:", *lines, ""])
    found = [SetupFile.of(inventory / f"{name}.yml", text)]
    farm = SetupFile.of(inventory / "group_vars" / "farm.yml", _variables(conf))
    if not farm.before:
        found.append(farm)
    if answers.key is not None:
        known = SetupFile.of(Path(way.known_hosts), "")
        kept = known.before if known.before.endswith("\n") or not known.before else f"{known.before}\n"
        after = f"{kept}{way.known_as} {answers.key.kind} {answers.key.blob}\n"
        found.append(replace(known, after=after, adds=True))
    config = SetupFile.of(Path(os.path.abspath(conf.config_file)), "")
    found.append(replace(config, after=_settings(config.before, answers.source), adds=not config.before))
    return found


def _variables(conf: Settings) -> str:
    text = "---\n# Settings of every farm host: docs/operations.md. No keys here, ever.\nansible_become: true\n"
    if conf.upstream_url != UPSTREAM:
        text += f"jada_agent_upstream_url: {_quoted(conf.upstream_url)}\n"
    return text


def _settings(before: str, source: str) -> str:
    """Return config.toml with this key source; all else stays as it is."""
    if before and tomllib.loads(before).get("key_source", Settings().key_source) == source:
        return before
    line = f"key_source = {_quoted(source)}"
    after, count = re.subn(r"^key_source\s*=.*$", lambda _: line, before, count=1, flags=re.MULTILINE)
    return after if count else f"{line}\n{before}"


def _quoted(text: str) -> str:
    """Return a string of TOML that is one of YAML as well."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _may_replace(changes: list[SetupFile], *, yes: bool) -> None:
    if not changes or yes:
        return
    names = ", ".join(change.path for change in changes)
    if not _terminal():
        raise Refused(f"{names} would be replaced", hint="--yes replaces it; --name makes another host")
    for change in changes:
        click.echo(change.diff(), err=True)
    if not click.confirm("Replace this?", default=False, err=True):
        raise Refused("nothing was written")


def _environ_for(conf: Settings) -> None:
    """Let the playbooks find these settings, wherever they are."""
    os.environ["FARMHAND_CONFIG"] = os.path.abspath(conf.config_file)
