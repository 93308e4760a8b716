"""farmhand_credential and playbooks/credential.yml with the real ansible-playbook, and where the credential is then."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from pathlib import Path

import boto3

from farmhand.core.keys import fingerprint
from tests.integration.dispatch.test_rotate import watch
from tests.support.messages_api import MessagesApi
from tests.unit.aws.conftest import ENVIRONMENT, REFRESH, TOKEN, login, private
from tests.unit.aws.test_vault import stages, value
from tests.unit.cli.cloud.test_credential import everything

CHECKOUT = Path(__file__).resolve().parents[3]
BUCKET = f"farmhand-{ENVIRONMENT}-123456789012-us-east-1"


def environment(station: Path, api: MessagesApi) -> dict[str, str]:
    """The variables of a command of this operator."""
    return {
        **{name: text for name, text in os.environ.items() if name.startswith("AWS_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(station),
        "LANG": "C.UTF-8",
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        "FARMHAND_AWS_ENVIRONMENT": ENVIRONMENT,
        "FARMHAND_UPSTREAM_URL": api.url,
    }


async def play(station: Path, api: MessagesApi, *options: str, **more: str) -> tuple[int, str]:
    """(exit status, all output) of playbooks/credential.yml."""
    process = await asyncio.create_subprocess_exec(
        *("ansible-playbook", "playbooks/credential.yml", *options),
        env=environment(station, api) | more,
        cwd=CHECKOUT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    return int(process.returncode or 0), out.decode()


async def test_a_key_is_put_retired_and_seen_nowhere_but_in_the_secret(station: Path, api: MessagesApi) -> None:
    first, second = (f"sk-ant-test-{uuid.uuid4().hex}" for _ in range(2))
    api.state.keys = frozenset({first, second})
    source = private(station / "repos.env", f"ANTHROPIC_API_KEY={first}\n")
    watching = asyncio.create_task(watch([first, second]))
    before = everything()
    status, out = await play(station, api, "--check", "--diff")
    assert (status, "changed=1" in out) == (0, True), out
    assert f"+credential: {fingerprint(first)}" in out
    assert everything() == before
    said = out
    for options, changed in (((), 1), ((), 0), (("--check",), 0)):
        status, out = await play(station, api, "-vvv", "--diff", *options)
        assert (status, f"changed={changed} " in out) == (0, True), out
        said += out
    version = next(iter(stages(f"farmhand/{ENVIRONMENT}/key")))
    private(source, f"ANTHROPIC_API_KEY={second}\n")
    status, out = await play(station, api, "-vvv", "--diff", "-e", "credential_state=rotated")
    assert (status, "changed=1 " in out) == (0, True), out
    assert version not in stages(f"farmhand/{ENVIRONMENT}/key")
    assert value(f"farmhand/{ENVIRONMENT}/key") == second
    said += out
    watching.cancel()
    assert await watching == [], "argv and environ of every process"
    everywhere = json.dumps(everything(), default=str) + said
    noted = "".join(path.read_text() for path in station.rglob("*") if path.is_file() and path != source)
    assert [key for key in (first, second) if key in everywhere + noted] == []
    status, out = await play(station, api, "-e", "credential_state=absent")
    assert (status, "changed=1 " in out) == (0, True), out
    # The variables are those of playbooks/cloud.yml: another environment is asked for, and not the settings' one.
    status, out = await play(station, api, "-e", "aws_environment=other", "-e", "credential_state=present")
    assert (status, "there is no stack farmhand-other" in out) == (2, True), out


async def test_a_login_to_the_bucket_and_what_is_refused(station: Path, api: MessagesApi) -> None:
    path = login(station / ".claude" / ".credentials.json", (time.time() + 4 * 3600) * 1000)
    options = ("-e", "credential_kind=login", "-e", "credential_place=s3")
    before = everything()
    status, out = await play(station, api, *options)
    assert (status, "allow_subscription_cloud" in out) == (2, True), out
    status, out = await play(station, api, *options, "-vvv", FARMHAND_ALLOW_SUBSCRIPTION_CLOUD="true")
    assert (status, "changed=1 " in out) == (0, True), out
    assert "logs nobody out" in out
    body = boto3.client("s3").get_object(Bucket=BUCKET, Key=f"{ENVIRONMENT}/credentials/login.json")["Body"].read()
    assert TOKEN.encode() in body
    assert b"refreshToken" not in body
    assert REFRESH not in out
    assert TOKEN not in out
    now = everything()
    login(path, (time.time() - 60) * 1000)
    status, out = await play(station, api, *options, FARMHAND_ALLOW_SUBSCRIPTION_CLOUD="true")
    assert (status, "has expired" in out) == (2, True), out
    assert everything() == now != before


async def test_a_dead_key_fails_in_check_mode_as_well(station: Path, api: MessagesApi) -> None:
    private(station / "repos.env", f"ANTHROPIC_API_KEY=sk-ant-test-{uuid.uuid4().hex}\n")
    before = everything()
    for options in (("--check",), ()):
        status, out = await play(station, api, *options)
        assert (status, "does not know the new key (401)" in out) == (2, True), out
        assert everything() == before
