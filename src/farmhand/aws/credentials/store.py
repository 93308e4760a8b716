"""Where credentials are kept on AWS: Secrets Manager, or one object of the bucket.

Secrets Manager is the usual place: there only the execution role may read, which acts before a task starts. The object
in S3 can be read by the task's own role, so a program that breaks out of its sandbox could read it too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import urlencode

from farmhand.aws.client import Aws
from farmhand.aws.credentials import client_side
from farmhand.aws.credentials.credential import Credential, stamp
from farmhand.aws.credentials.secret import RECOVERY_DAYS, Secret
from farmhand.aws.errors import code_of, explained
from farmhand.aws.names import TAG_ENVIRONMENT, TAG_EXPIRES
from farmhand.core.errors import FarmhandError, NotConfigured, UsageError

_KEY_ARN = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]{1,128}")


@dataclass(frozen=True)
class Held:
    """What a place holds. `digest` is the credential's; `previous`: an older one is there too; `tag` is of its end."""

    version: str
    digest: str
    tag: str = ""
    previous: bool = False


class CredentialStore(Protocol):
    """A place for the credentials of one environment. Every call raises FarmhandError.

    `weaker` says what makes it weaker than Secrets Manager, "" for nothing.
    """

    weaker: str

    def place(self, kind: str) -> str:
        """Return the place's name."""

    def look(self, kind: str) -> Held | None:
        """Return what is there; no credential is read."""

    def check(self, kind: str) -> None:
        """Check all that can be checked before `put` writes."""

    def put(self, credential: Credential) -> str:
        """Store it and return its version. The older one stays until `retire`."""

    def retire(self, kind: str) -> bool:
        """Remove older versions. Return whether there were any."""

    def remove(self, kind: str) -> str:
        """Remove all of it. Return what is worth a line."""


def check_key_arn(text: str) -> str:
    """Return `text` if it is the ARN of a key. Raise UsageError.

    The bucket's policy compares it with the key's ARN, so an alias or a short id would be refused by AWS.
    """
    if not _KEY_ARN.fullmatch(text):
        raise UsageError("--kms-key is not the ARN of a key", hint="arn:aws:kms:REGION:ACCOUNT:key/ID, and no alias")
    return text


def stack_key(aws: Aws) -> str:
    """Return the ARN of the stack's own key. Raise NotConfigured if there is no such stack."""
    name = aws.names.base
    hint = "farmhand cloud up makes it; --kms-key ARN uses a key of your own"
    with explained(f"looking at the stack {name}"):
        try:
            [stack] = aws.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        except Exception as error:
            if code_of(error) != "ValidationError":
                raise
            message = f"there is no stack {name} in account {aws.account}, region {aws.region}"
            raise NotConfigured(message, hint=hint) from None
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs") or []}
    if "KeyArn" not in outputs:
        raise NotConfigured(f"the stack {name} ({stack.get('StackStatus')}) has no output KeyArn", hint=hint)
    return str(outputs["KeyArn"])


