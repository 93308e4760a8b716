"""What is wrong before anything runs on AWS: one line each, its exit code, and nothing is made.

The design's check 15, for the verbs that run tasks. Those of `farmhand cloud` have tables of their own: BAD in
test_cloud.py, ROWS in tests/unit/cli/cloud/test_credential.py. What fails while tasks run is in test_aws_batch_ends.py,
test_run_task.py and tests/integration/cloud.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farmhand.aws.client import Aws
from farmhand.aws.names import Names
from farmhand.cli import app
from tests.support.cloud import deploy
from tests.support.fakeaws.client import FakeAws
from tests.support.repositories import make_repository

KEY = "sk-ant-test-failure-table-000000000000"
RUN = "run --place fargate hello"
BATCH = "batch in.jsonl --out o --place aws-batch"
CODE = "code origin x --place fargate"
#: Words, exit code, part of the line.
USAGE: list[tuple[str, int, str]] = [
    ("run --place aws-batch hello", 2, "--place fargate"),
    ("run --place moon hello", 2, "moon"),
    ("run --place fargate", 2, "prompt"),
    ("run --place fargate --id 'a b' hello", 2, "the id does not match"),
    ("run --place fargate --max-tokens 0 hello", 2, "max"),
    (f"run --place fargate 'it is {KEY}'", 2, "the API key itself"),
    ("batch in.jsonl --place aws-batch", 2, "--out"),
    ("batch in.jsonl --out o --place fargate", 2, "--place aws-batch"),
    ("batch in.jsonl --out o --place aws-batch --economy", 2, "needs no containers"),
    ("batch in.jsonl --out o --place aws-batch --when-spent haiku,w=economy", 2, "economy is not for containers"),
    ("run --place fargate --when-spent haiku --model sonnet hello", 2, "not for a task on AWS"),
    ("batch in.jsonl --out o --place docker --shard 5", 2, "--place aws-batch"),
    ("batch in.jsonl --out o --place farm --detach", 2, "--detach is for --place aws-batch"),
    ("batch in.jsonl --out o --place aws-batch --shard 1001", 2, "--shard"),
    ("batch in.jsonl --out o --place aws-batch --max-usd 0", 2, "--max-usd"),
    ("batch in.jsonl --out o --place aws-batch --concurrency 0", 2, "--concurrency"),
    ("batch in.jsonl --out o --place aws-batch --batch 'a b'", 2, "--batch"),
    ("batch none.jsonl --out o --place aws-batch", 2, "none.jsonl"),
    ("batch in.jsonl --out none/o --place aws-batch", 2, "none/o"),
    ("code ext::sh x --place fargate", 2, "not a repository"),
    ("code file:///etc x --place fargate", 2, "not a repository"),
    ("code none x --place fargate", 2, "none"),
    ("code origin x --place fargate --ref --upload-pack=x", 2, "not the name"),
    ("code origin x --place fargate --ref gone", 1, "gone"),
    ("code origin x --place fargate --push 'a b'", 2, "a b"),
    ("code origin x --place fargate --max-usd -1", 2, "--max-usd"),
    ("code origin '' --place fargate", 2, "prompt"),
    ("status --place fargate", 2, "farmhand cloud status"),
]
NOBODY = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
DENIED = "User: arn:aws:iam::1:user/me is not authorized to perform: {} on resource: arn:x because no policy allows it"


def fault(service: str, action: str, code: str, status: int = 400, message: str = "injected") -> dict[str, Any]:
    return {"service": service, "action": action, "times": 99, "status": status, "code": code, "message": message}


def denied(service: str, action: str, path: str = "") -> dict[str, Any]:
    return fault(service, path or action, "AccessDeniedException", 403, DENIED.format(f"{service}:{action}"))


#: What AWS is like: (variables, faults); the words that meet it; exit code, part of the line.
WRONG: list[tuple[str, dict[str, str], list[dict[str, Any]], str, int, str]] = [
    ("no login", NOBODY, [], RUN, 3, "log in (aws sso login"),
    ("no profile", {"AWS_PROFILE": "gone"}, [], RUN, 3, "gone"),
    (
        "sso without login",
        {"AWS_PROFILE": "sso", **NOBODY},
        [],
        BATCH,
        3,
        "aws sso login",
    ),
    ("expired", {}, [fault("sts", "GetCallerIdentity", "ExpiredToken", 403)], CODE, 3, "log in again: aws sso login"),
    ("unknown key", {}, [fault("sts", "GetCallerIdentity", "InvalidClientTokenId", 403)], RUN, 3, "refused the login"),
    (
        "clock of sts",
        {},
        [fault("sts", "GetCallerIdentity", "SignatureDoesNotMatch", 403, "Signature expired: 1 is now earlier than 2")],
        RUN,
        3,
        "this machine's clock is wrong by ",
    ),
    ("clock", {}, [fault("secretsmanager", "Describe", "RequestTimeTooSkewed", 403)], RUN, 3, "clock is wrong by"),
    ("wrong account", {"FARMHAND_AWS_ACCOUNT": "999999999999"}, [], BATCH, 5, "aws_account is 999999999999"),
    ("no region", {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, [], CODE, 3, "region"),
    ("wrong region", {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1"}, [], RUN, 3, "region eu-west-1"),
    ("no name", {"FARMHAND_AWS_ENVIRONMENT": "Prod!"}, [], BATCH, 3, "aws_environment"),
    ("nothing there", {"FARMHAND_AWS_ENVIRONMENT": "none"}, [], BATCH, 3, "farmhand cloud up"),
    ("rolled back", {"FARMHAND_AWS_ENVIRONMENT": "rolled"}, [], CODE, 3, "ROLLBACK_COMPLETE: B (AWS::Batch::JobQ"),
    ("no image", {"FARMHAND_AWS_ENVIRONMENT": "bare"}, [], RUN, 3, "farmhand cloud push"),
    ("no network", {"FARMHAND_AWS_ENVIRONMENT": "alone"}, [], BATCH, 3, "farmhand-alone-network"),
    ("no secret", {"FARMHAND_AWS_ENVIRONMENT": "poor"}, [], CODE, 3, "farmhand cloud credential put"),
    ("prices", {"FARMHAND_AWS_PRICES_FILE": "/nowhere.toml"}, [], RUN, 3, "/nowhere.toml"),
    ("offline", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, [], BATCH, 4, "did not answer"),
    ("throttled", {}, [fault("cloudformation", "DescribeStacks", "Throttling")], CODE, 4, "AWS is busy"),
    ("broken", {}, [fault("secretsmanager", "Describe", "Whatever", 503)], RUN, 4, "AWS is busy"),
    ("lost", {}, [{"service": "sts", "times": 99, "reset": True}], BATCH, 4, "did not answer"),
    ("not allowed to look", {}, [denied("cloudformation", "DescribeStacks")], BATCH, 3, '"Action": "cloudformation:D'),
    ("not the secret", {}, [denied("secretsmanager", "DescribeSecret")], CODE, 3, '"Action": "secretsmanager:Desc'),
    ("not the task", {}, [denied("ecs", "DescribeTaskDefinition")], RUN, 3, '"Action": "ecs:DescribeTaskD'),
    ("a quota", {}, [fault("secretsmanager", "Describe", "LimitExceededException")], BATCH, 5, "Service Quotas"),
]
ROWS: list[tuple[str, int, str, dict[str, str], list[dict[str, Any]]]] = [
    (words, code, said, {}, []) for words, code, said in USAGE
] + [(words, code, said, variables, faults) for _, variables, faults, words, code, said in WRONG]
NAMES = [words for words, _, _ in USAGE] + [name for name, *_ in WRONG]


@pytest.fixture(scope="module")
def account(aws_process: FakeAws) -> Iterator[Account]:
    """Environments in several states; `prod` is whole."""
    aws_process.reset()
    deploy(aws_process, parts=("data", "base", "network"), NetworkMode="public")
    deploy(aws_process, "bare", parts=("data", "base", "network"), ImageUri="none", NetworkMode="public")
    deploy(aws_process, "alone", parts=("data", "base"))
    deploy(aws_process, "poor", parts=("data", "base", "network"), NetworkMode="public")
    queue = {"JobQueueName": "x", "Priority": 1, "State": "ENABLED"}
    queue["ComputeEnvironmentOrder"] = [{"ComputeEnvironment": "none", "Order": 1}]
    template = {"Resources": {"B": {"Type": "AWS::Batch::JobQueue", "Properties": queue}}}
    cloudformation, secrets = aws_process.client("cloudformation"), aws_process.client("secretsmanager")
    cloudformation.create_stack(StackName=Names("rolled").base, TemplateBody=json.dumps(template))
    for environment in ("prod", "alone"):
        secrets.put_secret_value(SecretId=Names(environment).secret("key"), SecretString=KEY)
    yield Account(aws_process)
    aws_process.reset()


@pytest.fixture
def station(account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's directory and home."""
    for name in ("AWS_PROFILE", "CLAUDE_CONFIG_DIR", "FARMHAND_CONFIG", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "aws.ini"
    config.write_text(
        "[profile sso]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\nregion = us-east-1\n"
        "[sso-session s]\nsso_region = us-east-1\nsso_start_url = https://example.org/start\n"
    )
    key = tmp_path / "key.env"
    key.write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    key.chmod(0o600)
    given = {**account.aws.environ(), "AWS_CONFIG_FILE": str(config), "HOME": str(tmp_path / "home")}
    given |= {"FARMHAND_AWS_ENVIRONMENT": "prod", "FARMHAND_KEY_SOURCE": f"file:{key}"}
    given |= {f"XDG_{kind}_HOME": str(tmp_path / "home" / kind) for kind in ("CONFIG", "STATE", "CACHE")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "in.jsonl").write_text('"hello"\n')
    make_repository(tmp_path / "origin")
    monkeypatch.chdir(tmp_path)
    # The patience of boto3 is tried elsewhere.
    defaults = Aws.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "tries", 2)
    return tmp_path


