"""The ways to tell the operator, with programs that stand for the real ones and a webhook on loopback."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from farmhand.cli.notify import check_way, notify
from farmhand.core.errors import FarmhandError, NotConfigured, UsageError

LINES = ["farm1 queue: 3 tasks await a key (fix: any claude-cheap brings it)", "-x"]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("notify-send", "mail"):
        program = tmp_path / name
        program.write_text(
            f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/{name}.argv\ncat > {tmp_path}/{name}.stdin\n"
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_the_desktop(programs: Path) -> None:
    notify("desktop", "2 red", LINES)
    said = (programs / "notify-send.argv").read_text().splitlines()
    assert said == ["--app-name=farmhand", "--urgency=critical", "2 red", *LINES]


def test_mail(programs: Path) -> None:
    notify("mail:me@example.org", "2 red", LINES)
    assert (programs / "mail.argv").read_text().splitlines() == ["-s", "2 red", "me@example.org"]
    assert (programs / "mail.stdin").read_text().splitlines() == LINES


async def test_a_webhook_by_its_url_and_by_a_file(tmp_path: Path) -> None:
    got: list[dict[str, object]] = []

    async def take(request: web.Request) -> web.Response:
        got.append(await request.json())
        return web.Response(status=500 if request.path == "/secret-broken" else 200)

    app = web.Application()
    app.router.add_post("/{path}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    (tmp_path / "url").write_text(f"{url}/secret\n")
    try:
        await asyncio.to_thread(notify, f"webhook:{url}/secret", "2 red", LINES)
        await asyncio.to_thread(notify, f"webhook:{tmp_path}/url", "2 red", LINES)
        with pytest.raises(FarmhandError, match="500") as caught:
            await asyncio.to_thread(notify, f"webhook:{url}/secret-broken", "2 red", LINES)
    finally:
        await runner.cleanup()
    assert got[0] == got[1] == {"title": "2 red", "lines": LINES, "text": "\n".join(["2 red", *LINES])}
    assert "secret" not in str(caught.value)
    assert json.dumps(got[0])


@pytest.mark.parametrize(
    "way", ["", "pager", "mail:", "mail:-v", "mail:a b", "mail:a@b@c", "webhook:", "webhook:ftp://x", "desktop:1"]
)
def test_what_is_no_way(way: str) -> None:
    with pytest.raises(UsageError, match="not one of desktop"):
        check_way(way)


def test_what_cannot_be_told_is_one_line(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (programs / "mail").write_text("#!/bin/sh\necho no such user >&2\nexit 3\n")
    with pytest.raises(FarmhandError, match="mail ended with 3: no such user"):
        notify("mail:me", "t", LINES)
    with pytest.raises(NotConfigured, match="cannot be read"):
        notify(f"webhook:{programs}/none", "t", LINES)
    (programs / "url").write_text("file:///etc/passwd")
    with pytest.raises(NotConfigured, match="holds no http"):
        notify(f"webhook:{programs}/url", "t", LINES)
    monkeypatch.setenv("PATH", str(programs / "nowhere"))
    with pytest.raises(FarmhandError, match="notify-send is not installed"):
        notify("desktop", "t", LINES)
