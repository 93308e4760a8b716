"""`--credential-source`: another place than the environment's secret from which one task gets its credential."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from farmhand.aws.environment import task_credential
from farmhand.aws.environment.baked_images import IMAGE_URI
from farmhand.aws.environment.stacks import Stack
from farmhand.aws.names import Names
from farmhand.core import task_access
from farmhand.core.errors import Refused, UsageError

_OBJECT = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(\S{1,1024})")
FORMS = "s3://BUCKET/KEY, secretsmanager:NAME, federation, image:"


def check_form(source: str) -> None:
    """Raise UsageError if `source` has none of the forms. Nothing is asked for it."""
    named = source in ("federation", task_access.BAKED) or source.startswith("secretsmanager:")
    if not named and not _OBJECT.fullmatch(source):
        raise UsageError(f"--credential-source {source!r:.80} has none of the forms {FORMS}")


def environment(source: str, base: Stack, network: Stack, names: Names) -> dict[str, str]:
    """Return the agent's variables for `source`, {} for the environment's own credential.

    Raise Refused if the tasks there may not read it, with the stack's parameter that lets them, and NotConfigured.
    """
    kind = base.parameters.get("CredentialKind") or "key"
    if source == "federation":
        if not base.parameters.get("FederationRule"):
            hint = "farmhand cloud credential put --kind federation sets it"
            raise Refused(f"the stack {base.name} has no parameter FederationRule", hint=hint)
        task_credential.check_sts(network)
        return {task_access.SOURCE: source}
    baked = IMAGE_URI in base.outputs
    if source == task_access.BAKED:
        if not baked:
            hint = "farmhand cloud up -e aws_baked_image=true, then farmhand cloud credential put --place image"
            raise Refused(f"the stack {base.name} names no image with a credential in it: BakedImageUri", hint=hint)
        return {}
    if source.startswith("secretsmanager:"):
        if baked:
            hint = "leave out --credential-source; or farmhand cloud up -e aws_baked_image=false"
            raise Refused(f"the tasks of {base.name} get no secret: their image has the credential", hint=hint)
        own = names.secret(kind)
        if source.removeprefix("secretsmanager:") != own:
            hint = f"its parameter CredentialKind says which: {own}; farmhand cloud up -e aws_credential_kind=…"
            raise Refused(f"the tasks of {base.name} get one secret, and it is not that one", hint=hint)
        return {}
    found = _OBJECT.fullmatch(source)
    assert found is not None  # noqa: S101  (asked by check_form)
    bucket, key = found.groups()
    if bucket == names.bucket and key.startswith(f"{names.environment}/credentials/"):
        if base.parameters.get("S3Credential") != "true":
            hint = "farmhand cloud up -e aws_credential_in_bucket=true"
            raise Refused(f"tasks may not read {source}: see the parameter S3Credential of {base.name}", hint=hint)
    else:
        _check_extra(source, f"arn:aws:s3:::{bucket}/{key}", base, network)
    if key.endswith(".esdk"):
        raise Refused("a task reads no credential that was encrypted here", hint="put it without --client-side")
    return {task_access.SOURCE: source}


def _check_extra(source: str, arn: str, base: Stack, network: Stack) -> None:
    allowed = base.parameters.get("ExtraCredentialArn") or ""
    if not fnmatchcase(arn, allowed):
        hint = f"farmhand cloud up -e aws_extra_credential_arn={arn}"
        raise Refused(f"tasks may not read {source}: see the parameter ExtraCredentialArn of {base.name}", hint=hint)
    if network.outputs.get("NetworkMode", "private") != "public":
        hint = f"put it into the bucket of {base.name}, or farmhand cloud up --network public"
        raise Refused(f"a private network reaches no other bucket, and {source} is in one", hint=hint)
