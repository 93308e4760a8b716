"""The image in the account's registry: built here, pushed once, named by its digest.

Its tag is the digest of the sources that it is built from, and tags cannot be moved there. So an image that is there
needs no build, and a push that another command has finished first is none of ours to repeat.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from farmhand.aws.client import Aws
from farmhand.aws.errors import explained
from farmhand.core.child import scrubbed
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured
from farmhand.core.scratch import private_directory
from farmhand.places import image
from farmhand.places.image import Say

#: Seconds for the registry to answer.
_ANSWER_S = 30
#: A manifest is no larger. Source: the same specification.
_MANIFEST_BYTES = 4 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: What a registry may call an image. Source: the OCI distribution specification, and Docker's older form.
_MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        *("oci.image.manifest.v1", "oci.image.index.v1"),
        *("docker.distribution.manifest.v2", "docker.distribution.manifest.list.v2"),
    )
)


@dataclass(frozen=True)
class Pushed:
    """An image in the registry. `uri` names it by its digest; `changed` is whether it was pushed now."""

    uri: str
    tag: str
    digest: str
    changed: bool


class Registry:
    """The account's registry, by a login for some hours. Nothing of that is in an argument or stays on the disk."""

    def __init__(self, aws: Aws) -> None:
        with explained("logging in to the registry"):
            [login] = aws.client("ecr").get_authorization_token()["authorizationData"]
        self._basic = str(login["authorizationToken"])
        self._url = str(login["proxyEndpoint"]).rstrip("/")
        self.host = urlsplit(self._url).netloc

    def digest(self, repository: str, tag: str) -> str:
        """Return the digest of an image, "" if there is none. Raise FarmhandError.

        A registry need not send the header; then it is the manifest's hash. Source: the OCI distribution specification.
        """
        return self._digest(repository, tag, "HEAD") or self._digest(repository, tag, "GET")

    def _digest(self, repository: str, tag: str, method: str) -> str:
        request = urllib.request.Request(  # noqa: S310  (AWS's own address)
            f"{self._url}/v2/{repository}/manifests/{tag}", method=method, headers={"Accept": _MANIFESTS}
        )
        # The login is for this address alone, and not for one that a redirect names.
        request.add_unredirected_header("Authorization", f"Basic {self._basic}")
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_S) as answer:  # noqa: S310
                digest = str(answer.headers.get("Docker-Content-Digest", ""))
                if not digest and answer.headers.get_content_type() in _MANIFESTS.split(", "):
                    body = answer.read(_MANIFEST_BYTES)
                    digest = f"sha256:{hashlib.sha256(body).hexdigest()}" if body else ""
                    if not body and method == "HEAD":
                        return ""
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return ""
            if error.code in (401, 403):
                hint = "your AWS user needs ecr:BatchGetImage on it"
                raise NotConfigured(f"the registry {self.host} refuses {repository}: {error}", hint=hint) from None
            raise FarmUnreachable(f"the registry {self.host} answers {error}", hint="try again later") from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise FarmUnreachable(f"the registry {self.host} does not answer: {reason}") from None
        except http.client.HTTPException as error:
            raise self._no_registry(f"what answers is no HTTP ({type(error).__name__})") from None
        if not _DIGEST.fullmatch(digest):
            raise self._no_registry(f"{repository}:{tag} is there without a digest")
        return digest

    def _no_registry(self, why: str) -> FarmUnreachable:
        hint = "see whether a proxy or a login page of the network answers (HTTPS_PROXY)"
        return FarmUnreachable(f"the registry {self.host} does not answer as one: {why}", hint=hint)

    def push(self, local: str, repository: str, tag: str) -> str:
        """Push the image `local` and return what Docker says if it fails, "" if not. Raise NotConfigured."""
        remote = f"{self.host}/{repository}:{tag}"
        user, _, password = b64decode(self._basic).decode().partition(":")
        with private_directory() as config:
            # A helper of the operator's own would keep this login.
            (config / "config.json").write_text(json.dumps({"auths": {}}), "utf-8")
            login = self._docker(config, "login", "--username", user, "--password-stdin", self._url, stdin=password)
            if login:
                raise NotConfigured(f"docker cannot log in to {self.host}: {login}")
            image.docker("tag", local, remote)
            try:
                return self._docker(config, "push", "--quiet", remote)
            finally:
                image.docker("rmi", "--no-prune", remote, fine="o such image")

    def bring(self, local: str, repository: str, tag: str) -> tuple[str, bool]:
        """Push the image `local` if it is not there. Return its digest, and whether it was pushed now.

        Raise FarmhandError.
        """
        if digest := self.digest(repository, tag):
            return digest, False
        failure = self.push(local, repository, tag)
        if digest := self.digest(repository, tag):  # if the push failed, another command's was first
            return digest, not failure
        raise FarmhandError(f"the image could not be pushed: {failure or 'the registry does not have it'}")

    def _docker(self, config: Path, *words: str, stdin: str = "") -> str:
        """Run docker with its own settings; return its last line if it fails, "" if not."""
        command = ["docker", "--config", str(config), *words]
        done = subprocess.run(command, env=scrubbed(), input=stdin, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return ""
        return [*"".join((done.stdout, done.stderr)).strip().splitlines(), "no reason given"][-2:][0]


def push(aws: Aws, checkout: Path, say: Say, base: str = "", *, check: bool = False) -> Pushed:
    """Make sure that the image of these sources is in the registry. `base` is as in places.image.ensure.

    With `check` only say whether it would be pushed; then uri and digest are "".
    Raise FarmhandError. The repository has to be there: the base stack makes it.
    """
    repository = aws.names.repository
    uri = _repository(aws, repository)
    tag = image.name_of(checkout, base).partition(":")[2]
    registry = Registry(aws)
    if digest := registry.digest(repository, tag):
        return Pushed(f"{uri}@{digest}", tag, digest, False)
    if check:
        return Pushed("", tag, "", True)
    local = image.ensure(checkout, say, base)
    say(f"pushing {tag} to {registry.host}")
    digest, changed = registry.bring(local, repository, tag)
    return Pushed(f"{uri}@{digest}", tag, digest, changed)


def check_docker() -> None:
    """Raise NotConfigured if no Docker engine answers."""
    image.docker("version", "--format", "{{.Server.Version}}")


def _repository(aws: Aws, name: str) -> str:
    with explained(f"looking for the repository {name}"):
        try:
            [found] = aws.client("ecr").describe_repositories(repositoryNames=[name])["repositories"]
        except Exception as error:
            if "RepositoryNotFound" not in type(error).__name__:
                raise
            raise NotConfigured(f"there is no repository {name}", hint="farmhand cloud up makes it") from None
    return str(found["repositoryUri"])


def machine() -> str:
    """Return the CPU of the image in AWS's words. Raise NotConfigured."""
    found = {"x86_64": "X86_64", "aarch64": "ARM64"}.get(os.uname().machine)
    if found is None:
        raise NotConfigured(f"there is no Fargate for {os.uname().machine}", hint="use an x86-64 or arm64 machine")
    return found
