"""Other credentials than the metered key, in real containers with the real CLI: of a plan, a federation, a git server.

The canary is the token: it is in no environment, no argument, no log, no object and no description that a task, or
whoever looks at the account, could see.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farmhand.aws.names import Names
from tests.support.aws_site import AwsSite
from tests.support.git_server import GitServer, make_repository
from tests.support.messages_api import Federation
from tests.support.pair import bash, docker

PLAN = "sk-ant-oat01-test-canary-of-a-plan-" + "0" * 60
GIT = "ghp_test_canary_of_the_git_token_000000"
RULE = Federation()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsSite]:
    with AwsSite(tmp_path_factory.mktemp("kinds")) as made:
        yield made


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "origin")


class Sweep:
    """`with Sweep(site, canary) as sweep:` looks at the task's containers while they run."""

    def __init__(self, site: AwsSite, canary: str) -> None:
        self._site, self._canary = site, canary.encode()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.looked: set[str] = set()
        self.found: set[str] = set()

    def __enter__(self) -> Sweep:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._look()
            except (AssertionError, OSError, ValueError):
                time.sleep(0.1)  # a container has just ended

    def _look(self) -> None:
        label = "label=farmhand.container=worker"
        for name in docker("ps", "--filter", label, "--format", "{{.Names}}").split():
            self._see(f"inspect {name}", docker("inspect", name).encode())
            for pid in docker("top", name, "-eo", "pid").split()[1:]:
                for part in ("environ", "cmdline"):
                    self._see(f"worker {part}", Path(f"/proc/{pid}/{part}").read_bytes())
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self._see("any cmdline", path.read_bytes())
            except OSError:
                continue

    def _see(self, what: str, text: bytes) -> None:
        self.looked.add(what.split()[0])
        if self._canary in text:
            self.found.add(what)


def everything(site: AwsSite, names: Names) -> bytes:
    """What the account shows of an environment: objects, items, log, definitions, tasks, stacks."""
    s3, logs, ecs = site.aws.client("s3"), site.aws.client("logs"), site.aws.client("ecs")
    found: list[Any] = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=names.bucket):
        for one in page.get("Contents", []):
            found.append(s3.get_object(Bucket=names.bucket, Key=one["Key"])["Body"].read().decode("utf-8", "replace"))
    found.append(site.aws.client("dynamodb").scan(TableName=names.base)["Items"])
    lines = logs.filter_log_events(logGroupName=names.logs)["events"]
    assert lines
    found.append(lines)
    found += [ecs.describe_task_definition(taskDefinition=names.definition(size)) for size in ("api", "cli", "code")]
    arns = [
        arn
        for state in ("RUNNING", "STOPPED")
        for arn in ecs.list_tasks(cluster=names.base, desiredStatus=state)["taskArns"]
    ]
    assert arns
    found.append(ecs.describe_tasks(cluster=names.base, tasks=arns))
    found.append(site.aws.client("cloudformation").describe_stacks(StackName=names.base))
    return json.dumps(found, default=str).encode()