class SecretStore:
    """Secrets Manager: each kind is one secret. `key` returns the key's ARN, which only a new secret needs.

    `stated` is the ARN of the key that it has to be encrypted with, "" for any.
    """

    weaker = ""

    def __init__(self, aws: Aws, key: Callable[[], str], stated: str = "") -> None:
        self._aws, self._key, self._stated = aws, key, stated

    def secret(self, kind: str) -> Secret:
        """Return the secret of a kind."""
        return Secret(self._aws, self._aws.names.secret(kind))

    def place(self, kind: str) -> str:
        """Return `secretsmanager:` and the secret's name."""
        return f"secretsmanager:{self._aws.names.secret(kind)}"

    def look(self, kind: str) -> Held | None:
        """Return the current version; None if the secret is not there, has no version, or is being deleted."""
        found = self.secret(kind).look()
        if found is not None and self._stated and found.key != self._stated:
            message = f"{self.place(kind)} is there, encrypted with {found.key or 'a key of AWS'}"
            raise UsageError(message, hint="leave out --kms-key; --place s3 --client-side takes one")
        if found is None or found.doomed or not found.current:
            return None
        return Held(found.current, found.current, found.tags.get(TAG_EXPIRES, ""), bool(found.previous))

    def check(self, kind: str) -> None:
        """Check that the secret is there, or that it can be made."""
        if self.secret(kind).look() is None:
            self._key()
            self._check_stack(kind)

    def _check_stack(self, kind: str) -> None:
        """Raise NotConfigured if the stack has made this secret, which is gone.

        A new one would have another ARN than tasks are given, and no policy that keeps others out.
        """
        name, stack = self._aws.names.secret(kind), self._aws.names.base
        with explained(f"looking at the resources of the stack {stack}"):
            try:
                pages = self._aws.client("cloudformation").get_paginator("list_stack_resources")
                listed = [one for page in pages.paginate(StackName=stack) for one in page["StackResourceSummaries"]]
            except Exception as error:
                if code_of(error) != "ValidationError":
                    raise
                return
        if any(f":secret:{name}-" in str(one.get("PhysicalResourceId", "")) for one in listed):
            hint = "farmhand cloud down, then farmhand cloud up makes it again; the data stays"
            raise NotConfigured(f"the stack {stack} has lost its secret {name}, which was deleted", hint=hint)

    def put(self, credential: Credential) -> str:
        """Store it as the pending version, make that current, take the pending stage off."""
        secret, names = self.secret(credential.kind), self._aws.names
        found = secret.look()
        if found is None:
            secret.create(self._key(), {TAG_ENVIRONMENT: names.environment})
        elif found.doomed:
            secret.restore()
            found = secret.look()
        before = found.current if found else ""
        version = credential.digest
        if before != version:
            secret.store(credential.value, version)
        previous = found.previous if found and before == version else before
        secret.arrange(current=version, previous=previous)
        secret.tag(environment=names.environment, expires_at=stamp(credential.expires_at))
        return version

    def retire(self, kind: str) -> bool:
        """Take AWSPREVIOUS off; AWS deletes a version without a stage."""
        secret = self.secret(kind)
        found = secret.look()
        if found is None or found.doomed or not found.previous:
            return False
        secret.arrange(current=found.current, pending=found.next)
        return True

    def remove(self, kind: str) -> str:
        """Mark the secret for deletion. The stack names it by its ARN, which only restoring keeps."""
        self.secret(kind).remove()
        return f"AWS deletes the secret in {RECOVERY_DAYS} days; until then credential put brings it back"


