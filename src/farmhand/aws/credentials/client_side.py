"""Encryption on this machine with the AWS Encryption SDK and the stack's key, before S3 gets the bytes.

The encryption context says which credential of which environment it is, is logged by CloudTrail, and is checked on
reading. Key commitment is required both ways, so that one message cannot be read as two.
"""

from __future__ import annotations

import logging
from typing import Any

from farmhand.aws.client import Aws
from farmhand.aws.errors import explain, explained
from farmhand.core.errors import FarmhandError, NotConfigured


def seal(aws: Aws, text: bytes, key_arn: str, environment: str, kind: str) -> bytes:
    """Return `text` as a message that only the key `key_arn` opens. Raise FarmhandError."""
    client, provider = _tools(aws, key_arn)
    with explained(f"encrypting with {key_arn}"):
        about = context(environment, kind)
        try:
            message, _ = client.encrypt(source=text, key_provider=provider, encryption_context=about)
        except Exception as error:
            raise _of_aws(error) or error from None
    return bytes(message)


def unseal(aws: Aws, message: bytes, key_arn: str, environment: str, kind: str) -> bytes:
    """Return the text of a message. Raise FarmhandError if it is of another credential, or was changed."""
    client, provider = _tools(aws, key_arn)
    with explained(f"decrypting with {key_arn}"):
        try:
            text, header = client.decrypt(source=message, key_provider=provider)
        except Exception as error:
            # A message that was changed fails in the SDK, or in the library below it, depending on where it was.
            if not type(error).__module__.startswith(("aws_encryption_sdk", "cryptography")):
                raise
            raise FarmhandError(f"the {kind} cannot be decrypted: {type(error).__name__}") from None
    wanted = context(environment, kind)
    if {name: header.encryption_context.get(name) for name in wanted} != wanted:
        raise FarmhandError(f"the message is not the {kind} of {environment}", hint="put it again")
    return bytes(text)


def context(environment: str, kind: str) -> dict[str, str]:
    """Return the encryption context of a credential."""
    return {"farmhand:environment": environment, "farmhand:kind": kind}


def check_installed() -> None:
    """Raise NotConfigured if the SDK is not installed."""
    _sdk()


def _of_aws(error: BaseException | None) -> Exception | None:
    """Return the error of boto3 that an error of the SDK has as its context, None for none."""
    while error is not None:
        if isinstance(error, Exception) and explain(error, "") is not None:
            return error
        error = error.__cause__ or error.__context__
    return None


def _sdk() -> Any:
    try:
        import aws_encryption_sdk
    except ModuleNotFoundError:
        hint = "pip install boto3 aws-encryption-sdk"
        raise NotConfigured("encryption here needs the Python package aws-encryption-sdk", hint=hint) from None
    # It logs every error with a traceback, to stderr where nothing else is set.
    logging.getLogger(aws_encryption_sdk.__name__).addHandler(logging.NullHandler())
    return aws_encryption_sdk


def _tools(aws: Aws, key_arn: str) -> tuple[Any, Any]:
    sdk = _sdk()
    client = sdk.EncryptionSDKClient(commitment_policy=sdk.CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
    # boto3's session holds botocore's, which has the same login and endpoints.
    session = aws.session._session
    return client, sdk.StrictAwsKmsMasterKeyProvider(key_ids=[key_arn], botocore_session=session)