class Account:
    """The double, and clients of it that are made once."""

    def __init__(self, aws: FakeAws) -> None:
        self.aws = aws
        services = ("s3", "batch", "ecs", "secretsmanager", "dynamodb", "logs", "cloudformation")
        self._s3, self._batch, self._ecs, self._secrets, self._tables, self._logs, self._stacks = map(
            aws.client, services
        )
        self.before = self.resources()

    def resources(self) -> dict[str, Any]:
        """What there is."""
        s3, batch, ecs = self._s3, self._batch, self._ecs
        anything = [{"name": "JOB_NAME", "values": ["*"]}]
        return {
            "stacks": [(one["StackName"], one["StackStatus"]) for one in self._stacks.describe_stacks()["Stacks"]],
            "objects": [
                (one["Name"], [row["Key"] for row in s3.list_object_versions(Bucket=one["Name"]).get("Versions", [])])
                for one in s3.list_buckets()["Buckets"]
            ],
            "items": [
                (name, self._tables.scan(TableName=name)["Items"]) for name in self._tables.list_tables()["TableNames"]
            ],
            "jobs": [
                batch.list_jobs(jobQueue=one["jobQueueName"], filters=anything)["jobSummaryList"]
                for one in batch.describe_job_queues()["jobQueues"]
            ],
            "definitions": [one["revision"] for one in batch.describe_job_definitions()["jobDefinitions"]],
            "task definitions": ecs.list_task_definitions()["taskDefinitionArns"],
            "secrets": [
                (one["Name"], self._secrets.describe_secret(SecretId=one["ARN"]).get("VersionIdsToStages"))
                for one in self._secrets.list_secrets()["SecretList"]
            ],
            "logs": [one["logGroupName"] for one in self._logs.describe_log_groups()["logGroups"]],
            # Every task of ECS and every job that ever ran.
            "runs": self.aws.tasks(),
        }


def test_the_table_is_long_enough() -> None:
    assert len(ROWS) >= 50


@pytest.mark.parametrize(("words", "code", "said", "variables", "faults"), ROWS, ids=NAMES)
def test_it_is_one_line_and_makes_nothing(
    account: Account,
    station: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    code: int,
    said: str,
    variables: dict[str, str],
    faults: list[dict[str, Any]],
) -> None:
    files = sorted(station.glob("[!h]*"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    account.aws.faults(*faults)
    monkeypatch.setattr(sys, "argv", ["farmhand", *shlex.split(words)])
    # An exception that nobody expected ends the process there and then.
    monkeypatch.setattr("os._exit", sys.exit)
    capsys.readouterr()
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(SystemExit) as caught:
            app.execute(app.farmhand, "farmhand")
    out, err = capsys.readouterr()
    account.aws.faults()
    assert (caught.value.code, out, said in err) == (code, "", True), err
    # Git is at work before a ref can be known to be missing.
    assert len([line for line in err.splitlines() if "fetching origin" not in line]) == 1, err
    assert "Traceback" not in err
    assert KEY not in err
    assert account.resources() == account.before
    assert sorted(station.glob("[!h]*")) == files
