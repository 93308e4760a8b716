"""What an environment has to have before anything runs in it: its stacks, a credential, sizes of its containers."""

from __future__ import annotations

from typing import NamedTuple

from farmhand.aws.client import Aws
from farmhand.aws.environment import credential_source, task_credential
from farmhand.aws.environment.baked_images import IMAGE_URI, BakedImages
from farmhand.aws.environment.stacks import Stack, Stacks
from farmhand.aws.errors import code_of, explained
from farmhand.aws.names import KINDS
from farmhand.aws.prices import CloudPrices, cloud_prices
from farmhand.core import shard
from farmhand.core.errors import NotConfigured, Refused
from farmhand.core.settings import UPSTREAM, Settings
from farmhand.core.task_access import OF_AN_IMAGE


def require(aws: Aws, *, subscription: bool | None = False, batch: bool = False, source: str = "") -> dict[str, str]:
    """Return the outputs of both stacks, with the kind of the credential and CLONES.

    Raise NotConfigured unless both are there, with an image and a credential, and Refused in another account, or if
    such work must not run on that credential; `subscription` is whether the operator's plan was asked for, None for
    what sends no request to a model. With a `source` of credential_source the agent's variables for it are there too.
    """
    stacks = Stacks(aws)
    base, network = (stacks.require(name) for name in (aws.names.base, aws.names.network))
    if "JobDefinitionApi" not in base.outputs:
        raise NotConfigured(f"the stack {aws.names.base} has no image yet", hint="farmhand cloud push makes it")
    if source:
        values = credential_source.environment(source, base, network, aws.names)
        if values:
            outputs = {KIND: source.partition(":")[0], CLONES: base.parameters.get(CLONES, "")}
            return base.outputs | network.outputs | outputs | values
    kind = task_credential.kind_of(base, network)
    if subscription is not None:
        task_credential.check_kind(kind, aws.names.environment, subscription=subscription, batch=batch)
    if uri := base.outputs.get(IMAGE_URI):
        _require_image(aws, kind, uri, base, network)
    elif kind in KINDS:
        _require_secret(aws, aws.names.secret(kind))
    return base.outputs | network.outputs | {KIND: kind, CLONES: base.parameters.get(CLONES, "")}


def require_clone(aws: Aws, outputs: dict[str, str]) -> None:
    """Raise Refused or NotConfigured if a task could not fetch a repository itself, by what `require` has returned."""
    if outputs.get("NetworkMode", "private") != "public":
        hint = "leave out --clone-in-task, and your own git fetches it here; or farmhand cloud up --network public"
        what = f"the network of {aws.names.environment} is private: from a task there is no way to a git server"
        raise Refused(what, hint=hint)
    if outputs.get(CLONES) != "true":
        hint = "farmhand cloud up -e aws_clone_in_task=true"
        raise NotConfigured(f"the stack {aws.names.base} gives repository tasks no git token", hint=hint)
    _require_secret(aws, aws.names.secret("git"), "--kind git ")


def _require_image(aws: Aws, kind: str, uri: str, base: Stack, network: Stack) -> None:
    """Raise Refused or NotConfigured unless the image with the credential is there, and has one of that kind."""
    if network.outputs.get("NetworkMode", "private") == "public":
        hint = "farmhand cloud up -e aws_baked_image=false"
        raise Refused("an image with a credential is not for tasks that reach the internet", hint=hint)
    images, digest = BakedImages.of(aws, base), uri.partition("@")[2]
    if kind not in OF_AN_IMAGE or images is None or digest not in images.listed(kind).values():
        hint = f"farmhand cloud credential put --place image --kind {kind}, then farmhand cloud up as it says"
        raise NotConfigured(f"the image {uri} is not there, or has no {kind} in it", hint=hint)


def _require_secret(aws: Aws, secret: str, how: str = "") -> None:
    with explained(f"looking for the secret {secret}"):
        try:
            stages = aws.client("secretsmanager").describe_secret(SecretId=secret).get("VersionIdsToStages") or {}
        except Exception as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
            stages = {}
    if not any("AWSCURRENT" in names for names in stages.values()):
        raise NotConfigured(f"the secret {secret} holds nothing", hint=f"farmhand cloud credential put {how}fills it")


def containers_environment(aws: Aws, conf: Settings) -> dict[str, str]:
    """Return the agent's environment that is the same for every order."""
    values = {shard.BUCKET: aws.names.bucket, shard.TABLE: aws.names.base, shard.ENVIRONMENT: aws.names.environment}
    return values | ({shard.UPSTREAM: conf.upstream_url} if conf.upstream_url != UPSTREAM else {})


#: Parameters of the base stack that are among the outputs of `require`.
KIND, CLONES = "CredentialKind", "CloneInTask"


class PriceTables(NamedTuple):
    """The prices of AWS, and the text of the operator's own prices of models, "" if there is none.

    `public`: each container has a public address, which costs too.
    """

    cloud: CloudPrices
    own: str
    public: bool = False


def price_tables(aws: Aws, conf: Settings, outputs: dict[str, str]) -> PriceTables:
    """Return the prices that are in force where the stacks have these outputs. Raise NotConfigured."""
    cloud, public = cloud_prices(aws.region, conf.aws_prices_file), outputs.get("AssignPublicIp") == "ENABLED"
    try:
        return PriceTables(cloud, conf.prices_path.read_text("utf-8"), public)
    except FileNotFoundError:
        return PriceTables(cloud, "", public)
    except (OSError, UnicodeDecodeError) as error:
        raise NotConfigured(f"the price file {conf.prices_path} cannot be read: {error}") from None
