"""The images with a credential in the account's registry. Their repository is there only if the stack asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from farmhand.aws.client import Aws
from farmhand.aws.environment.image import Registry
from farmhand.aws.environment.stacks import Stack, Stacks
from farmhand.aws.errors import explained
from farmhand.core.errors import FarmhandError

#: The most images that ECR deletes in a call. Source: BatchDeleteImage's reference.
_AT_ONCE = 100
#: Outputs of the base stack: the repository, and the image that its definitions name.
REPOSITORY_URI, IMAGE_URI = "BakedRepositoryUri", "BakedImageUri"


@dataclass(frozen=True)
class BakedImages:
    """The repository `uri`. Every call raises FarmhandError. A tag is the credential's kind and the image's id."""

    aws: Aws
    uri: str

    @classmethod
    def of(cls, aws: Aws, base: Stack | None = None) -> BakedImages | None:
        """Return the repository of the base stack, which is looked for if it is not given. None if there is none."""
        base = base or Stacks(aws).look(aws.names.base)
        uri = base.outputs.get(REPOSITORY_URI) if base else ""
        return cls(aws, uri) if uri else None

    def listed(self, kind: str = "") -> dict[str, str]:
        """Return tag → digest, of one kind or of all. An image without a tag has its digest for it."""
        name = self.aws.names.baked_repository
        with explained(f"looking at the images of {name}"):
            pages = list(self.aws.client("ecr").get_paginator("list_images").paginate(repositoryName=name))
        found = {
            str(one.get("imageTag") or one["imageDigest"]): str(one["imageDigest"])
            for page in pages
            for one in page["imageIds"]
        }
        return {tag: digest for tag, digest in found.items() if tag.startswith(f"{kind}-" if kind else "")}

    def push(self, local: str, tag: str) -> str:
        """Push the image `local` and return its digest."""
        return Registry(self.aws).bring(local, self.aws.names.baked_repository, tag)[0]

    def delete(self, digests: set[str]) -> None:
        """Delete these images with all their tags. One that is gone already is no error.

        ECR answers 200 where it has deleted nothing, and says so in a list. Source: BatchDeleteImage's reference.
        """
        name, ids = self.aws.names.baked_repository, [{"imageDigest": digest} for digest in sorted(digests)]
        failed: list[dict[str, Any]] = []
        with explained(f"deleting the images of {name}"):
            for at in range(0, len(ids), _AT_ONCE):
                answer = self.aws.client("ecr").batch_delete_image(
                    repositoryName=name, imageIds=ids[at : at + _AT_ONCE]
                )
                failed += answer.get("failures") or []
        left = [one for one in failed if one.get("failureCode") != "ImageNotFound"]
        if left:
            why = f"{left[0].get('failureCode')}: {left[0].get('failureReason')}"
            raise FarmhandError(f"{len(left)} images with the credential are still in {name}: {why}")
