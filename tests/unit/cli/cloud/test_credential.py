"""`farmhand cloud credential` as it is typed: its lines, its exit codes, and that what is wrong makes nothing."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from farmhand.aws.credentials.expiry import Entry, Record
from farmhand.cli import app
from farmhand.cli.checks.station import aws_credential
from farmhand.cli.rotate import _left_behind
from farmhand.core.keys import fingerprint
from tests.unit.aws.conftest import ENVIRONMENT, KEY, REFRESH, REGION, TOKEN, Proof, conf, login, make_stack, private

SECRETS = (KEY, TOKEN, REFRESH, "secret-of-mcp")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], empty: Path) -> Call:
    """Run `farmhand` with these words: status, stdout, stderr."""
    private(empty / "repos.env", f"ANTHROPIC_API_KEY={KEY}\nSECOND={KEY}2\nOAT={TOKEN}\nGIT_TOKEN=ghp_0123456789\n")
    monkeypatch.setattr("farmhand.rotation.provider.free_call", lambda key, _url: 200 if key.startswith(KEY) else 401)
    capsys.readouterr()

    def run(line: str, **variables: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            for name, text in variables.items():
                patch.setenv(name, text)
            patch.setattr(sys, "argv", ["farmhand", *shlex.split(line)])
            with pytest.raises(SystemExit) as caught:
                app.execute(app.farmhand, "farmhand")
        out, err = capsys.readouterr()
        assert not [secret for secret in SECRETS if secret in out + err]
        return int(caught.value.code or 0), out, err

    return run


def everything() -> dict[str, Any]:
    """What is in the account, and when."""
    secrets, s3 = boto3.client("secretsmanager"), boto3.client("s3")
    found: dict[str, Any] = {}
    for secret in secrets.list_secrets(IncludePlannedDeletion=True)["SecretList"]:
        about = secrets.describe_secret(SecretId=secret["ARN"])
        found[secret["Name"]] = [about.get("VersionIdsToStages"), about.get("Tags"), about.get("DeletedDate")]
    for bucket in s3.list_buckets()["Buckets"]:
        found[bucket["Name"]] = s3.list_object_versions(Bucket=bucket["Name"]).get("Versions")
    for table in boto3.client("dynamodb").list_tables()["TableNames"]:
        found[table] = boto3.client("dynamodb").scan(TableName=table)["Items"]
    for stack in boto3.client("cloudformation").describe_stacks()["Stacks"]:
        found["stack " + stack["StackName"]] = stack.get("Parameters")
    return found


OTHER_KEY = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
ALLOW = {"FARMHAND_ALLOW_SUBSCRIPTION_CLOUD": "true"}
PUT, PUT_AGAIN = "cloud credential put", "farmhand cloud credential put"
#: words after `farmhand`, exit code, part of the line, variables; the account has the stack, and a key in the secret
ROWS: list[tuple[str, int, str, dict[str, str]]] = [
    (f"{PUT} --kind nothing", 2, "is not one of", {}),
    (f"{PUT} --place nowhere", 2, "is not one of", {}),
    (f"{PUT} --source {KEY}", 2, "leaked", {}),
    (f"{PUT} --kind git", 2, "no source of the git", {}),
    (f"{PUT} --kind git --source nothing", 3, "not of a known form", {}),
    (f"{PUT} --source file:none.env", 3, "cannot be read", {}),
    (f"{PUT} --source file:repos.env#NONE", 3, "sets no NONE", {}),
    (f"{PUT} --source file:open.env", 3, "others could read it", {}),
    (f"{PUT} --source env:NOT_SET", 3, "is not set", {}),
    (f"{PUT} --source 'command:false'", 3, "ended with status 1", {}),
    (f"{PUT} --source secretsmanager:none/such", 3, "there is no secret none/such", {}),
    (f"{PUT} --source 'secretsmanager:a b'", 3, "not the name of a secret", {}),
    (f"{PUT} --expires soon", 2, "not a day", {}),
    (f"{PUT} --expires 2020-01-01", 5, "has expired", {}),
    (f"{PUT} --source file:repos.env#OAT", 5, "a token of a plan and no key", {}),
    (f"{PUT} --source file:dead.env", 3, "does not know the new key", {}),
    (f"{PUT} --kind setup-token --source file:repos.env#OAT", 5, "allow_subscription_cloud", {}),
    (f"{PUT} --kind login --source login.json", 5, "allow_subscription_cloud", {}),
    (f"{PUT} --kind setup-token --source file:repos.env", 3, "sets no CLAUDE_CODE_OAUTH_TOKEN", ALLOW),
    (f"{PUT} --kind setup-token --source file:repos.env#SECOND", 5, "a metered key and no setup-token", ALLOW),
    (f"{PUT} --kind setup-token --source file:login.json", 5, "a login file", ALLOW),
    (f"{PUT} --kind setup-token --source file:both.env", 5, "refresh token", ALLOW),
    (f"{PUT} --kind login --source expired.json", 5, "has expired", ALLOW),
    (f"{PUT} --kind login --source short.json", 5, "less than 30", ALLOW),
    (f"{PUT} --kind login --source blank.json", 3, "holds no login", ALLOW),
    (f"{PUT} --kind login --source repos.env", 3, "not a login file", ALLOW),
    (f"{PUT} --kind login --expires 2030-01-01 --source login.json", 2, "says itself", ALLOW),
    (f"{PUT} --client-side", 2, "--client-side is for --place s3", {}),
    (f"{PUT} --place s3 --kms-key alias/x", 2, "not the ARN of a key", {}),
    (f"{PUT} --place image", 5, "--i-know-this-is-in-every-layer", {}),
    (
        f"{PUT} --place image --i-know-this-is-in-every-layer --kind login --source login.json",
        5,
        "no task reads a login",
        ALLOW,
    ),
    (f"{PUT} --place image --i-know-this-is-in-every-layer", 5, "internet", {"FARMHAND_AWS_NETWORK": "public"}),
    (f"{PUT} --kind federation", 2, "needs --rule", {}),
    (f"{PUT} --kind federation --rule 'a b' --organization abcd", 2, "--rule is not an id", {}),
    (f"{PUT} --kind federation --rule {KEY} --organization abcd", 2, "--rule is not an id", {}),
    (f"{PUT} --rule abcd", 2, "are of --kind federation", {}),
    (f"{PUT} --aws-environment UPPER", 3, "aws_environment", {}),
    (f"{PUT} --aws-environment other --place s3", 3, "there is no bucket farmhand-other", {}),
    (f"{PUT} --aws-environment other", 3, "there is no stack farmhand-other", {}),
    (f"{PUT} --aws-profile nobody", 3, "nobody", {}),
    (f"{PUT} --expires ''", 2, "--expires is empty", {}),
    (f"{PUT} --source ''", 2, "--source is empty", {}),
    (f"{PUT} --kind federation --rule abcd --organization abcd --place s3", 2, "ids and no credential", {}),
    (f"{PUT} --kind federation --rule abcd --organization abcd --source file:x", 2, "ids and no credential", {}),
    (f"{PUT} --kind login", 3, "there is no login file", ALLOW),
    (f"{PUT} --kms-key {OTHER_KEY}", 2, "encrypted with", {}),
    (f"{PUT} --place s3 --client-side --kms-key {OTHER_KEY}", 1, "NotFoundException", {}),
    ("cloud credential check --warn-days -1", 2, "-1", {}),
    ("cloud credential remove", 2, "--yes does it", {}),
    ("cloud credential remove --kind git --previous", 3, "there is no git", {}),
    ("cloud credential rotate --new-key nothing", 3, "not of a known form", {}),
    ("cloud credential rotate --status --abort", 2, "exclude each other", {}),
    ("cloud credential rotate --resume", 2, "begin one: farmhand cloud credential rotate", {}),
    ("cloud credential check --schedule never", 2, "is not one of", {}),
    ("cloud credential nothing", 2, "No such command", {}),
    ("cloud nothing", 2, "No such command", {}),
]


@pytest.fixture
def full(empty: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> Path:
    now = time.time() * 1000
    make_stack()
    monkeypatch.chdir(empty)
    login(empty / "login.json", now + 4 * 3_600_000)
    login(empty / "expired.json", now - 1)
    login(empty / "short.json", now + 20 * 60_000)
    private(empty / "blank.json", '{"claudeAiOauth": {"accessToken": "", "refreshToken": "", "expiresAt": 0}}')
    private(empty / "dead.env", "ANTHROPIC_API_KEY=sk-ant-test-unknown-0000000000000\n")
    private(empty / "both.env", f"CLAUDE_CODE_OAUTH_TOKEN={TOKEN}\nCLAUDE_CODE_OAUTH_REFRESH_TOKEN={REFRESH}\n")
    (empty / "open.env").write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    return empty


def test_forty_things_that_are_wrong_are_one_line_each_and_make_nothing(full: Path, call: Call) -> None:
    assert len(ROWS) >= 40
    assert call(PUT)[0] == 0
    before, record = everything(), (full / "state/farmhand/credentials.json").read_bytes()
    wrong = []
    for line, status, part, variables in ROWS:
        code, out, err = call(line, **variables)
        if (code, out, err.count("\n")) != (status, "", 1) or part not in err:
            wrong.append((line, code, out, err))
        assert everything() == before, line
        assert (full / "state/farmhand/credentials.json").read_bytes() == record, line
    assert wrong == []


def test_an_error_of_aws_is_one_line_and_leaves_all_as_it_was(
    full: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.client import BaseClient

    real = BaseClient._make_api_call
    for action, code, status, part in (
        ("PutSecretValue", "AccessDeniedException", 3, "not allowed"),
        ("DescribeSecret", "ThrottlingException", 4, "is busy"),
        ("GetItem", "ExpiredTokenException", 3, "login has expired"),
        ("GetCallerIdentity", "InvalidClientTokenId", 3, "refused the login"),
        ("DescribeSecret", "RequestTimeTooSkewed", 3, "clock is wrong"),
    ):

        def fail(self: Any, name: str, given: Any, action: str = action, code: str = code) -> Any:
            if name == action:
                raise ClientError({"Error": {"Code": code, "Message": "no"}}, name)
            return real(self, name, given)

        before = everything()
        with monkeypatch.context() as patch:
            patch.setattr(BaseClient, "_make_api_call", fail)
            found = call(PUT)
        assert (found[0], found[1], found[2].count("\n")) == (status, "", 1), (action, found)
        assert part in found[2]
        assert everything() == before


def test_from_nothing_to_gone(full: Path, call: Call) -> None:
    assert call("cloud credential status") == (0, "no credential is on AWS: farmhand cloud credential put\n", "")
    code, out, _ = call(f"{PUT} --check")
    assert (code, "would go to secretsmanager:farmhand/try/key" in out) == (0, True)
    code, out, _ = call(f"{PUT} --expires 2099-01-01 --json")
    put = json.loads(out)
    assert (code, put["changed"], put["expires_at"]) == (0, True, "2099-01-01T00:00:00Z")
    assert "is in secretsmanager:farmhand/try/key already" in call(PUT)[1]
    assert json.loads(call("cloud credential status --json")[1])["credentials"][0]["fingerprint"] == put["fingerprint"]
    assert call("cloud credential check")[0] == 0
    assert call("cloud credential remove --yes")[0] == 0
    assert "nothing to do" in call("cloud credential remove --yes")[1]


def test_near_its_end_every_command_says_so(full: Path, call: Call) -> None:
    soon = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 10.5 * 86400))
    assert call(f"{PUT} --expires {soon}")[0] == 0
    code, out, _ = call("cloud credential check")
    assert (code, "key: ends in" in out) == (3, True)
    assert call("cloud credential check --warn-days 3")[0] == 0
    _, _, err = call("cloud credential remove --previous")
    assert "the key on AWS ends in 10 days" in err or "the key on AWS ends in 9 days" in err
    check = aws_credential(conf())
    assert (check.ok, "ends in" in check.detail) == (False, True)


def test_a_newer_login_is_uploaded_by_the_check(full: Path, call: Call) -> None:
    assert call(f"{PUT} --kind login --source login.json", **ALLOW)[0] == 0
    login(full / "login.json", (time.time() + 8 * 3600) * 1000)
    code, out, _ = call("cloud credential check --upload", **ALLOW)
    assert (code, "login: put again" in out) == (0, True)
    login(full / "login.json", (time.time() - 1) * 1000)
    code, out, _ = call("cloud credential check --upload", **ALLOW)
    assert (code, "login: not put again: the login in" in out) == (3, True)


def test_federation_sets_the_parameters_of_the_stack(full: Path, call: Call) -> None:
    words = f"{PUT} --kind federation --rule fdrl_01 --organization org-uuid-1 --json"
    assert json.loads(call(f"{words} --check")[1])["changed"]
    assert json.loads(call(words)[1])["changed"]
    assert json.loads(call(words)[1])["changed"] is False
    [stack] = boto3.client("cloudformation").describe_stacks(StackName=f"farmhand-{ENVIRONMENT}")["Stacks"]
    assert {"ParameterKey": "FederationRule", "ParameterValue": "fdrl_01"} in stack["Parameters"]


def test_what_runs_it_daily(call: Call) -> None:
    for how, part in (("cron", "0 9 * * * "), ("launchd", "<key>Label</key>"), ("systemd", "OnCalendar=")):
        code, out, _ = call(f"cloud credential check --upload --schedule {how}")
        assert (code, part in out) == (0, True)
        assert "--upload" in out


def test_what_runs_it_daily_has_the_settings_of_this_run(call: Call, empty: Path) -> None:
    """cron has none of this shell's variables, and would look at another environment."""
    words = "cloud credential check --schedule cron --aws-region eu-west-1 --warn-days 30"
    _, out, _ = call(words, FARMHAND_AWS_PROFILE="me")
    assert f"check --warn-days 30 --aws-environment {ENVIRONMENT} --aws-region eu-west-1 --aws-profile me >" in out
    private(empty / "other.toml", 'aws_environment = "other"\n')
    _, out, _ = call(f"cloud credential check --schedule cron --config {empty}/other.toml")
    assert f"--config {empty}/other.toml" in out


