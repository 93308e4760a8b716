"""The images with a credential in the registry: what ECR has not deleted is not said to be gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.ecr.models import ECRBackend

from farmhand.aws.client import Aws
from farmhand.aws.environment.baked_images import BakedImages
from farmhand.core.errors import FarmhandError
from tests.unit.aws.conftest import conf

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture
def images(empty: Path) -> BakedImages:
    """A repository with 130 images."""
    aws = Aws(conf())
    name = aws.names.baked_repository
    uri = boto3.client("ecr").create_repository(repositoryName=name)["repository"]["repositoryUri"]
    for number in range(130):
        config = {"digest": f"sha256:{number:064x}", "size": 1}
        text = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []})
        about = {"imageManifest": text, "imageTag": f"key-{number}", "imageDigest": config["digest"]}
        boto3.client("ecr").put_image(repositoryName=name, **about)
    return BakedImages(aws, uri)


def test_all_are_deleted_however_many_and_what_is_gone_is_no_error(images: BakedImages) -> None:
    digests = set(images.listed("key").values())
    assert len(digests) == 130
    images.delete(digests | {f"sha256:{999:064x}"})
    assert images.listed() == {}


def test_what_ecr_does_not_delete_is_an_error(images: BakedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ECRBackend.batch_delete_image

    def refusing(self: ECRBackend, *given: Any, **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = real(self, *given, **more)
        reason = "Requested image referenced by manifest list"
        return answer | {"failures": [{"failureCode": "ImageReferencedByManifestList", "failureReason": reason}]}

    monkeypatch.setattr(ECRBackend, "batch_delete_image", refusing)
    with pytest.raises(FarmhandError, match=r"2 images with the credential are still in .*ManifestList: Requested"):
        images.delete(set(images.listed("key").values()))
