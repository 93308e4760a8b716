"""ECR's login points at the registry that stands for it, if there is one, and its images are those of that registry."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from moto.core.responses import ActionResult
from moto.ecr import responses

from tests.support.fakeaws.options import OPTIONS

#: The form in which Docker pushes, and in which the registry knows an image's digest.
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def change() -> None:
    """Change moto."""
    login, delete = responses.ECRResponse.get_authorization_token, responses.ECRResponse.batch_delete_image
    listed = responses.ECRResponse.list_images

    def get_authorization_token(self: Any) -> Any:
        answer = login(self)
        if OPTIONS.registry:
            for one in _entries(answer):
                one["proxyEndpoint"] = f"http://{OPTIONS.registry}"
        return answer

    def list_images(self: Any) -> Any:
        answer = listed(self)  # refuses a repository that is not there
        if not OPTIONS.registry:
            return answer
        found = _tags(self._get_param("repositoryName"), _basic(login(self)))
        return ActionResult({"imageIds": [{"imageTag": tag, "imageDigest": digest} for tag, digest in found.items()]})

    def batch_delete_image(self: Any) -> Any:
        if not OPTIONS.registry:
            return delete(self)
        listed(self)
        repository, gone = self._get_param("repositoryName"), self._get_param("imageIds")
        for one in gone:
            _ask("DELETE", f"{repository}/manifests/{one['imageDigest']}", _basic(login(self)))
        return ActionResult({"imageIds": gone, "failures": []})

    responses.ECRResponse.get_authorization_token = get_authorization_token
    responses.ECRResponse.list_images = list_images
    responses.ECRResponse.batch_delete_image = batch_delete_image


def _tags(repository: str, basic: str) -> dict[str, str]:
    """Tag → digest of what is in a repository of the registry."""
    try:
        names = json.loads(_ask("GET", f"{repository}/tags/list", basic)[0])["tags"] or []
        heads = {tag: _ask("HEAD", f"{repository}/manifests/{tag}", basic)[1] for tag in names}
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return {}
    return {tag: str(head["Docker-Content-Digest"]) for tag, head in heads.items()}


def _ask(method: str, path: str, basic: str) -> tuple[bytes, Any]:
    headers = {"Authorization": f"Basic {basic}", "Accept": _MANIFEST}
    request = urllib.request.Request(f"http://{OPTIONS.registry}/v2/{path}", headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return answer.read(), answer.headers


def _basic(answer: Any) -> str:
    return str(_entries(answer)[0]["authorizationToken"])


def _entries(answer: Any) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = answer.result["authorizationData"]
    return entries