class ObjectStore:
    """One object for each kind, encrypted by KMS; with `sealed` also on this machine, before it is sent.

    The object is JSON: kind, value, expires_at. Its metadata has the digest. No ACL is sent: AWS refuses any where the
    bucket's owner owns all objects.
    """

    def __init__(self, aws: Aws, key: Callable[[], str], *, sealed: bool = False) -> None:
        self._aws, self._key, self._sealed = aws, key, sealed
        self.weaker = "the task's own role can read it, so a program that leaves its sandbox could"

    def place(self, kind: str) -> str:
        """Return the object's address."""
        return f"s3://{self._aws.names.bucket}/{self._object(kind)}"

    def look(self, kind: str) -> Held | None:
        """Return the newest version."""
        with explained(f"looking at {self.place(kind)}"):
            try:
                head = self._do("head_object", Key=self._object(kind))
            except Exception as error:
                code = code_of(error)
                if code in ("404", "NoSuchKey", "NoSuchBucket"):  # `check` says what is missing
                    return None
                if code == "403":
                    raise self._no_right() from None
                raise
            tags = self._do("get_object_tagging", Key=self._object(kind))["TagSet"]
        tag = next((tag["Value"] for tag in tags if tag["Key"] == TAG_EXPIRES), "")
        held = Held(str(head.get("VersionId", "")), head["Metadata"].get("digest", ""), tag)
        return replace(held, previous=len(self._versions(kind)) > 1)

    def check(self, kind: str) -> None:
        """Check that the bucket is there, is ours, and keeps versions."""
        bucket = self._aws.names.bucket
        with explained(f"looking at the bucket {bucket}"):
            try:
                status = self._do("get_bucket_versioning").get("Status")
            except Exception as error:
                if code_of(error) not in ("NoSuchBucket", "404"):
                    raise
                raise NotConfigured(f"there is no bucket {bucket}", hint="farmhand cloud up makes it") from None
        if status != "Enabled":
            raise NotConfigured(f"the bucket {bucket} keeps no versions", hint="farmhand cloud up corrects it")
        self._key()
        if self._sealed:
            client_side.check_installed()

    def put(self, credential: Credential) -> str:
        """Write the object."""
        kind = credential.kind
        document = {"kind": kind, "value": credential.value, "expires_at": credential.expires_at}
        body = json.dumps(document, sort_keys=True).encode()
        key, names = self._key(), self._aws.names
        if self._sealed:
            body = client_side.seal(self._aws, body, key, names.environment, kind)
        tags = {TAG_ENVIRONMENT: names.environment, TAG_EXPIRES: stamp(credential.expires_at)}
        with explained(f"writing {self.place(kind)}"):
            answer = self._do(
                "put_object",
                Key=self._object(kind),
                Body=body,
                ContentType="application/octet-stream" if self._sealed else "application/json",
                ServerSideEncryption="aws:kms",
                SSEKMSKeyId=key,
                Tagging=urlencode({name: value for name, value in tags.items() if value}),
                Metadata={"digest": credential.digest},
            )
        return str(answer.get("VersionId", ""))

    def retire(self, kind: str) -> bool:
        """Delete all versions but the newest."""
        return self._delete(kind, self._versions(kind)[1:])

    def remove(self, kind: str) -> str:
        """Delete all versions."""
        self._delete(kind, self._versions(kind))
        return ""

    def _no_right(self) -> NotConfigured:
        """Return the error of a refused HEAD. AWS gives no reason, also where the object is not there at all."""
        names = self._aws.names
        bucket = f"arn:aws:s3:::{names.bucket}"
        statement = (
            f'{{"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject", "s3:GetObjectTagging"], '
            f'"Resource": ["{bucket}", "{bucket}/{names.environment}/credentials/*"]}}'
        )
        hint = f"add {statement} to your AWS user or role; the bucket's own policy must let it in, too"
        return NotConfigured(f"AWS refuses to say what is in {names.bucket}", hint=hint)

    def _object(self, kind: str) -> str:
        return self._aws.names.credential_key(kind, client_side=self._sealed)

    def _versions(self, kind: str) -> list[str]:
        """Return the ids of the object's versions and delete markers, the newest first."""
        with explained(f"listing the versions of {self.place(kind)}"):
            found = self._do("list_object_versions", Prefix=self._object(kind))
        every = [
            *(found.get("Versions") or []),
            *(found.get("DeleteMarkers") or []),
        ]
        mine = [version for version in every if version["Key"] == self._object(kind)]
        mine.sort(key=lambda version: (version["IsLatest"], version["LastModified"]), reverse=True)
        return [str(version["VersionId"]) for version in mine]

    def _delete(self, kind: str, versions: list[str]) -> bool:
        if not versions:
            return False
        listed = [{"Key": self._object(kind), "VersionId": version} for version in versions]
        with explained(f"deleting versions of {self.place(kind)}"):
            answer = self._do("delete_objects", Delete={"Objects": listed, "Quiet": True})
        if failed := answer.get("Errors"):
            raise FarmhandError(f"{self.place(kind)}: {len(failed)} versions stay: {failed[0].get('Message')}")
        return True

    def _do(self, action: str, **given: Any) -> dict[str, Any]:
        answer: dict[str, Any] = getattr(self._aws.client("s3"), action)(Bucket=self._aws.names.bucket, **given)
        return answer
