"""`farmhand cloud` and `playbooks/cloud.yml` against the double: what they make, keep, remove, and refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farmhand.aws.client import Aws
from farmhand.aws.environment import used
from farmhand.aws.names import Names
from farmhand.core.settings import Settings
from farmhand.cost.on_aws import networks
from farmhand.cost.store import CostStore
from tests.support import aws_rights, command
from tests.support.cloud import IMAGE, ROOT, deploy, outputs, stacks
from tests.support.fakeaws.client import ACCOUNT, FakeAws
from tests.support.forked_modules import FORKED_WITH_BOTO3, checkout, forked_checkout

LOADED = ("farmhand.cli.cloud", "tests.support.aws_loaded")
NAMES = Names("prod", ACCOUNT, "us-east-1")


class Operator:
    """Who runs the commands, with an empty configuration."""

    def __init__(self, aws: FakeAws, home: Path) -> None:
        self.home = home
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FARMHAND_"))},
            **aws.environ(),
            **FORKED_WITH_BOTO3,
            "FARMHAND_PROJECT_DIR": str(forked_checkout(home / "checkout")),
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_STATE_HOME": str(home / "state"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def cloud(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return command.run("farmhand", ["cloud", *words], self.environ | environ, ROOT, preload=LOADED)

    def play(self, *words: str, **variables: Any) -> dict[str, int]:
        """Run the playbook without a push, and return Ansible's sums."""
        given = {"aws_push": False, "aws_image": IMAGE, **variables}
        done = subprocess.run(
            ["ansible-playbook", "playbooks/cloud.yml", "--extra-vars", json.dumps(given), *words],
            cwd=ROOT,
            env=self.environ
            | {"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            capture_output=True,
            text=True,
            check=False,
        )
        recap = done.stdout[done.stdout.rindex("localhost ") :] if "localhost " in done.stdout else ""
        sums = {name: int(number) for name, number in (pair.split("=") for pair in recap.split() if "=" in pair)}
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr
        return sums


@pytest.fixture
def me(aws: FakeAws, tmp_path: Path) -> Operator:
    return Operator(aws, tmp_path)


def check_rights(aws: FakeAws, *used: str) -> None:
    """Everything that commands have called is in the builder's policy, and all of its statements `used` was called."""
    called = aws_rights.actions(aws.calls)
    assert aws_rights.refused(called, aws_rights.builder()) == []
    statements = [one for one in aws_rights.builder() if one["Sid"] in used]
    assert (len(statements), set(aws_rights.named(statements)) - called) == (len(used), set())


def test_up_makes_changes_and_removes_the_stacks(aws: FakeAws, me: Operator) -> None:
    """The design's check 3, in one go: each step depends on the one before, and each run of the playbook takes long.

    The other environment's name is how the stacks of this one's farm hosts begin.
    """
    other = Names("prod-host").data
    deploy(aws, "prod-host", ("data",))
    named = {"aws_farm_hosts": ["data", "farm.1"], "aws_errors_per_hour": 7}
    given = json.dumps({"aws_push": False, "aws_image": IMAGE, **named})
    up = ("up", "--network", "private", "--yes", "--json", "-e", given)
    all_of_it = {*NAMES.stacks, *(NAMES.host_stack(host) for host in ("data", "farm.1"))}
    assert me.play("--check", **named)["changed"] == 6
    assert set(stacks(aws)) == {other}
    done = me.cloud(*up, FARMHAND_AWS_ACCOUNT=ACCOUNT)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["status"], made["outputs"]["ImageUri"], made["stacks"]) == ("done", IMAGE, [*NAMES.stacks])
    assert "34.83 a month" in done.stderr
    assert set(stacks(aws)) == {*all_of_it, other}
    shown = json.loads(me.cloud("status", "--json").stdout)["stacks"]
    assert {name: one["status"].partition("_")[2] for name, one in shown.items()} == dict.fromkeys(
        all_of_it, "COMPLETE"
    )
    again = me.cloud(*up, "--check", "-e", "aws_email=me@example.com")
    assert (again.returncode, "changed=1 " in again.stderr) == (0, True), again.stderr
    # A second run changes nothing. What another command has put into the base stack is kept.
    assert me.play(**named, aws_image="")["changed"] == 0
    assert outputs(aws)["ImageUri"] == IMAGE
    [errors] = aws.client("cloudwatch").describe_alarms(AlarmNames=["farmhand-prod/farm.1/errors"])["MetricAlarms"]
    assert errors["Threshold"] == 7
    aws.client("s3").put_object(Bucket=NAMES.bucket, Key="prod/batches/b/in/0/00000.jsonl", Body=b"x")
    # The network comes back, and a host that is not named any more loses its alarms.
    aws.client("cloudformation").delete_stack(StackName=NAMES.network)
    fewer = named | {"aws_farm_hosts": ["data"], "aws_parts": ["watch", "network"]}
    assert me.play("--check", **fewer)["changed"] == 3
    assert me.play(**fewer)["changed"] == 3
    assert set(stacks(aws)) == {*NAMES.stacks, NAMES.host_stack("data"), other}
    done = me.cloud("down", "--yes", "--json")
    removed = [NAMES.host_stack("data"), NAMES.network, NAMES.watch, NAMES.base]
    assert json.loads(done.stdout)["removed"] == removed, done.stderr
    assert set(stacks(aws)) == {NAMES.data, other}
    assert me.play("--check", aws_state="absent")["changed"] == 0
    check_rights(aws, "Stacks", "Look", "LookAtOurs")
    # The bucket is still there, and the next run uses it.
    assert me.play(aws_parts=["base"])["changed"] >= 1
    assert aws.client("s3").list_objects_v2(Bucket=NAMES.bucket)["KeyCount"] == 1


