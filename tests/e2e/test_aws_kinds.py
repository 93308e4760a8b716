"""Other credentials than the metered key, in real containers with the real CLI: of a plan, a federation, a git server.

The canary is the token: it is in no environment, no argument, no log, no object and no description that a task, or
whoever looks at the account, could see.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.aws_site import AwsSite
from tests.support.git_server import GitServer
from tests.support.messages_api import Federation
from tests.support.pair import bash
from tests.support.repositories import make_repository
from tests.support.sweep import CanarySweep, account, holding

PLAN = "sk-ant-oat01-test-canary-of-a-plan-" + "0" * 60
GIT = "ghp_test_canary_of_the_git_token_000000"
RULE = Federation()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "origin")


def test_the_real_cli_works_on_a_plan_s_token_that_nobody_sees(site: AwsSite, origin: Path) -> None:
    names = site.add("plan", CredentialKind="setup-token")
    site.aws.client("secretsmanager").put_secret_value(SecretId=names.secret("setup-token"), SecretString=PLAN)
    here = {"FARMHAND_AWS_ENVIRONMENT": "plan"}
    allowed = {**here, "FARMHAND_ALLOW_SUBSCRIPTION_CLOUD": "true"}
    # Refused before anything is started.
    for words, more, said in (
        (["code", str(origin), "x", "--place", "fargate"], allowed, "--subscription uses it"),
        (["code", str(origin), "x", "--place", "fargate", "--subscription"], here, "read docs/subscription.md first"),
        (["run", "--place", "fargate", "--subscription", "--engine", "api", "x"], allowed, "never the engine api"),
        (
            ["batch", str(origin / "f"), "--out", str(origin / "o"), "--place", "aws-batch"],
            allowed,
            "never runs on your plan",
        ),
    ):
        refused = site.farmhand(*words, environ=more)
        assert (refused.returncode, said in refused.stderr) == (5, True), refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    site.api.keys(PLAN)
    script = "env; cat /proc/*/environ | tr '\\0' '\\n'; cat /proc/*/cmdline | tr '\\0' ' '; echo two >> f; sleep 3"
    site.api.rule("change it", bash(script), {"text": "{tool_result}"})
    with CanarySweep(site, PLAN) as sweep:
        task = ("code", str(origin), "change it", "--place", "fargate", "--subscription", "--json")
        done = site.farmhand(*task, environ=allowed)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["residency"], result["cost_usd"], result["repo"]["patch"]["files"]) == ("subscription", None, 1)
    assert result["list_usd"] > 0
    assert result["usage"]["output_tokens"] > 0
    assert "drew on your plan's own limits" in done.stderr
    assert "CLAUDE_CODE_OAUTH_TOKEN=jt-" in result["text"]
    assert PLAN not in done.stdout + done.stderr
    sweep.check()
    seen = account(site, names)
    assert holding(PLAN, seen) == []
    # The lines of the log from which AWS makes the cost's metric.
    logs = [line["message"] for name, lines in seen.items() if name.startswith(f"log {names.logs}/") for line in lines]
    counted = [json.loads(line) for line in logs if line.startswith('{"cost_usd": ')]
    assert ({row["cost_usd"] for row in counted}, sum(row["requests"] for row in counted)) == ({0}, 2)
    sent = [{name.lower(): value for name, value in post["headers"].items()} for post in site.api.posts()]
    assert {headers.get("authorization") for headers in sent} == {f"Bearer {PLAN}"}
    assert all("oauth-2025-04-20" in headers["anthropic-beta"] and "x-api-key" not in headers for headers in sent)
    text = site.farmhand("run", "--place", "fargate", "--subscription", "--json", "hello", environ=allowed)
    assert (json.loads(text.stdout)["engine"], json.loads(text.stdout)["residency"]) == ("cli", "subscription")


def test_a_private_repository_is_fetched_in_the_task_on_a_federation_s_token(site: AwsSite, origin: Path) -> None:
    ids = {"FederationRule": RULE.rule, "FederationOrganization": RULE.organization}
    names = site.add(
        "fed", CredentialKind="none", CloneInTask="true", FederationServiceAccount=RULE.service_account, **ids
    )
    site.aws.client("secretsmanager").put_secret_value(SecretId=names.secret("git"), SecretString=GIT)
    site.api.keys("sk-ant-test-a-key-that-nobody-has-0000")
    site.api.federation()
    script = "env; cat /proc/*/environ | tr '\\0' '\\n'; git log --oneline; echo two >> f; sleep 3"
    site.api.rule("change it", bash(script), {"text": "{tool_result}"})
    here = {"FARMHAND_AWS_ENVIRONMENT": "fed"}
    with GitServer(origin.parent, GIT) as server:
        site.aws.options(reach=[int(server.url.rpartition(":")[2])])
        words = ["code", f"{server.url}/origin/.git", "change it", "--place", "fargate", "--clone-in-task"]
        with CanarySweep(site, GIT) as sweep:
            done = site.farmhand(*words, "--patch", environ=here)
        assert done.returncode == 0, done.stderr
        site.api.rule("break out", bash("mkdir -p .github/workflows; echo x > .github/workflows/a.yml"), {"text": "x"})
        words += ["--credential-source", "federation"]
        bad = site.farmhand(*[word if word != "change it" else "break out" for word in words], environ=here)
        assert (bad.returncode, ".github/workflows/a.yml" in bad.stderr) == (5, True), bad.stderr
    subprocess.run(["git", "apply"], cwd=origin, input=done.stdout, text=True, check=True)
    assert (origin / "f").read_text() == "one\ntwo\n"
    assert any(given for _, given in server.asked)
    sweep.check()
    seen = account(site, names)
    assert holding(GIT, seen) == holding("sk-ant-oat01", seen) == []
    sent = [{name.lower(): value for name, value in post["headers"].items()} for post in site.api.posts()]
    assert all(headers["authorization"].startswith("Bearer sk-ant-oat01-test-federated") for headers in sent)
