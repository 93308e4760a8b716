"""The exchange of a task's identity for a token, and the thread that keeps one, on the tests' own clock."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from farmhand.cloud import federation, token_keeper
from farmhand.cloud.ending import ContainerEnds, StopClock
from farmhand.cloud.federation import AccessToken, ExchangeFailed, FederationIds, TokenExchange
from farmhand.cloud.token_keeper import TokenKeeper
from farmhand.core import shard
from tests.support.fakeaws.identity import jwt_of
from tests.support.messages_api import Fault, Federation, MessagesApi

RULE = Federation(subject=":role/farmhand-test-task")
IDS = FederationIds(RULE.rule, RULE.organization, RULE.service_account)
TASK = "arn:aws:iam::123456789012:role/farmhand-test-task"
PATH = "/v1/oauth/token"


class Sts:
    """A client of STS."""

    def __init__(self, subject: str = TASK) -> None:
        self.subject = subject
        self.asked: list[dict[str, Any]] = []
        self.faults: list[str] = []

    def get_web_identity_token(self, **asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        if self.faults:
            raise ClientError({"Error": {"Code": self.faults.pop(0), "Message": "no"}}, "GetWebIdentityToken")
        return {"WebIdentityToken": jwt_of(self.subject, asked["Audience"][0], asked["DurationSeconds"])}


@pytest.fixture
def rule(api: MessagesApi) -> Federation:
    api.state.federation = Federation(subject=RULE.subject)
    return api.state.federation


async def exchanged(api: MessagesApi, sts: Sts | None = None, ids: FederationIds = IDS) -> AccessToken:
    return await asyncio.to_thread(TokenExchange(ids, api.url, sts or Sts()))


@pytest.mark.usefixtures("rule")
async def test_the_exchange_asks_aws_and_the_api_for_what_the_design_says(api: MessagesApi) -> None:
    sts = Sts()
    began = time.monotonic()
    token = await exchanged(api, sts)
    [asked] = sts.asked
    assert asked == {"Audience": ["https://api.anthropic.com"], "SigningAlgorithm": "RS256", "DurationSeconds": 300}
    assert token.value.startswith("sk-ant-oat01-")
    assert token.value not in repr(token)
    assert token.renew_at - began == pytest.approx(600 - 120, abs=5)
    assert token.until - token.renew_at == pytest.approx(120 - 30)
    [entry] = [entry for entry in api.state.log.entries(0) if entry.path == PATH]
    headers = {name.lower(): value for name, value in entry.headers.items()}
    assert "oidc-federation-2026-04-01" in headers["anthropic-beta"]
    assert not {"x-api-key", "authorization"} & headers.keys()


@pytest.mark.usefixtures("rule")
@pytest.mark.parametrize(
    ("fault", "code", "passing", "said"),
    [
        (Fault(kind="status", status=500, path=PATH), shard.EXIT_LEFT, True, "HTTP 500"),
        (Fault(kind="status", status=503, path=PATH, raw="<html>busy</html>"), shard.EXIT_LEFT, True, "HTTP 503"),
        (Fault(kind="status", status=429, path=PATH, retry_after=7), shard.EXIT_LEFT, True, "HTTP 429"),
        (Fault(kind="status", status=401, path=PATH), shard.EXIT_REFUSED, True, "fdrl_test does not match"),
        (Fault(kind="status", status=403, path=PATH), shard.EXIT_CONFIG, False, "HTTP 403"),
        (Fault(kind="status", status=302, path=PATH, headers={"location": "/x"}), shard.EXIT_CONFIG, False, "HTTP 302"),
        (Fault(kind="garbage", path=PATH), shard.EXIT_CONFIG, True, "it is no JSON object"),
        (Fault(kind="reset", path=PATH), shard.EXIT_LEFT, True, "cannot be asked"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else None,
)
async def test_what_fails_is_one_line_with_its_exit_code(
    api: MessagesApi, fault: Fault, code: int, passing: bool, said: str
) -> None:
    api.state.faults.add(fault)
    with pytest.raises(ExchangeFailed) as caught:
        await exchanged(api)
    assert (caught.value.code, caught.value.passing) == (code, passing)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.after_s == (fault.retry_after or 0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"expires_in": None}, "expires_in"),
        ({"expires_in": -600}, "expires_in"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": True}, "expires_in"),
        ({"expires_in": "soon"}, "expires_in"),
        ({"expires_in": [600]}, "expires_in"),
        ({"access_token": None}, "access_token"),
        ({"access_token": "sk-ant-test-a-metered-key-00000000"}, "access_token"),
        ({"access_token": "sk-ant-oat01-two\nlines-000000000000"}, "access_token"),
        ({"token_type": "mac"}, "token_type"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_no_token(
    api: MessagesApi, rule: Federation, answer: dict[str, Any], said: str
) -> None:
    rule.answer = answer
    with pytest.raises(ExchangeFailed) as caught:
        await exchanged(api)
    assert (caught.value.code, caught.value.passing) == (shard.EXIT_CONFIG, True)
    assert said in str(caught.value)
    assert "sk-ant" not in str(caught.value)


@pytest.mark.parametrize(("life", "most"), [(10**30, 86_400), ("3600", 3600), (3600.5, 3600.5), (20, 20)])
async def test_its_life_is_believed_up_to_a_day(api: MessagesApi, rule: Federation, life: Any, most: float) -> None:
    rule.answer = {"expires_in": life}
    began = time.monotonic()
    token = await exchanged(api)
    assert token.until - began == pytest.approx(most - min(30, most / 4), abs=5)
    assert token.renew_at - began == pytest.approx(most - min(120, most / 2), abs=5)


@pytest.mark.usefixtures("rule")
async def test_a_rule_that_does_not_match_says_where_to_look_and_repeats_no_identity(api: MessagesApi) -> None:
    with pytest.raises(ExchangeFailed) as caught:
        await exchanged(api, Sts("arn:aws:iam::123456789012:role/another"))
    assert caught.value.code == shard.EXIT_REFUSED
    assert "Workload identity in the Claude Console" in str(caught.value)
    assert "--workspace" in str(caught.value)
    assert "eyJ" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        (
            "OutboundWebIdentityFederationDisabledException",
            shard.EXIT_CONFIG,
            "enable-outbound-web-identity-federation",
        ),
        ("AccessDenied", shard.EXIT_CONFIG, "credential put --kind federation"),
        ("Throttling", shard.EXIT_LEFT, "Throttling"),
    ],
)
async def test_aws_s_own_refusals_say_what_to_do(api: MessagesApi, code: str, status: int, said: str) -> None:
    sts = Sts()
    sts.faults = [code]
    with pytest.raises(ExchangeFailed) as caught:
        await exchanged(api, sts)
    assert (caught.value.code, said in str(caught.value)) == (status, True)


@pytest.mark.parametrize("url", ["http://api.example.org", "https://", "https://[::1", "ftp://localhost"])
def test_no_identity_is_sent_in_the_clear(url: str) -> None:
    with pytest.raises(ContainerEnds, match="not https"):
        TokenExchange(IDS, url, Sts())


@pytest.mark.parametrize("text", ["", ",,,", "rule,,,", "rule", "a,b,c", ",org,,"])
def test_ids_that_are_not_whole_are_a_setting_s_fault(text: str) -> None:
    with pytest.raises(ContainerEnds) as caught:
        FederationIds.of(text)
    assert caught.value.code == shard.EXIT_CONFIG


@pytest.mark.usefixtures("rule")
async def test_an_exchange_that_does_not_answer_is_given_up(api: MessagesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federation, "TIMEOUT_S", 0.3)
    api.state.faults.add(Fault(kind="slow", delay_s=2, path=PATH))
    with pytest.raises(ExchangeFailed, match="timed out") as caught:
        await exchanged(api)
    assert (caught.value.code, caught.value.passing) == (shard.EXIT_LEFT, True)
    assert (await exchanged(api)).value


@pytest.mark.usefixtures("rule")
async def test_each_exchange_has_an_identity_of_its_own(api: MessagesApi) -> None:
    """One that is kept has ended when the token does: azure-cli#28708, azure-sdk-for-rust#1739."""
    sts = Sts()
    exchange = TokenExchange(IDS, api.url, sts)
    first, second = await asyncio.to_thread(exchange), await asyncio.to_thread(exchange)
    assert (len(sts.asked), first.value == second.value) == (2, False)


