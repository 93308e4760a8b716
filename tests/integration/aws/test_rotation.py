"""The key on AWS is rotated by its version stages while tasks run: none fails, and the old key is dead afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from farmhand.aws.credentials.vault import Options, Vault
from farmhand.core.errors import WireError
from farmhand.core.keys import fingerprint
from farmhand.core.keysource import read_key
from farmhand.core.settings import Settings
from farmhand.rotation.build import build, given_host
from farmhand.rotation.machine import Machine
from farmhand.rotation.sources import Slots, open_source
from tests.support.forked import ForkedAgent
from tests.support.messages_api import DEFAULT_ADMIN_KEY, DEFAULT_KEY, MessagesApi
from tests.support.rotation import new_key
from tests.unit.aws.conftest import ENVIRONMENT, REGION
from tests.unit.aws.test_vault import key, stages

NAME = f"farmhand/{ENVIRONMENT}/key"
SOURCE = f"secretsmanager:{NAME}"


@pytest.fixture
async def agent(tmp_path: Path, api: MessagesApi, station: Path) -> AsyncIterator[ForkedAgent]:
    daemon = ForkedAgent(tmp_path, api.url, idle_s=5.0, drain_s=5.0)
    await daemon.start()
    yield daemon
    await daemon.stop()


@pytest.fixture
def stored(station: Path) -> Vault:
    keeper = Vault(Settings(aws_environment=ENVIRONMENT, aws_region=REGION), lambda _key: None, Options())
    keeper.put(key(DEFAULT_KEY, 4e9))
    return keeper


def machine(station: Path, api: MessagesApi, *agents: ForkedAgent, **more: Any) -> Machine:
    admin = station / "admin.env"
    admin.write_text(f"ANTHROPIC_API_KEY={DEFAULT_ADMIN_KEY}\n")
    admin.chmod(0o600)
    conf = Settings(
        key_source=SOURCE,
        upstream_url=api.url,
        admin_url=api.url,
        admin_key_source=f"file:{admin}",
        aws_environment=ENVIRONMENT,
        aws_region=REGION,
    )
    hosts = [given_host({"name": f"farm{n}", "socket": str(a.socket)}, 5.0) for n, a in enumerate(agents)]
    return build(conf, hosts, tell=lambda _line: None, drain_s=20.0, retire_s=2.0, **more)


async def test_ten_rotations_under_load(station: Path, stored: Vault, api: MessagesApi, agent: ForkedAgent) -> None:
    sent: list[str] = []
    enough = asyncio.Event()

    async def client() -> None:
        number = 0
        while not enough.is_set():
            current = {"X-Farmhand-Key": await asyncio.to_thread(read_key, SOURCE)}
            sent.append(f"t{number}")
            await agent.submit({"id": sent[-1], "prompt": "hello"}, key=current)
            number += 1
            await asyncio.sleep(0.05)

    load = asyncio.create_task(client())
    try:
        for number in range(10):
            new = new_key(number)
            api.state.keys = api.state.current_keys() | {new}
            one = machine(station, api, agent)

            def rotate(one: Machine = one, new: str = new) -> None:
                with one.running():
                    assert one.stage(new)
                    assert one.advance()

            await asyncio.to_thread(rotate)
            assert read_key(SOURCE) == new
            assert list(stages(NAME).values()) == [["AWSCURRENT"]]
            assert api.state.keys == {new}, "the old key is dead"
    finally:
        enough.set()
        await load
    results = [await agent.result(task) for task in sent]
    assert len(results) > 20
    assert [result for result in results if result["state"] != "succeeded"] == []
    # The watcher knows of the new key, and no more of the old one's end.
    [row] = stored.status(14)
    assert (row["fingerprint"], row["expires_at"], row["trouble"]) == (fingerprint(new_key(9)), "", "")


async def test_without_any_farm_host_and_back_again(station: Path, stored: Vault, api: MessagesApi) -> None:
    new = new_key(1)
    api.state.keys = frozenset({DEFAULT_KEY, new})

    def there_and_back() -> None:
        one = machine(station, api)
        assert one.stage(new)
        assert open_source(SOURCE).read() == Slots(DEFAULT_KEY, next=new)
        assert one.advance("switched")
        assert open_source(SOURCE).read() == Slots(new, previous=DEFAULT_KEY)
        assert machine(station, api).abort()
        assert open_source(SOURCE).read() == Slots(DEFAULT_KEY)
        assert machine(station, api).stage(new), "and again, with a version that has lost its stages"
        assert machine(station, api).advance()
        assert open_source(SOURCE).read() == Slots(new)

    await asyncio.to_thread(there_and_back)
    assert api.state.keys == {new}


async def test_what_aws_keeps_from_before_is_in_nobodys_way(station: Path, stored: Vault, api: MessagesApi) -> None:
    """AWSPREVIOUS is there after any change, and AWSPENDING may stay on the version that became current."""
    current, new = new_key(2), new_key(3)
    stored.put(key(current))
    client = boto3.client("secretsmanager")
    version = next(version for version, held in stages(NAME).items() if "AWSCURRENT" in held)
    client.update_secret_version_stage(SecretId=NAME, VersionStage="AWSPENDING", MoveToVersionId=version)
    assert open_source(SOURCE).read() == Slots(current, None, DEFAULT_KEY)
    api.state.keys = frozenset({current, new})
    one = machine(station, api)
    assert await asyncio.to_thread(one.stage, new)
    assert open_source(SOURCE).read() == Slots(current, next=new)
    assert await asyncio.to_thread(one.advance)


async def test_names_and_what_is_no_key(station: Path, stored: Vault) -> None:
    client = boto3.client("secretsmanager")
    arn = client.describe_secret(SecretId=NAME)["ARN"]
    assert read_key(f"secretsmanager:{arn}") == DEFAULT_KEY
    assert open_source(f"secretsmanager:{arn}").place == open_source(SOURCE).place, "one name, however it is spelled"
    client.create_secret(Name="words", SecretString="two words")
    client.create_secret(Name="bytes", SecretBinary=b"x")
    for name, part in (("words", "does not start with"), ("bytes", "holds bytes"), ("none", "there is no secret none")):
        with pytest.raises(WireError, match=part) as caught:
            read_key(f"secretsmanager:{name}")
        assert caught.value.exit_code == 3
        assert "two words" not in str(caught.value)
    client.delete_secret(SecretId=NAME)
    with pytest.raises(WireError, match="marked for deletion"):
        read_key(SOURCE)
