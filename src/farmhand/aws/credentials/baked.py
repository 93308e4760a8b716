"""A worker image with the credential in one of its layers. Whoever can pull such an image, now or later, has it.

It is built on this machine, from the usual worker image, with the name farmhand-worker-baked:ENV-KIND. If the base
stack has a repository for it, it is pushed there: the agent container of tasks has it, and the worker never.
"""

from __future__ import annotations

import io
import json
import shutil
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
#: Environment and kind: by it an image is found that has lost its name, or has more than one.
_OF = "farmhand.credential"


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
            left = self._every(kind)
            return Held(left[0], "") if left else None
        version, _, labels = asked.partition(" ")
        found = json.loads(labels) or {}
        stale = self._worker.name() not in ("", found.get(_BASE))
        return Held(version, "" if stale else str(found.get(_DIGEST, "")), str(found.get(_EXPIRES, "")))

    def _every(self, kind: str) -> list[str]:
        """Return the ids of all images of a kind on this machine, also of those without a name."""
        filters = (f"label={_OF}={self._environment}-{kind}", f"reference={self._name(kind)}")
        listed = [_docker("images", "--quiet", "--no-trunc", "--filter", one, fine=True) for one in filters]
        return list(dict.fromkeys("\n".join(listed).split()))

    def _repository(self, kind: str) -> BakedImages | None:
        return self._pushed() if kind in OF_AN_IMAGE else None

    def check(self, kind: str) -> None:
        """Refuse what must not be in an image."""
        if not self._accepted:
            hint = "Secrets Manager is the usual place; --i-know-this-is-in-every-layer makes it all the same"
            raise Refused(f"in an image, {self.weaker}", hint=hint)
        if kind not in OF_AN_IMAGE:
            raise Refused(f"no task reads a {kind} from an image", hint="leave out --place image")
        if self._network == "public":
            hint = 'aws_network = "private", or another place'
            raise Refused("an image with a credential is not for tasks that reach the internet", hint=hint)
        _docker("version", "--format", "{{.Server.Version}}")

    def put(self, credential: Credential) -> str:
        """Build the image, push it if there is a repository, and return its digest there, or its id.

        The build gets its files by a pipe: the credential is in no other file. It comes last, so that no image with it
        is without the labels. What it replaces is removed here. If the push fails this one is, and that keeps its name.
        """
        base, kind = self._worker.made(), credential.kind
        labels = {_DIGEST: credential.digest, _EXPIRES: stamp(credential.expires_at), _BASE: base}
        labels[_OF] = f"{self._environment}-{kind}"
        lines = [f"FROM {base}", *(f'LABEL {name}="{text}"' for name, text in labels.items())]
        lines += [f"COPY --chown={_OWNER}:{_OWNER} credential {BAKED_FILE}"]
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, text, mode in (("Dockerfile", "\n".join(lines), 0o644), ("credential", credential.value, 0o400)):
                about = tarfile.TarInfo(name)
                about.size, about.mode = len(text.encode()), mode
                tar.addfile(about, io.BytesIO(text.encode()))
        repository, before, name = self._repository(kind), self._every(kind), self._name(kind)
        named = _docker("image", "inspect", "--format", "{{.Id}}", name, fine=True)
        try:
            made = _docker("build", "--quiet", "--network", "none", "--tag", name, "-", given=packed.getvalue())
            version = repository.push(made, _tag(kind, made)) if repository else made
        except BaseException:
            _remove([image for image in self._every(kind) if image not in before], fine=True)
            if named:
                _docker("tag", named, name, fine=True)
            raise
        _remove([image for image in before if image != made], fine=True)
        return version

    def how(self, kind: str, version: str) -> str:
        """Return how tasks get it: `version` is what `put` has returned."""
        repository = self._repository(kind)
        if repository is None:
            return "it is on this machine only: farmhand cloud up -e aws_baked_image=true, then put it again"
        uri = f"{repository.uri}@{version}"
        return f"tasks get it by: farmhand cloud up -e aws_baked_image=true -e aws_baked_image_uri={uri}"

    def retire(self, kind: str) -> bool:
        """Return False: what a new image replaces goes from here with `put`, and the registry removes it itself."""
        return False

    def check_engine(self) -> None:
        """Raise NotConfigured if Docker is on this machine and does not answer: nobody can say what it has."""
        if shutil.which("docker"):
            _docker("version", "--format", "{{.Server.Version}}")

    def remove(self, kind: str) -> str:
        """Remove the images of a kind from the registry and from this machine, with all their names."""
        repository = self._repository(kind)
        if repository is not None and (there := repository.listed(kind)):
            repository.delete(set(there.values()))
        _remove(self._every(kind))
        return "copies of it that were pushed or pulled elsewhere still have the credential: make another one"

    def _name(self, kind: str) -> str:
        return f"{BAKED_REPOSITORY}:{self._environment}-{kind}"


def _tag(kind: str, image: str) -> str:
    """Return the tag of an image by its id, which says nothing of the credential."""
    return f"{kind}-{image.rpartition(':')[2]}"


def _remove(images: list[str], *, fine: bool = False) -> None:
    """Remove images, by their ids. A container that runs keeps its image: that is an error, unless `fine`."""
    if images:
        _docker("image", "rm", "--force", *images, fine=fine)


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
