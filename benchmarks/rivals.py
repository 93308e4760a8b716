"""What users would use instead, each as they would write it: (a) to (f) of the table.

All but (f) need the API key on a command line or in an environment of the farm host. The answers are counted: what
gives none is no measurement.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from benchmarks.ground import ROOT, Ground, check, timed, write_tasks
from farmhand.core.task import MODELS
from tests.support.farm import FarmError
from tests.support.farm.run import Completed

A = "(a) ssh host env KEY=… claude -p"
B = "(b) (a) under xargs -P"
C = "(c) GNU parallel --sshlogin, ControlMaster"
D = "(d) ansible -m command"
E = "(e) claude -p on the host itself"
F = "(f) a loop around the anthropic SDK"
MODEL = MODELS["haiku"]
PROMPT = "Say hello."


class Rivals:
    """The same tasks by other ways."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.farm = ground.farm
        self._environment = [f"ANTHROPIC_API_KEY={self.farm.key}", f"ANTHROPIC_BASE_URL={self.farm.api.url}"]

    def _claude(self) -> list[str]:
        return ["env", *self._environment, "claude", "-p", "--model", MODEL]

    def _ssh_config(self, *more: str) -> Path:
        """A user's ~/.ssh/config for the host, as `farm`."""
        farm = self.farm
        lines = ["Host farm", f"  HostName {farm.container.address}", "  User admin", "  IdentitiesOnly yes"]
        lines += [f"  IdentityFile {farm.state}/admin_ed25519", f"  UserKnownHostsFile {farm.state}/known_hosts"]
        path = farm.state / f"ssh_config{len(more)}"
        path.write_text("\n".join([*lines, *(f"  {line}" for line in more)]) + "\n", encoding="ascii")
        return path

    def one(self) -> Completed:
        """(a): what is to be replaced: the key in argv at both ends, the whole prompt of an interactive session."""
        return check(self.farm.ssh(*self._claude(), f"'{PROMPT}'"))

    def xargs(self, tasks: int, at_once: int) -> float:
        """(b): tasks a second."""
        config = self._ssh_config()
        line = f"ssh -F {config} farm {shlex.join(self._claude())} {{}} </dev/null"
        argv = ["xargs", "-P", str(at_once), "-I{}", "sh", "-c", line]
        return self._rate(tasks, argv, _lines(tasks))

    def parallel(self, tasks: int, at_once: int) -> float:
        """(c): tasks a second."""
        master = ("ControlMaster auto", f"ControlPath {self.farm.state}/cm-%C", "ControlPersist 60")
        config = self._ssh_config(*master)
        argv = ["parallel", "--will-cite", "--ssh", f"ssh -F {config}", "--sshlogin", f"{at_once}/farm"]
        return self._rate(tasks, [*argv, f"{shlex.join(self._claude())} {{}} </dev/null"], _lines(tasks))

    def ansible(self, tasks: int, at_once: int) -> float:
        """(d): tasks a second; one call a task, as a script would."""
        program = str(ROOT / ".venv/bin/ansible")
        line = f"{program} farm -m command -a {shlex.quote(shlex.join(self._claude()) + ' {}')}"
        return self._rate(tasks, ["xargs", "-P", str(at_once), "-I{}", "sh", "-c", line], _lines(tasks))

    def on_host(self, tasks: int, at_once: int) -> float:
        """(e): tasks a second, without any way to the host."""
        argv = ["docker", "exec", "--interactive", "--user", "admin", self.farm.container.name]
        claude = ["xargs", "-P", str(at_once), "-I{}", *self._claude(), "{}"]
        return self._rate(tasks, [*argv, *claude], _lines(tasks))

    def sdk(self, tasks: int, at_once: int) -> float:
        """(f): tasks a second, from the start of the program to its end."""
        inputs = write_tasks(self.farm.state / "sdk-in.jsonl", [f"{PROMPT} {n}" for n in range(tasks)])
        output = self.farm.state / "sdk-out.jsonl"
        argv = [sys.executable, str(ROOT / "benchmarks/sdk_loop.py"), str(inputs), str(output)]
        environment = dict(pair.split("=", 1) for pair in self._environment)
        seconds = timed(lambda: self.ground.program(*argv, "--concurrency", str(at_once), env=environment))
        _expect(tasks, output.read_text(encoding="utf-8").count("\n"), F)
        return tasks / seconds

    def _rate(self, tasks: int, argv: list[str], stdin: str) -> float:
        said: list[str] = []
        seconds = timed(lambda: said.append(self.ground.program(*argv, input=stdin).stdout))
        _expect(tasks, said[0].count("Loopback answer"), argv[0])
        return tasks / seconds


def _lines(tasks: int) -> str:
    """One word a task: a blank or a quote would go through two shells, which is the user's problem with these ways."""
    return "".join(f"task-{number}\n" for number in range(tasks))


def _expect(tasks: int, answered: int, way: str) -> None:
    if answered < tasks:
        raise FarmError(f"{way}: {answered} answers to {tasks} tasks")