def test_a_credential_is_taken_out_where_that_was_said(full: Path, call: Call) -> None:
    """What `put` says of the older one has to be true: the current one stays."""
    call(PUT)
    _, _, err = call(f"{PUT} --place s3")
    assert "remove --kind key --place secretsmanager --yes takes it out there" in err
    for sealed, there in (("", ""), (" --client-side", ".esdk")):
        call(f"{PUT} --place s3{sealed}")
        _, _, err = call(PUT)
        assert f"key.json{there}: farmhand cloud credential remove --kind key --place s3{sealed} --yes" in err
        words = f"cloud credential remove --kind key --place s3{sealed} --yes"
        assert "would be gone from s3://" in call(f"{words} --check")[1]
        assert "is gone from s3://" in call(words)[1]
        code, out, _ = call(f"{words} --json")
        assert (code, json.loads(out)["changed"]) == (0, False)
        [row] = json.loads(call("cloud credential status --json")[1])["credentials"]
        assert (row["place"], row["trouble"]) == (f"secretsmanager:farmhand/{ENVIRONMENT}/key", "")
        assert Record(ENVIRONMENT).entries()[0].place == row["place"]
    call("cloud credential remove --yes")
    assert Record(ENVIRONMENT).entries() == []


def test_a_rotation_sends_no_token_of_a_plan_to_the_api(
    full: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(PUT)
    proof = Proof()

    def free_call(key: str, _url: str) -> int:
        proof(key)
        return 401

    monkeypatch.setattr("farmhand.rotation.provider.free_call", free_call)
    code, _, err = call("cloud credential rotate --new-key file:repos.env#OAT")
    assert (code, proof.asked) == (5, []), err
    assert "a token of a plan and no metered key" in err


def test_a_rotation_says_where_the_old_key_still_is(full: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes one source: the other one, here or on AWS, has a key that is dead."""
    asked: list[str] = []

    def free_call(key: str, _url: str) -> int:
        asked.append(key)
        return 401 if key == KEY and f"{KEY}2" in asked else 200

    monkeypatch.setattr("farmhand.rotation.provider.free_call", free_call)
    assert call(PUT)[0] == 0
    code, out, err = call("cloud credential rotate --new-key file:repos.env#SECOND")
    assert (code, "rotated" in out) == (0, True), err
    old, new = fingerprint(KEY), fingerprint(f"{KEY}2")
    assert f"repos.env, the key source of this machine, still has the old key {old}: put the new key there" in err
    assert err.count("still has") == 1
    # The other way round: the file has another key now, and what was put on AWS from here is the old one.
    about = {"old": new, "new": "0", "current": "0"}
    [line] = _left_behind(conf(), "file:repos.env", about)
    assert line == f"secretsmanager:farmhand/{ENVIRONMENT}/key on AWS still has the old key {new}: {PUT_AGAIN}"
    assert _left_behind(conf(), "env:NOT_SET", about | {"old": "1"}) == []


def test_a_note_that_cannot_be_written_is_no_failure(full: Path, call: Call) -> None:
    (full / "state" / "farmhand").parent.mkdir(exist_ok=True)
    private(full / "state" / "farmhand", "no directory")
    code, out, err = call(f"{PUT} --source file:repos.env#SECOND --json")
    assert (code, json.loads(out)["changed"]) == (0, True), err
    assert json.loads(out)["version"] == 1
    assert "cannot be written" in err
    for text in ('{"try": {"key": 5}}', "[]", "{"):
        (full / "state" / "farmhand").unlink(missing_ok=True)
        private(full / "state" / "farmhand" / "credentials.json", text)
        assert call(f"{PUT} --source file:repos.env#SECOND")[0] == 0
        (full / "state" / "farmhand" / "credentials.json").unlink()
        (full / "state" / "farmhand").rmdir()


def test_the_note_of_this_machine(empty: Path) -> None:
    record = Record(ENVIRONMENT)
    assert (record.entries(), record.warning()) == ([], "")
    record.keep(Entry(kind="git", place="image:x", fingerprint="0" * 12, source="file:/x"))
    record.keep(Entry(kind="git", place="image:x", fingerprint="1" * 12))
    assert [(entry.fingerprint, entry.source) for entry in record.entries()] == [("1" * 12, "file:/x")]
    assert "it is in every copy of an image" in aws_credential(conf()).detail
    private(Path(record.path), "{broken")
    assert record.entries() == []
    assert aws_credential(conf()).ok


def test_another_region_or_account_is_another_place(full: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    call(f"{PUT} --source file:repos.env#SECOND")
    [noted] = Record(ENVIRONMENT).entries()
    call("cloud credential status --aws-region eu-west-1")
    assert Record(ENVIRONMENT).entries() == [noted], "looking elsewhere forgets nothing"
    code, out, _ = call("cloud credential check --upload --aws-region eu-west-1 --json")
    assert (code, json.loads(out)["renewed"]) == (0, []), "and nothing is put there by itself"
    assert Record(ENVIRONMENT, lambda: "123456789012@eu-west-1").entries() == []
    # A note of before, without account and region.
    Path(Record(ENVIRONMENT).path).write_text(
        json.dumps({ENVIRONMENT: {"key": {"place": "p", "fingerprint": "0" * 12}}})
    )
    here = Record(ENVIRONMENT, lambda: f"123456789012@{REGION}")
    assert [entry.kind for entry in here.entries()] == ["key"]
    here.forget("key")
    assert Record(ENVIRONMENT).entries() == []


def test_a_note_with_nonsense_in_it_stops_no_command(empty: Path) -> None:
    record = Record(ENVIRONMENT)
    sound = {"place": "p", "fingerprint": "0" * 12}
    wrong: list[dict[str, Any]] = [{"expires_at": "soon"}, {"refused": 5}, {"place": None}, {"source": []}]
    for nonsense in wrong:
        private(Path(record.path), json.dumps({ENVIRONMENT: {"key": sound | nonsense, "git": sound}}))
        assert ([entry.kind for entry in record.entries()], record.warning()) == (["git"], "")


def test_what_fails_keeps_no_other_from_being_put_again(full: Path, call: Call) -> None:
    git, key = (
        private(full / "git.env", "GIT_TOKEN=token-of-git-1\n"),
        private(full / "key.env", f"ANTHROPIC_API_KEY={KEY}\n"),
    )
    call(f"{PUT} --kind git --source file:{git}")
    call(f"{PUT} --source file:{key}")
    last = private(full / "last.env", f"CLAUDE_CODE_OAUTH_TOKEN={TOKEN}\n")
    call(f"{PUT} --kind setup-token --source file:{last}", **ALLOW)
    key.unlink()
    for path in (git, last):
        path.write_text(path.read_text().replace("1\n", "12\n"))
    code, out, _ = call("cloud credential check --upload --json", **ALLOW)
    document = json.loads(out)
    assert (code, [one["kind"] for one in document["renewed"]]) == (3, ["git", "setup-token"])
    [said] = document["trouble"]
    assert said.startswith("key: not put again: the key file")
