"""One secret of Secrets Manager and the stages of its versions.

AWSCURRENT is what a task gets, AWSPENDING the next one, AWSPREVIOUS the one before. What was measured or read:

- The first version of a secret is AWSCURRENT at once, whatever stage was asked for. So a value is proven before it is
  stored, and not only before it is current.
- A repeated PutSecretValue with the same token is ignored, also where that version has lost its stages meanwhile. So
  the stage is set explicitly afterwards.
- AWSPENDING may stay on the version that became current, and would block the next rotation. It is taken off explicitly.
- GetSecretValue may not find a stage that DescribeSecret shows already (aws-sdk-js-v3#7701). It is asked again.
- A secret that is marked for deletion takes no version (terraform-provider-aws#8219). It is restored first.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

from farmhand.aws.client import Aws
from farmhand.aws.errors import code_of, explained
from farmhand.core.errors import FarmhandError, NotConfigured, Refused

CURRENT, PENDING, PREVIOUS = "AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"
#: Days in which a removed secret can be brought back. Source: the least that DeleteSecret allows.
RECOVERY_DAYS = 7
#: How often, and after how many seconds, a stage is asked for again.
_TRIES, _PAUSE_S = 6, 0.5


def digest(kind: str, value: str) -> str:
    """Return the version id of a value: the SHA-256 of kind and value. The same value is always the same version."""
    return hashlib.sha256(f"{kind}\n{value}".encode()).hexdigest()


@dataclass(frozen=True)
class Stages:
    """The versions of a secret by stage, its tags, when it was last changed, in Unix seconds, and the ARN of its key.

    `next` is "" where the pending version is current already. `doomed`: it is marked for deletion.
    """

    current: str
    next: str
    previous: str
    tags: dict[str, str]
    changed: float | None
    doomed: bool = False
    key: str = ""


class Secret:
    """The secret called `name`, which may be its ARN."""

    def __init__(self, aws: Aws, name: str) -> None:
        self.name = name
        self._aws = aws

    @property
    def _client(self) -> Any:
        return self._aws.client("secretsmanager")

    def look(self) -> Stages | None:
        """Return its stages, None if there is no such secret. No value is read. Raise FarmhandError."""
        with explained(f"looking at the secret {self.name}"):
            try:
                found = self._client.describe_secret(SecretId=self.name)
            except Exception as error:
                if code_of(error) == "ResourceNotFoundException":
                    return None
                raise
        where = {
            stage: version for version, stages in (found.get("VersionIdsToStages") or {}).items() for stage in stages
        }
        current, pending = where.get(CURRENT, ""), where.get(PENDING, "")
        changed = found.get("LastChangedDate")
        return Stages(
            current,
            pending if pending != current else "",
            where.get(PREVIOUS, ""),
            {tag["Key"]: tag["Value"] for tag in found.get("Tags") or []},
            changed.timestamp() if changed else None,
            found.get("DeletedDate") is not None,
            str(found.get("KmsKeyId") or ""),
        )

    def value(self, stage: str) -> str:
        """Return the text of the version at `stage`. Raise NotConfigured if there is none."""
        for left in reversed(range(_TRIES)):
            with explained(f"reading the secret {self.name}"):
                try:
                    found = self._client.get_secret_value(SecretId=self.name, VersionStage=stage)
                except Exception as error:
                    if code_of(error) == "InvalidRequestException":
                        hint = f"aws secretsmanager restore-secret --secret-id {self.name}"
                        raise NotConfigured(f"the secret {self.name} is marked for deletion", hint=hint) from None
                    if code_of(error) != "ResourceNotFoundException":
                        raise
                else:
                    text = found.get("SecretString")
                    if text is None:
                        raise NotConfigured(f"the secret {self.name} holds bytes and no text")
                    return str(text)
            stages = self.look()
            if stages is None or not {CURRENT: stages.current, PENDING: stages.next, PREVIOUS: stages.previous}[stage]:
                break
            if left:
                time.sleep(_PAUSE_S)
        hint = "farmhand cloud credential put, or see: aws secretsmanager list-secrets"
        raise NotConfigured(f"there is no secret {self.name} with a version at {stage}", hint=hint)

    def create(self, kms_key: str, tags: dict[str, str]) -> None:
        """Make the secret without a value."""
        with explained(f"creating the secret {self.name}"):
            self._client.create_secret(Name=self.name, KmsKeyId=kms_key, Tags=_pairs(tags))

    def restore(self) -> None:
        """Take the mark for deletion off."""
        with explained(f"restoring the secret {self.name}"):
            self._client.restore_secret(SecretId=self.name)

    def store(self, value: str, token: str) -> None:
        """Store a value as the version `token` (32 to 64 characters), pending. The first version is current at once."""
        with explained(f"writing the secret {self.name}"):
            try:
                self._client.put_secret_value(
                    SecretId=self.name, SecretString=value, ClientRequestToken=token, VersionStages=[PENDING]
                )
            except Exception as error:
                if code_of(error) != "LimitExceededException":
                    raise
                # Seen by others (platform-engineering-labs/formae#746): this quota is the same for everybody.
                message = f"the secret {self.name} has as many versions as AWS keeps of the last 24 hours"
                raise Refused(message, hint="put it again tomorrow, and less often than every 15 minutes") from None

    def arrange(self, *, current: str, pending: str = "", previous: str = "") -> None:
        """Give the stages to these versions; "" takes a stage off. A crash on the way leaves each of them a stage.

        Raise FarmhandError if they are not where they should be in the end.
        """
        stages = self.look()
        if stages is not None and stages.current != current:
            self._move(CURRENT, stages.current, current)  # AWS gives AWSPREVIOUS to the old one
        for stage, wanted in ((PREVIOUS, previous), (PENDING, pending)):
            held = self._raw().get(stage, "")
            if held != wanted:
                self._move(stage, held, wanted)
        for _ in range(_TRIES):
            found = self._raw()
            if [found.get(stage, "") for stage in (CURRENT, PENDING, PREVIOUS)] == [current, pending, previous]:
                return
            time.sleep(_PAUSE_S)
        raise FarmhandError(f"the secret {self.name} does not keep the stages of its versions", hint="try again")

    def tag(self, **changed: str) -> None:
        """Set tags; an empty value takes one off. Names have _ for - and belong to farmhand:."""
        tags = {f"farmhand:{name.replace('_', '-')}": value for name, value in changed.items()}
        gone = [name for name, value in tags.items() if not value]
        with explained(f"tagging the secret {self.name}"):
            if len(gone) < len(tags):
                kept = {name: value for name, value in tags.items() if value}
                self._client.tag_resource(SecretId=self.name, Tags=_pairs(kept))
            if gone:
                self._client.untag_resource(SecretId=self.name, TagKeys=gone)

    def remove(self) -> None:
        """Mark it for deletion. It can be restored for RECOVERY_DAYS, under the same ARN."""
        with explained(f"removing the secret {self.name}"):
            self._client.delete_secret(SecretId=self.name, RecoveryWindowInDays=RECOVERY_DAYS)

    def _raw(self) -> dict[str, str]:
        """Return the version at each stage, as AWS has it."""
        with explained(f"looking at the secret {self.name}"):
            found = self._client.describe_secret(SecretId=self.name).get("VersionIdsToStages") or {}
        return {stage: version for version, stages in found.items() for stage in stages}

    def _move(self, stage: str, before: str, after: str) -> None:
        where = {"RemoveFromVersionId": before} if before else {}
        where |= {"MoveToVersionId": after} if after else {}
        with explained(f"moving {stage} of the secret {self.name}"):
            try:
                self._client.update_secret_version_stage(SecretId=self.name, VersionStage=stage, **where)
            except Exception as error:
                if code_of(error) != "InvalidParameterException":
                    raise
                message = f"another command moves the stages of the secret {self.name}"
                raise FarmhandError(message, hint="run it again") from None


def _pairs(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": name, "Value": value} for name, value in tags.items()]