# --- the thread that keeps one ----------------------------------------------------------------------------------------


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def until(there: Any) -> None:
    """Wait until it is so."""
    end = time.monotonic() + 10
    while not there():
        assert time.monotonic() < end
        time.sleep(0.005)


class Kept:
    """A keeper on a test's clock; `plan` has what the exchanges come to: a life in seconds, or a failure."""

    def __init__(self, *plan: float | ExchangeFailed) -> None:
        self.plan = list(plan)
        self.clock = Clock()
        self.calls = 0
        self.given: list[str] = []
        self.keeper = TokenKeeper(self.exchange, self.clock, pause_s=0.01)
        self.keeper.give = self.given.append

    def exchange(self) -> AccessToken:
        self.calls += 1
        # A thread that a test leaves behind ends by itself.
        failed = ExchangeFailed(shard.EXIT_LEFT, "HTTP 503", passing=self.calls < 30)
        made = self.plan.pop(0) if self.plan else failed
        if isinstance(made, ExchangeFailed):
            raise made
        return AccessToken(f"token-{self.calls}", self.clock.now + made - 120, self.clock.now + made - 30)


def test_a_token_is_renewed_120_s_before_its_end_by_one_exchange() -> None:
    kept = Kept(600, 600)
    assert kept.keeper.obtain(StopClock()) == "token-1"
    kept.clock.now += 479
    time.sleep(0.05)
    assert (kept.calls, kept.keeper.failure) == (1, None)
    kept.clock.now += 1
    with kept.keeper._changed:
        kept.keeper._changed.notify_all()
    until(lambda: kept.keeper.value == "token-2")
    assert (kept.calls, kept.given) == (2, ["token-2"])


