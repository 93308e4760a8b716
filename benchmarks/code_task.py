"""`farmhand code --place docker` beside plain `claude -p` on this machine: the same task on the same repository."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.ground import ROOT, Ground, check, timed
from benchmarks.rows import Row, interleaved, medians
from farmhand.core.claude import SWITCHES
from farmhand.core.task import MODELS
from farmhand.places.image import REPOSITORY
from tests.support.claude import claude_binary
from tests.support.farm import FarmError
from tests.support.farm.run import run
from tests.support.pair import Pair, bash, docker

G = "(g) claude -p in the repository, no sandbox"
TASK = "change it"
#: A name of the base of its own, so that the image is one that nothing else uses.
BASE = "farmhand-worker-base:bench"
IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@example.org")


class Ways:
    """The task by each way. Each must change the file: what does not is no measurement."""

    def __init__(self, pair: Pair, directory: Path) -> None:
        self.pair = pair
        self.repository = directory / "repository"
        self.image = ""
        self._environ = {
            **{name: os.environ[name] for name in ("PATH", "HOME")},
            "XDG_STATE_HOME": str(directory / "state"),
            "FARMHAND_PROJECT_DIR": str(ROOT),
            "FARMHAND_DOCKER_NAME": pair.name,
            "FARMHAND_UPSTREAM_URL": pair.api.url,
            "FARMHAND_KEY_SOURCE": f"file:{pair.api_process.key_file}",
            "FARMHAND_WORKER_BASE_IMAGE": BASE,
        }
        self.repository.mkdir()
        (self.repository / "f").write_text("one\n")
        for words in (("init", "-q"), ("add", "."), (*IDENTITY, "commit", "-qm", "one")):
            subprocess.run(["git", *words], cwd=self.repository, check=True)
        pair.api.rule(TASK, bash("echo two >> f"), {"text": "done"})

    def warm(self) -> float:
        """Image and containers are there."""
        return timed(self._code)

    def no_containers(self) -> float:
        """The image is there."""
        self._remove()
        return timed(self._code)

    def no_image(self) -> float:
        """The base image and the downloads are there."""
        self._remove()
        docker("image", "rm", self.image)
        return timed(self._code)

    def plain(self) -> float:
        """The CLI itself, as a user of this machine."""
        environ = self._environ | SWITCHES | {"ANTHROPIC_BASE_URL": self.pair.api.url}
        argv = [str(claude_binary()), "-p", "--model", MODELS["haiku"], "--allowedTools", "Bash", "--", TASK]
        seconds = timed(lambda: self._call(argv, environ | {"ANTHROPIC_API_KEY": self.pair.api_process.key}))
        if (self.repository / "f").read_text() != "one\ntwo\n":
            raise FarmError("claude -p has changed nothing")
        (self.repository / "f").write_text("one\n")
        return seconds

    def _code(self) -> None:
        if "+two" not in self._farmhand("code", ".", TASK, "--place", "docker", "--patch"):
            raise FarmError("farmhand code has changed nothing")

    def _farmhand(self, *words: str) -> str:
        return self._call([str(Path(sys.executable).with_name("farmhand")), *words], self._environ)

    def _call(self, argv: list[str], environ: Mapping[str, str]) -> str:
        return check(run(argv, env=environ, cwd=self.repository, timeout_s=900)).stdout

    def _remove(self) -> None:
        """Remove the containers, but not their network, which has the API's address."""
        docker("rm", "--force", "--volumes", self.pair.pair.agent, self.pair.pair.worker)

    def first(self) -> None:
        """Build base and image where they are missing."""
        self._environ.pop("FARMHAND_WORKER_BASE_IMAGE")
        self._code()
        base = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "farmhand-worker-base").split()
        docker("tag", next(name for name in base if name != BASE), BASE)
        self._environ["FARMHAND_WORKER_BASE_IMAGE"] = BASE
        before = set(_images())
        self._code()
        (self.image,) = set(_images()) - before


def _images() -> list[str]:
    return docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY).split()


def measure(ground: Ground) -> list[Row]:
    """The rows of a repository task. They need Docker, not the farm."""
    with tempfile.TemporaryDirectory() as made:
        pair = Pair(Path(made), "bench")
        try:
            pair.listen()
            ways = Ways(pair, Path(made))
            ways.first()
            taken = interleaved(
                {"plain": ways.plain, "warm": ways.warm, "no containers": ways.no_containers}, ground.rounds
            )
            taken["no image"] = [ways.no_image() for _ in range(min(3, ground.rounds))]
        finally:
            pair.down()
            for image in (*([ways.image] if "ways" in locals() and ways.image else []), BASE):
                subprocess.run(["docker", "image", "rm", image], capture_output=True, check=False)
    middle = medians(taken)
    notes = {
        "warm": "second run: the containers are there",
        "no containers": "the image is there",
        "no image": f"first run; the base image and the downloads are there; {len(taken['no image'])} rounds",
    }
    return [
        Row(what=f"farmhand code, {name}", ours=middle[name], reference=middle["plain"], against=G, note=note)
        for name, note in notes.items()
    ]
