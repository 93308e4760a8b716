"""A worker image with the credential in one of its layers. Whoever can pull such an image, now or later, has it.

It is built on this machine, from the usual worker image, with the name farmhand-worker-baked:ENV-KIND. If the base
stack has a repository for it, it is pushed there: the agent container of tasks has it, and the worker never.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace

from farmhand.aws.credentials.credential import Credential, stamp
from farmhand.aws.credentials.store import Held
from farmhand.aws.environment.baked_images import BakedImages
from farmhand.aws.names import BAKED_REPOSITORY
from farmhand.core.child import scrubbed
from farmhand.core.errors import NotConfigured, Refused
from farmhand.core.settings import Settings
from farmhand.core.task_access import BAKED_FILE, OF_AN_IMAGE

#: The user of the container `agent`, who alone can read the file.
_OWNER = 900
_DIGEST, _EXPIRES, _BASE = "farmhand.digest", "farmhand.expires-at", "farmhand.base"


@dataclass(frozen=True, kw_only=True)
class WorkerImage:
    """What is built on: `made` builds it where it is not there, `name` only says its name; "" is any."""

    made: Callable[[], str] = lambda: "farmhand-worker"
    name: Callable[[], str] = lambda: ""


class BakedStore:
    """The images of one environment, on this machine and in the repository that `pushed` returns, if there is one.

    `accepted` is whether the operator has said --i-know-this-is-in-every-layer. Raise FarmhandError.
    """

    def __init__(
        self, conf: Settings, pushed: Callable[[], BakedImages | None], worker: WorkerImage, *, accepted: bool
    ) -> None:
        self._environment, self._network = conf.aws_environment, conf.aws_network
        self._pushed, self._worker, self._accepted = pushed, worker, accepted
        self.weaker = "whoever can pull the image has the credential, for as long as a copy of it is anywhere"

    def place(self, kind: str) -> str:
        """Return `image:` and the image's name."""
        return f"image:{self._name(kind)}"

    def look(self, kind: str) -> Held | None:
        """Return what the image has, by its labels; None if there is no such image here nor in the registry.

        Its digest is "", so that `put` makes it again, if it is only here or only there, or of older sources.
        """
        local, repository = self._here(kind), self._repository(kind)
        if repository is None:
            return local
        there = repository.listed(kind)
        if local is not None and (digest := there.get(_tag(kind, local.version))):
            return replace(local, version=digest)
        if local is None and not there:
            return None
        return Held(next(iter(there.values()), local.version if local else ""), "")

    def _here(self, kind: str) -> Held | None:
        asked = _docker("image", "inspect", "--format", "{{.Id}} {{json .Config.Labels}}", self._name(kind), fine=True)
        if not asked:
            return None
        version, _, labels = asked.partition(" ")
        found = json.loads(labels) or {}
        stale = self._worker.name() not in ("", found.get(_BASE))
        return Held(version, "" if stale else str(found.get(_DIGEST, "")), str(found.get(_EXPIRES, "")))

    def _repository(self, kind: str) -> BakedImages | None:
        return self._pushed() if kind in OF_AN_IMAGE else None

    def check(self, kind: str) -> None:
        """Refuse what must not be in an image."""
        if not self._accepted:
            hint = "Secrets Manager is the usual place; --i-know-this-is-in-every-layer makes it all the same"
            raise Refused(f"in an image, {self.weaker}", hint=hint)
        if kind == "login":
            raise Refused("a login ends within hours and an image does not", hint="leave out --place image")
        if self._network == "public":
            hint = 'aws_network = "private", or another place'
            raise Refused("an image with a credential is not for tasks that reach the internet", hint=hint)
        _docker("version", "--format", "{{.Server.Version}}")

    def put(self, credential: Credential) -> str:
        """Build the image, push it if there is a repository, and return its digest there, or its id.

        The build gets its files by a pipe: the credential is in no other file.
        """
        base, kind = self._worker.made(), credential.kind
        labels = {_DIGEST: credential.digest, _EXPIRES: stamp(credential.expires_at), _BASE: base}
        lines = [f"FROM {base}", f"COPY --chown={_OWNER}:{_OWNER} credential {BAKED_FILE}"]
        lines += [f'LABEL {name}="{text}"' for name, text in labels.items()]
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, text, mode in (("Dockerfile", "\n".join(lines), 0o644), ("credential", credential.value, 0o400)):
                about = tarfile.TarInfo(name)
                about.size, about.mode = len(text.encode()), mode
                tar.addfile(about, io.BytesIO(text.encode()))
        name = self._name(kind)
        made = _docker("build", "--quiet", "--network", "none", "--tag", name, "-", given=packed.getvalue())
        repository = self._repository(kind)
        return repository.push(made, _tag(kind, made)) if repository else made

    def how(self, kind: str, version: str) -> str:
        """Return how tasks get it: `version` is what `put` has returned."""
        if kind not in OF_AN_IMAGE:
            return f"no task takes a {kind} from an image"
        repository = self._repository(kind)
        if repository is None:
            return "it is on this machine only: farmhand cloud up -e aws_baked_image=true, then put it again"
        uri = f"{repository.uri}@{version}"
        return f"tasks get it by: farmhand cloud up -e aws_baked_image=true -e aws_baked_image_uri={uri}"

    def retire(self, kind: str) -> bool:
        """Return False: a new image has taken the name. Older ones are the registry's to remove, and Docker's."""
        return False

    def remove(self, kind: str) -> str:
        """Remove the images of a kind from this machine and from the registry."""
        repository = self._repository(kind)
        if repository is not None and (there := repository.listed(kind)):
            repository.delete(set(there.values()))
        _docker("image", "rm", "--force", self._name(kind), fine=True)
        return "copies of it that were pushed or pulled elsewhere still have the credential: make another one"

    def _name(self, kind: str) -> str:
        return f"{BAKED_REPOSITORY}:{self._environment}-{kind}"


def _tag(kind: str, image: str) -> str:
    """Return the tag of an image by its id, which says nothing of the credential."""
    return f"{kind}-{image.rpartition(':')[2]}"


def _docker(*words: str, given: bytes | None = None, fine: bool = False) -> str:
    """Return docker's output in one line; "" if it failed and that is `fine`."""
    environ = scrubbed() | {"DOCKER_BUILDKIT": "0"}
    try:
        done = subprocess.run(["docker", *words], input=given, env=environ, capture_output=True, check=False)
    except OSError as error:
        if fine:
            return ""
        raise NotConfigured(f"docker cannot be started: {error.strerror}", hint="install docker.io") from None
    if done.returncode and not fine:
        said = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"])[-1]
        raise NotConfigured(f"docker {words[0]} failed: {said}", hint="see: docker info")
    return "" if done.returncode else done.stdout.decode("utf-8", "replace").strip()
