"""The one way to AWS: a session with the operator's own login, and a client for each service."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from farmhand.aws.answers import check_answer
from farmhand.aws.errors import explain, explained, one_line
from farmhand.aws.names import ENVIRONMENT_RULE, Names, is_environment
from farmhand.core.errors import FarmhandError, NotConfigured, Refused
from farmhand.core.settings import Settings

#: Source: botocore's retry modes. "standard" also waits for a busy service.
_MODE, _TRIES = "standard", 8
_CONNECT_S, _READ_S = 10.0, 60


class Aws:
    """AWS as the operator's settings say. Nothing is asked before a client is used. Raise NotConfigured.

    The login is boto3's: `aws_profile`, or the environment, SSO, an instance's role. AWS_ENDPOINT_URL is honoured.
    `tries` and `connect_s` (seconds) are for commands that would rather go on without AWS than wait for it.
    """

    def __init__(self, conf: Settings, *, tries: int = _TRIES, connect_s: float = _CONNECT_S) -> None:
        if not is_environment(conf.aws_environment):
            raise NotConfigured(f"aws_environment {conf.aws_environment!r:.80} is not a name", hint=ENVIRONMENT_RULE)
        self._conf = conf
        self._tries, self._connect_s = tries, connect_s
        self._clients: dict[str, Any] = {}

    @cached_property
    def session(self) -> Any:
        """The session of boto3."""
        try:
            import boto3
        except ModuleNotFoundError:
            raise NotConfigured(
                "the place on AWS needs the Python package boto3", hint="pip install boto3 aws-encryption-sdk"
            ) from None
        with explained("logging in to AWS"):
            made = boto3.Session(profile_name=self._conf.aws_profile or None, region_name=self._conf.aws_region or None)
        made.events.register("before-parse", check_answer)
        return made

    def client(self, service: str, *, once: bool = False) -> Any:
        """Return the client of `service`. Calls on it belong into `explained`.

        With `once` it sends nothing a second time: for calls that would then be carried out twice.
        """
        name = f"{service} once" if once else service
        if name not in self._clients:
            session = self._logged_in
            from botocore.config import Config

            retries = {"total_max_attempts": 1} if once else {"mode": _MODE, "total_max_attempts": self._tries}
            config = Config(
                retries=retries, connect_timeout=self._connect_s, read_timeout=_READ_S, user_agent_extra="farmhand"
            )
            with explained(f"preparing {service}"):
                try:
                    self._clients[name] = session.client(service, config=config)
                except ValueError as error:
                    if explain(error, "") is not None:
                        raise
                    raise NotConfigured(f"preparing {service}: {error}", hint="see AWS_ENDPOINT_URL") from None
            self._clients[name].meta.events.register("provide-client-params.s3", self._of_our_account)
        return self._clients[name]

    def _of_our_account(self, params: dict[str, Any], model: Any, **_more: Any) -> dict[str, Any]:
        """Return the arguments of a call of S3, which then refuses a bucket of another account.

        A bucket's name can be told from the account's number, and is anybody's to take while we have none. Seen by
        others: aws/agent-toolkit-for-aws#305.
        """
        known = "ExpectedBucketOwner" in model.input_shape.members
        return {"ExpectedBucketOwner": self.account, **params} if known else params

    @cached_property
    def _logged_in(self) -> Any:
        """The session, once its login was read: also by a program of the operator's, or from a file of a cache.

        Seen by others (boto/botocore#3106, okta/okta-aws-cli#169): what these have is not always what botocore expects.
        """
        with explained("logging in to AWS"):
            try:
                if login := self.session.get_credentials():
                    login.get_frozen_credentials()
            except EOFError:
                message = "logging in to AWS: the profile asks for a code, and there is no terminal to ask on"
                raise NotConfigured(
                    message, hint="run it on a terminal, or log in before (aws sts get-session-token)"
                ) from None
            except Exception as error:
                if isinstance(error, FarmhandError) or explain(error, "") is not None:
                    raise
                what = f"logging in to AWS: the login cannot be read: {one_line(f'{type(error).__name__}: {error}')}"
                hint = "see credential_process and the files that ~/.aws/config names; delete ~/.aws/cli/cache"
                raise NotConfigured(what, hint=hint) from None
        return self.session

    @property
    def region(self) -> str:
        """The region. Raise NotConfigured if there is none."""
        region = self.session.region_name
        if not region:
            raise NotConfigured("no AWS region is set", hint="set aws_region in config.toml, or AWS_REGION")
        return str(region)

    @cached_property
    def account(self) -> str:
        """The account's number, by asking AWS who is logged in; so it proves the login as well.

        Raise Refused for an account that the settings do not name.
        """
        with explained("asking AWS who is logged in"):
            account = str(self.client("sts").get_caller_identity()["Account"])
        if self._conf.aws_account not in ("", account):
            hint = "log in to the other one (aws_profile), or correct aws_account"
            raise Refused(f"this is AWS account {account}, and aws_account is {self._conf.aws_account}", hint=hint)
        return account

    @cached_property
    def names(self) -> Names:
        """The names of what is in this environment, account and region."""
        return Names(self._conf.aws_environment, self.account, self.region)
