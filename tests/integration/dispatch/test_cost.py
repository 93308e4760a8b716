"""`farmhand cost` over real ssh from the real agent's ledger, against what the loopback API billed."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.integration.dispatch.conftest import Workstation, entry
from tests.integration.dispatch.sshd import Sshd
from tests.support.agent import Agent
from tests.support.messages_api import DEFAULT_ADMIN_KEY, MessagesApi, Posting


async def cost(workstation: Workstation, *arguments: str, status: int = 0) -> dict[str, Any]:
    """The document of `farmhand cost --json`."""
    done = await workstation.run("farmhand", "cost", "--json", *arguments)
    assert done.status == status, done.err
    answer: dict[str, Any] = json.loads(done.out)
    return answer


async def test_what_the_agent_recorded_is_what_the_api_billed(
    workstation: Workstation, farm: Sshd, agent: Agent, api: MessagesApi, tmp_path: Path
) -> None:
    for number in range(3):
        await agent.run(id=f"a{number}", prompt=f"Count to {number}", batch="b", labels={"team": "x"})
    await agent.run(id="other", prompt="Hello", model="sonnet", work_class="greeting")
    admin = tmp_path / "home" / "admin.env"
    admin.write_text(f"ADMIN={DEFAULT_ADMIN_KEY}\n")
    admin.chmod(0o600)
    (workstation.config_dir / "config.toml").write_text(
        f'admin_key_source = "file:{admin}#ADMIN"\nadmin_url = "{api.url}"\nbox_usd_month = "24"\n'
    )
    first = await cost(workstation, "--by", "model")
    assert first["whole"]["tasks"] == 4
    assert first["whole"]["requests"] == len(api.posts) == 4
    assert first["whole"]["output_tokens"] == sum(entry.usage["output_tokens"] for entry in api.posts)
    assert [group["key"] for group in first["groups"]] == ["claude-sonnet-5-5", "claude-haiku-5-5"]
    provider = first["provider"]
    assert provider["theirs_usd"] == provider["ours_usd"] == first["spent"]["total_usd"]
    assert provider["difference_usd"] == "0.00"
    results = [(await agent.get(f"/v1/tasks/{name}"))["task"] for name in ("a0", "a1", "a2", "other")]
    assert Decimal(first["spent"]["total_usd"]) == sum(Decimal(str(result["cost_usd"])) for result in results)
    # What else the organization was billed shows as the difference; asking again merges nothing twice.
    api.state.books.post(Posting(at=api.posts[0].time, model="claude-opus-5-5", cents="150"))
    second = await cost(workstation, "--by", "label:team")
    assert second["whole"] == first["whole"]
    assert second["provider"]["difference_usd"] == "1.50"
    assert {group["key"]: group["requests"] for group in second["groups"]} == {"x": 3, "": 1}
    done = await workstation.run("farmhand", "cost", "--by", "batch")
    assert done.status == 0, done.err
    assert first["spent"]["total_usd"] in done.out.decode()
    assert DEFAULT_ADMIN_KEY not in done.out.decode() + done.err


async def test_a_host_that_is_gone_keeps_its_figures_and_a_rebuilt_one_adds_to_them(
    workstation: Workstation, farm: Sshd, agent: Agent, tmp_path: Path
) -> None:
    await agent.run(id="one", prompt="Hello")
    before = await cost(workstation, "--no-interactive")
    await agent.stop()
    gone = await cost(workstation, status=4)
    assert gone["spent"]["total_usd"] == before["spent"]["total_usd"]
    assert gone["hosts"][0]["error"]
    for file in (tmp_path / "state").glob("ledger*"):
        file.unlink()
    await agent.start()
    await agent.run(id="one", prompt="Hello")
    workstation.write_hosts(farm1=entry(farm))
    rebuilt = await cost(workstation)
    assert rebuilt["whole"]["requests"] == 2
    assert Decimal(rebuilt["spent"]["total_usd"]) == 2 * Decimal(before["spent"]["total_usd"])
