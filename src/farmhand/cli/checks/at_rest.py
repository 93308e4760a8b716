"""Check that no key is stored on the hosts. The dispatch account cannot look, so Ansible does, as root."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from farmhand.cli.checks import Check, failed, passed
from farmhand.core.errors import NotConfigured
from farmhand.core.scratch import private_directory
from farmhand.core.settings import Settings
from farmhand.places.ansible_environment import ansible_environment, find_program
from farmhand.places.checkout import find_project

_LIMIT_S = 600.0
#: Where the role `base` keeps the originals of scrubbed files: its variable base_scrub_backup_dir.
_IGNORED = "/var/backups/farmhand"


def at_rest(conf: Settings, hosts: list[str]) -> dict[str, Check]:
    """Return a check for each host: Ansible runs the module farmhand_search there, which only reads."""
    try:
        answers = _search(find_project(conf.project_dir, Path.cwd()))
    except NotConfigured as error:
        line = failed(f"not looked at: {error.message}", error.hint or "--skip at-rest leaves this out")
        return dict.fromkeys(hosts, line)
    return {host: _line(answers.get(host)) for host in hosts}


def _line(answer: dict[str, Any] | None) -> Check:
    if answer is None:
        return failed("not looked at: the inventory has no such host", "correct hosts.json: farmhand up")
    places = answer.get("places")
    if not isinstance(places, list):
        why = " ".join(str(answer.get("msg") or "no reason given").split())[:200]
        return failed(f"not looked at: {why}", "ansible farm -b -m ping, or --skip at-rest")
    if places:
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        return failed(
            f"a key is in {places[0]}{more}", "remove it there, and rotate if it still works: farmhand rotate"
        )
    return passed("no key in any file, process or journal")


def _search(directory: Path) -> dict[str, dict[str, Any]]:
    """Run farmhand_search on the group farm and return its answers by host. Raises NotConfigured."""
    program = find_program("ansible")
    arguments = ["farm", "--become", "-m", "farmhand_search", "-a", json.dumps({"ignore": [_IGNORED]})]
    with private_directory() as private:
        tree = private / "tree"
        tree.mkdir()
        try:
            done = subprocess.run(
                [program, *arguments, "--tree", str(tree)],
                cwd=directory,
                env=ansible_environment(directory),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NotConfigured(f"ansible did not end within {_LIMIT_S:.0f} s") from None
        answers = {path.name: _answer(path) for path in tree.iterdir()}
    if not answers:
        said = " ".join((done.stderr or done.stdout).decode("utf-8", "replace").split())[-200:]
        raise NotConfigured(f"ansible searched no host: {said}")
    return answers


def _answer(path: Path) -> dict[str, Any]:
    """Read the module's answer for one host, or Ansible's message if the module did not run; {} if it is not JSON."""
    try:
        answer = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        answer = None
    return answer if isinstance(answer, dict) else {}