def test_the_price_counts_what_variables_ask_for(aws: FakeAws, me: Operator) -> None:
    """Without --yes and a terminal it stops there."""
    given = {"aws_farm_hosts": ["farm1", "farm2"], "aws_baked_image": True}
    done = me.cloud("up", "-e", json.dumps(given), "--tags", "none")
    # 32.83, the alarms of two hosts, and one more image.
    assert "34.86 a month" in done.stderr, done.stderr
    assert "alarms of 2 farm hosts 2.00, image with the credential 0.03" in done.stderr
    assert (done.returncode, stacks(aws)) == (2, {})
    unknown = me.cloud("up", "-e", "@/none.yml")
    assert (unknown.returncode, "is not known, and not in the price" in unknown.stderr) == (2, True)


def test_down_removes_all_but_the_data_and_then_the_data(aws: FakeAws, me: Operator) -> None:
    deploy(aws)
    aws.client("s3").put_object(Bucket=NAMES.bucket, Key="a", Body=b"1")
    aws.client("s3").put_object(Bucket=NAMES.bucket, Key="a", Body=b"2")
    done = me.cloud("down", "--network-only", "--yes", "--json")
    assert json.loads(done.stdout)["removed"] == [NAMES.network], done.stderr
    assert me.cloud("status").returncode == 0
    done = me.cloud("down", "--yes", "--json")
    assert json.loads(done.stdout)["kept"] == [NAMES.data], done.stderr
    assert me.cloud("down", "--yes").returncode == 3
    done = me.cloud("down", "--delete-data", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert stacks(aws) == {}
    assert aws.client("s3").list_buckets()["Buckets"] == []
    assert aws.client("dynamodb").list_tables()["TableNames"] == []
    check_rights(aws, "DeleteData", "DeleteKey")


def test_status_and_cost_of_a_place_where_nothing_runs(aws: FakeAws, me: Operator) -> None:
    deploy(aws)
    shown = json.loads(me.cloud("status", "--json").stdout)
    assert {name: stack["status"] for name, stack in shown["stacks"].items()} == stacks(aws)
    assert shown["network"]["usd_hour"] == "0.04"
    assert shown["running"] == []
    cost = json.loads(me.cloud("cost", "--json").stdout)
    assert (cost["rows"], cost["idle"]["usd_month"]) == ([], "32.83")
    check_rights(aws, "LookAtCosts", "LookAtRemovedStacks")


def test_the_hours_of_a_network_that_was_removed_are_counted(aws: FakeAws, me: Operator) -> None:
    deploy(aws)
    aws.client("cloudformation").delete_stack(StackName=NAMES.network)
    deploy(aws, parts=("network",))
    assert me.cloud("down", "--network-only", "--yes").returncode == 0
    shown = json.loads(me.cloud("status", "--json").stdout)
    assert shown["network"] == {}
    deploy(aws, parts=("network",))
    cost = json.loads(me.cloud("cost", "--json").stdout)
    assert [(one["mode"], one["hours"], one["unused_usd"]) for one in cost["removed_networks"]] == [
        ("private", 1, "0.04")
    ] * 2
    assert (cost["network"]["until"], cost["network"]["hours"]) == (None, 1)
    assert me.cloud("cost").stdout.count("a private network was up from") == 2
    # The same by `farmhand cost`, which has the containers of the ledgers.
    conf = Settings(aws_environment="prod", aws_region="us-east-1")
    with closing(CostStore(me.home / "cost.db")) as store, pytest.MonkeyPatch.context() as patch:
        for name, value in me.environ.items():
            patch.setenv(name, value)
        used.mark(Aws(conf), conf)
        assert [bool(one.until) for one in networks(store, conf, ())] == [False, True, True]
    what = {"service": "cloudformation", "action": "ListStacks", "times": 9, "status": 403, "code": "AccessDenied"}
    aws.faults(what)
    done = me.cloud("cost", "--json")
    assert (done.returncode, json.loads(done.stdout)["removed_networks"]) == (0, []), done.stderr
    assert "networks that were removed are not in here" in done.stderr


def test_a_job_is_shown_counted_and_cancelled(aws: FakeAws, me: Operator) -> None:
    deploy(aws)
    aws.client("secretsmanager").put_secret_value(SecretId=NAMES.secret("key"), SecretString="sk-ant-test-0")
    batch = aws.client("batch")
    tags = {"farmhand:environment": "prod", "farmhand:batch": "b1"}
    given = {"jobQueue": NAMES.queue(spot=True), "jobDefinition": NAMES.definition("cli")}
    job = batch.submit_job(jobName="one", tags=tags, **given)["jobId"]
    aws.until(lambda: json.loads(me.cloud("status", "--json").stdout)["running"])
    [row] = json.loads(me.cloud("status", "--json").stdout)["running"]
    assert (row["id"], row["batch"], row["spot"], row["vcpu"], row["memory_mb"]) == (job, "b1", True, "1", 4096)
    refused = me.cloud("down", "--yes")
    assert (refused.returncode, refused.stderr.count("\n")) == (5, 1)
    assert "still run" in refused.stderr
    check_rights(aws)
    # `farmhand cloud cancel "$TASK"` where the variable is not set.
    assert "is empty" in me.cloud("cancel", "").stderr
    assert json.loads(me.cloud("cancel", "b1", "--json").stdout)["ended"] == [job]
    assert set(stacks(aws)) == set(NAMES.stacks)


OWN = ("status", "check", "remove --yes", "rotate --status", "put --kind federation --rule r123 --organization o123")
BAD: list[tuple[str, tuple[str, ...], dict[str, str], int, str]] = [
    ("no login", ("up", "--yes"), {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, 3, "credentials"),
    ("no profile", ("up", "--yes", "--aws-profile", "none"), {}, 3, "none"),
    ("no region", ("up", "--yes"), {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, 3, "no AWS region is set"),
    ("wrong region", ("up", "--yes", "--aws-region", "xx-east-9"), {}, 3, "xx-east-9"),
    ("wrong account", ("up", "--yes"), {"FARMHAND_AWS_ACCOUNT": "999999999999"}, 5, "aws_account is 999999999999"),
    *(
        (f"account of {verb}", tuple(verb.split()), {"FARMHAND_AWS_ACCOUNT": "999999999999"}, 5, "aws_account is 9")
        for verb in ("down --yes", "status", "cost", "push --check", "cancel x", *(f"credential {one}" for one in OWN))
    ),
    ("no terminal", ("up",), {}, 2, "--yes"),
    ("environment", ("up", "--yes", "--aws-environment", "Prod!"), {}, 3, "Prod!"),
    ("stack of another", ("down", "--yes", "--aws-environment", "prod-data"), {}, 3, "prod-data"),
    ("ipv4 in public", ("up", "--yes", "--network", "public", "--ipv4"), {}, 2, "--ipv4"),
    ("variable", ("up", "--yes", "-e", "aws_environment=other"), {}, 2, "use --aws-environment"),
    ("joined variable", ("up", "--yes", "-eaws_region: eu-west-1"), {}, 2, "use --aws-region"),
    ("variables", ("up", "--yes", '--extra-vars={"x": 1, "aws_state": "absent"}'), {}, 2, "use farmhand cloud down"),
    ("network", ("up", "--yes", "--network", "open"), {}, 2, "open"),
    ("no docker", ("up", "--yes"), {"DOCKER_HOST": "tcp://127.0.0.1:1"}, 3, "docker"),
    ("prices", ("up", "--yes"), {"FARMHAND_AWS_PRICES_FILE": "/none.toml"}, 3, "/none.toml"),
    ("checkout", ("up", "--yes"), {"FARMHAND_PROJECT_DIR": "/usr"}, 3, "/usr"),
    ("vcpus", ("up", "--yes"), {"FARMHAND_CLOUD_MAX_VCPUS": "lots"}, 3, "vCPUs"),
    ("offline", ("up", "--yes"), {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, 4, "did not answer"),
    ("down of nothing", ("down", "--yes"), {}, 3, "nothing of farmhand-prod"),
    ("down twice", ("down", "--network-only", "--delete-data", "--yes"), {}, 2, "give one of them"),
    ("status of nothing", ("status",), {}, 3, "farmhand cloud up"),
    ("verify of nothing", ("verify", "--live", "--yes"), {}, 3, "farmhand cloud up"),
    ("push to nothing", ("push", "--check"), {}, 3, "no repository"),
    ("logs of nothing", ("logs", "x"), {}, 3, "nothing is called x"),
    ("cancel of nothing", ("cancel", "x"), {}, 3, "nothing is called x"),
    ("logs of no name", ("logs", ""), {}, 2, "is empty"),
    ("verb", ("fly",), {}, 2, "fly"),
]


@pytest.mark.parametrize(("words", "environ", "code", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_is_one_line_and_makes_nothing(
    aws: FakeAws, me: Operator, words: tuple[str, ...], environ: dict[str, str], code: int, said: str
) -> None:
    done = me.cloud(*words, **environ)
    lines = [line for line in done.stderr.splitlines() if "could not be asked" not in line and "US$" not in line]
    assert done.returncode == code, done.stderr
    assert said in lines[-1]
    # Before it asks, it says what it would make and what that costs.
    assert len(lines) == 1 or words == ("up",), done.stderr
    assert stacks(aws) == {}
    assert aws.client("s3").list_buckets()["Buckets"] == []


def test_a_collection_that_is_missing_is_one_line(aws: FakeAws, me: Operator, tmp_path: Path) -> None:
    """Ansible finds no collection here, as where ansible-core was installed alone."""
    none = checkout(tmp_path / "none", "collections_path = /none", "collections_scan_sys_path = false")
    deploy(aws, parts=("network",))
    for verb in ("up", "down"):
        done = me.cloud(verb, "--yes", FARMHAND_PROJECT_DIR=str(none))
        assert (done.returncode, "collection amazon.aws is not installed" in done.stderr.splitlines()[-1]) == (3, True)
    assert set(stacks(aws)) == {NAMES.network}


def test_a_stack_that_was_rolled_back_says_why(aws: FakeAws, me: Operator) -> None:
    aws.client("s3").create_bucket(Bucket=NAMES.trail_bucket)
    aws.client("s3").put_object(Bucket=NAMES.trail_bucket, Key="a", Body=b"")
    client = aws.client("cloudformation")
    order = [{"ComputeEnvironment": "none", "Order": 1}]
    queue = {"JobQueueName": "x", "Priority": 1, "State": "ENABLED", "ComputeEnvironmentOrder": order}
    template = {"Resources": {"B": {"Type": "AWS::Batch::JobQueue", "Properties": queue}}}
    client.create_stack(StackName=NAMES.watch, TemplateBody=json.dumps(template))
    assert stacks(aws) == {NAMES.watch: "ROLLBACK_COMPLETE"}
    done = me.cloud("up", "--yes")
    assert done.returncode == 3, done.stderr
    assert f"{NAMES.watch} is in state ROLLBACK_COMPLETE: B (AWS::Batch::JobQueue): " in done.stderr
    assert "farmhand cloud down removes it" in done.stderr
    assert me.cloud("down", "--yes").returncode == 0
    done = me.cloud("up", "--yes")
    assert done.returncode == 3
    assert f"the bucket {NAMES.trail_bucket} is there, but not the stack" in done.stderr
    assert stacks(aws) == {}


def test_a_secret_without_its_stack_is_found_before_anything_is_made(aws: FakeAws, me: Operator) -> None:
    """`credential put --kms-key` makes one; CloudFormation makes no stack over it, also while it is being deleted."""
    secrets, name = aws.client("secretsmanager"), NAMES.secret("key")
    secrets.create_secret(Name=name)
    for days in (7, 0):
        done = me.cloud("up", "--yes")
        assert (done.returncode, f"the secret {name} is there, but not the stack" in done.stderr) == (3, True)
        assert stacks(aws) == {}
        if days:
            secrets.delete_secret(SecretId=name, RecoveryWindowInDays=days)
    assert "nothing of farmhand-prod stands there" in me.cloud("cost").stdout


def test_the_ids_of_a_federation_stay_over_a_run(aws: FakeAws, me: Operator) -> None:
    deploy(aws, parts=("data", "base"))
    words = ("credential", "put", "--kind", "federation", "--rule", "fdrl_01", "--organization", "org-1")
    assert "would be set" in me.cloud(*words, "--check").stdout
    assert me.cloud(*words).stdout == "the ids are set\n"
    assert me.cloud(*words).stdout == "the ids are set already\n"
    me.play(aws_parts=["base"], aws_email="me@example.com")
    [stack] = aws.client("cloudformation").describe_stacks(StackName=NAMES.base)["Stacks"]
    given = {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}
    assert (given["FederationRule"], given["Email"]) == ("fdrl_01", "me@example.com")


def test_the_agent_container_alone_gets_the_image_with_the_credential(aws: FakeAws, me: Operator) -> None:
    deploy(aws, parts=("data", "base"))
    ecs, ecr = aws.client("ecs"), aws.client("ecr")

    def containers() -> dict[str, dict[str, Any]]:
        names = [NAMES.definition(size) for size in ("api", "cli", "code")]
        tasks = [ecs.describe_task_definition(taskDefinition=name)["taskDefinition"] for name in names]
        definitions = [task["containerDefinitions"] for task in tasks]
        jobs = aws.client("batch").describe_job_definitions(status="ACTIVE")["jobDefinitions"]
        newest = {job["jobDefinitionName"]: job for job in sorted(jobs, key=lambda job: int(job["revision"]))}
        definitions += [job["ecsProperties"]["taskProperties"][0]["containers"] for job in newest.values()]
        assert len(definitions) == 6
        for one in definitions[1:]:
            assert [each["image"] for each in one] == [each["image"] for each in definitions[0]]
        return {one["name"]: one for one in definitions[0]}

    def repositories() -> list[str]:
        return [one["repositoryName"] for one in ecr.describe_repositories()["repositories"]]

    assert {one["image"] for one in containers().values()} == {IMAGE}
    assert repositories() == [NAMES.repository]
    baked = IMAGE.replace(NAMES.repository, NAMES.baked_repository)
    me.play(aws_parts=["base"], aws_baked_image=True)
    assert sorted(repositories()) == [NAMES.repository, NAMES.baked_repository]
    found = ecr.describe_repositories(repositoryNames=[NAMES.baked_repository])["repositories"][0]
    assert found["imageTagMutability"] == "IMMUTABLE"
    assert containers()["agent"]["secrets"]
    me.play(aws_parts=["base"], aws_baked_image=True, aws_baked_image_uri=baked)
    me.play(aws_parts=["base"], aws_baked_image=True)  # it stays
    agent, worker = (containers()[name] for name in ("agent", "worker"))
    assert (agent["image"], worker["image"]) == (baked, IMAGE)
    assert {"name": "FARMHAND_CREDENTIAL_SOURCE", "value": "image:"} in agent["environment"]
    assert not agent.get("secrets")
    assert "FARMHAND_CREDENTIAL_SOURCE" not in json.dumps(worker)
    me.play(aws_parts=["base"])  # CloudFormation removes the repository; moto's removes no resource for its condition
    assert {one["image"] for one in containers().values()} == {IMAGE}
    assert containers()["agent"]["secrets"]
    assert "BakedRepositoryUri" not in outputs(aws)


def test_what_may_not_be_looked_at_is_not_nothing(aws: FakeAws, me: Operator) -> None:
    """A login that may not list jobs does not know that none runs."""
    deploy(aws)
    what = {"service": "batch", "action": "listjobs", "times": 99, "status": 403, "code": "AccessDeniedException"}
    for words in (("status",), ("down", "--yes"), ("down", "--network-only", "--yes"), ("cancel", "x")):
        aws.faults(what)
        done = me.cloud(*words)
        assert (done.returncode, "not allowed" in done.stderr) == (3, True), done.stderr
    assert set(stacks_after(aws)) == set(NAMES.stacks)


def test_a_secret_that_the_stack_has_lost_is_not_made_again(aws: FakeAws, me: Operator) -> None:
    """A new one would have another ARN than tasks are given, and no policy that keeps others out."""
    deploy(aws)
    (me.home / "t.env").write_text("GIT_TOKEN=ghp_0123456789")
    (me.home / "t.env").chmod(0o600)
    words = ("credential", "put", "--kind", "git", "--source", f"file:{me.home}/t.env")
    assert me.cloud(*words).returncode == 0
    secrets, name = aws.client("secretsmanager"), NAMES.secret("git")
    secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    for check in ((), ("--check",)):
        done = me.cloud(*words, *check)
        assert (done.returncode, f"has lost its secret {name}" in done.stderr) == (3, True), done.stderr
    assert name not in [one["Name"] for one in secrets.list_secrets()["SecretList"]]


def stacks_after(aws: FakeAws) -> dict[str, str]:
    aws.faults()
    return stacks(aws)