def in_environment(site: AwsSite, names: Names, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    before = site.environ
    site.environ = before | {"FARMHAND_AWS_ENVIRONMENT": names.environment, **more}
    try:
        return site.farmhand(*words)
    finally:
        site.environ = before


def test_the_real_cli_works_on_a_plan_s_token_that_nobody_sees(site: AwsSite, origin: Path) -> None:
    names = site.add("plan", CredentialKind="setup-token")
    site.aws.client("secretsmanager").put_secret_value(SecretId=names.secret("setup-token"), SecretString=PLAN)
    allowed = {"FARMHAND_ALLOW_SUBSCRIPTION_CLOUD": "true"}
    # Refused before anything is started.
    for words, more, said in (
        (["code", str(origin), "x", "--place", "fargate"], allowed, "--subscription uses it"),
        (["code", str(origin), "x", "--place", "fargate", "--subscription"], {}, "read docs/subscription.md first"),
        (["run", "--place", "fargate", "--subscription", "--engine", "api", "x"], allowed, "never the engine api"),
        (
            ["batch", str(origin / "f"), "--out", str(origin / "o"), "--place", "aws-batch"],
            allowed,
            "never runs on your plan",
        ),
    ):
        refused = in_environment(site, names, *words, **more)
        assert (refused.returncode, said in refused.stderr) == (5, True), refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    site.api.clear()
    site.api.keys(PLAN)
    script = "env; cat /proc/*/environ | tr '\\0' '\\n'; cat /proc/*/cmdline | tr '\\0' ' '; echo two >> f; sleep 3"
    site.api.rule("change it", bash(script), {"text": "{tool_result}"})
    with Sweep(site, PLAN) as sweep:
        done = in_environment(
            site, names, "code", str(origin), "change it", "--place", "fargate", "--subscription", "--json", **allowed
        )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["residency"], result["cost_usd"], result["repo"]["patch"]["files"]) == ("subscription", None, 1)
    assert result["list_usd"] > 0
    assert result["usage"]["output_tokens"] > 0
    assert "drew on your plan's own limits" in done.stderr
    assert "CLAUDE_CODE_OAUTH_TOKEN=jt-" in result["text"]
    assert PLAN not in done.stdout + done.stderr
    assert sweep.looked >= {"inspect", "worker", "any"}
    assert not sweep.found
    seen = everything(site, names)
    assert PLAN.encode() not in seen
    # The line of the log from which AWS makes the cost's metric.
    assert re.search(rb'"cost_usd": 0(\.0*)?, "requests": 2', seen.replace(b'\\"', b'"'))
    sent = [{name.lower(): value for name, value in post["headers"].items()} for post in site.api.posts()]
    assert {headers.get("authorization") for headers in sent} == {f"Bearer {PLAN}"}
    assert all("oauth-2025-04-20" in headers["anthropic-beta"] and "x-api-key" not in headers for headers in sent)
    text = in_environment(site, names, "run", "--place", "fargate", "--subscription", "--json", "hello", **allowed)
    assert (json.loads(text.stdout)["engine"], json.loads(text.stdout)["residency"]) == ("cli", "subscription")


def test_a_private_repository_is_fetched_in_the_task_on_a_federation_s_token(site: AwsSite, origin: Path) -> None:
    ids = {"FederationRule": RULE.rule, "FederationOrganization": RULE.organization}
    names = site.add(
        "fed", CredentialKind="none", CloneInTask="true", FederationServiceAccount=RULE.service_account, **ids
    )
    site.aws.client("secretsmanager").put_secret_value(SecretId=names.secret("git"), SecretString=GIT)
    site.api.clear()
    site.api.keys("sk-ant-test-a-key-that-nobody-has-0000")
    site.api.federation()
    script = "env; cat /proc/*/environ | tr '\\0' '\\n'; git log --oneline; echo two >> f; sleep 3"
    site.api.rule("change it", bash(script), {"text": "{tool_result}"})
    with GitServer(origin.parent, GIT) as server:
        site.aws.options(reach=[int(server.url.rpartition(":")[2])])
        words = ["code", f"{server.url}/origin/.git", "change it", "--place", "fargate", "--clone-in-task"]
        with Sweep(site, GIT) as sweep:
            done = in_environment(site, names, *words, "--patch")
        assert done.returncode == 0, done.stderr
        site.api.rule("break out", bash("mkdir -p .github/workflows; echo x > .github/workflows/a.yml"), {"text": "x"})
        words += ["--credential-source", "federation"]
        bad = in_environment(site, names, *[word if word != "change it" else "break out" for word in words])
        assert (bad.returncode, ".github/workflows/a.yml" in bad.stderr) == (5, True), bad.stderr
    subprocess.run(["git", "apply"], cwd=origin, input=done.stdout, text=True, check=True)
    assert (origin / "f").read_text() == "one\ntwo\n"
    assert any(given for _, given in server.asked)
    assert not sweep.found
    seen = everything(site, names)
    assert GIT.encode() not in seen
    assert b"sk-ant-oat01" not in seen
    sent = [{name.lower(): value for name, value in post["headers"].items()} for post in site.api.posts()]
    assert all(headers["authorization"].startswith("Bearer sk-ant-oat01-test-federated") for headers in sent)