def test_a_renewal_that_fails_is_tried_again_and_30_s_before_the_end_the_container_ends() -> None:
    failed = ExchangeFailed(shard.EXIT_LEFT, "HTTP 503", passing=True)
    kept = Kept(600, failed, failed, 600)
    kept.keeper.obtain(StopClock())
    kept.clock.now += 480
    with kept.keeper._changed:
        kept.keeper._changed.notify_all()
    until(lambda: kept.keeper.value == "token-4")
    kept.clock.now += 480
    with kept.keeper._changed:
        kept.keeper._changed.notify_all()
    until(lambda: kept.calls > 5)
    assert kept.keeper.failure is None
    kept.clock.now += 90
    failure = kept.keeper.failure
    assert failure is not None
    assert failure.code == shard.EXIT_LEFT


def test_a_rule_that_refuses_is_tried_three_times_and_ends_the_wait() -> None:
    refused = ExchangeFailed(shard.EXIT_REFUSED, "does not match", passing=True)
    kept = Kept(refused, refused, refused, 600)
    with pytest.raises(ContainerEnds) as caught:
        kept.keeper.obtain(StopClock())
    assert (caught.value.code, kept.calls) == (shard.EXIT_REFUSED, 3)
    late = Kept(refused, 600)
    assert late.keeper.obtain(StopClock()) == "token-2"


def test_a_service_that_asks_for_too_much_time_is_not_waited_for() -> None:
    kept = Kept(ExchangeFailed(shard.EXIT_LEFT, "HTTP 429", passing=True, after_s=3600))
    with pytest.raises(ContainerEnds) as caught:
        kept.keeper.obtain(StopClock())
    assert (caught.value.code, kept.calls) == (shard.EXIT_LEFT, 1)


def test_a_refused_token_is_replaced_at_once_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(600, 600)
    kept.keeper.obtain(StopClock())
    assert kept.keeper.replace("token-1", StopClock()) == "token-2"
    assert (kept.calls, kept.given) == (2, ["token-2"])
    # Another one has replaced it meanwhile: nothing is exchanged.
    assert kept.keeper.replace("token-1", StopClock()) == "token-2"
    monkeypatch.setattr(token_keeper, "PATIENCE_S", 0.0)
    with pytest.raises(ContainerEnds) as caught:
        kept.keeper.replace("token-2", StopClock())
    assert caught.value.code == shard.EXIT_LEFT


def test_sigterm_ends_the_wait_for_a_first_token() -> None:
    stop = StopClock()
    stop.at = 0.0
    kept = Kept(ExchangeFailed(shard.EXIT_LEFT, "HTTP 503", passing=True))
    with pytest.raises(ContainerEnds, match="SIGTERM"):
        kept.keeper.obtain(stop)
