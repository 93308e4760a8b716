"""A web page in a real Chromium that attacks the gateway, and even has its token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from farmhand.gateway.guard import Denied, Guard
from tests.support.browser import browser
from tests.support.gateway_inside import TOKEN, gateway_inside
from tests.support.local_server import until

#: What a page can do to an address, each ended before the next begins. `see` gets what the page could read.
ATTACK = """
(async (base, token) => {
  const see = [];
  const turn = JSON.stringify({model: "x", max_tokens: 9, messages: [{role: "user", content: "hi"}]});
  const attempt = async (name, call) => {
    try { const answer = await call(); see.push([name, answer.type, answer.status, await answer.text()]); }
    catch (error) { see.push([name, "error", 0, ""]); }
  };
  await attempt("json", () => fetch(base + "/v1/messages", {method: "POST", body: turn,
    headers: {"content-type": "application/json", authorization: "Bearer " + token}}));
  await attempt("plain", () => fetch(base + "/v1/messages", {method: "POST", body: turn, mode: "no-cors"}));
  await attempt("list", () => fetch(base + "/v1/models", {headers: {"x-api-key": token}}));
  await attempt("health", () => fetch(base + "/health", {mode: "no-cors"}));
  navigator.sendBeacon(base + "/v1/messages", new Blob([turn], {type: "text/plain"}));
  const element = (tag, fields) => new Promise(done => {
    const made = Object.assign(document.createElement(tag), fields, {onload: done, onerror: done});
    document.body.append(made);
    setTimeout(done, 3000);
  });
  await element("img", {src: base + "/v1/models"});
  await element("script", {src: base + "/v1/models"});
  await element("iframe", {src: base + "/health", name: "frame"});
  const form = Object.assign(document.createElement("form"),
    {method: "post", enctype: "text/plain", action: base + "/v1/messages", target: "frame"});
  form.append(Object.assign(document.createElement("input"), {name: '{"model":"x', value: '"}'}));
  document.body.append(form);
  form.submit();
  await new Promise(done => {
    const socket = new WebSocket(base.replace("http", "ws") + "/v1/messages");
    socket.onclose = socket.onerror = socket.onopen = event => { see.push(["socket", event.type, 0, ""]); done(); };
  });
  return see;
})(BASE, TOKEN)
"""


@asynccontextmanager
async def page_of_somebody() -> AsyncIterator[int]:
    """A web site of another port, which is another origin."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(text="<!doctype html><title>evil</title><body>", content_type="text/html")

    server = await asyncio.get_running_loop().create_server(web.Server(answer), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_a_web_page_gets_nothing_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    seen: list[tuple[str, str, int]] = []
    check = Guard.check

    async def noted(self: Guard, request: web.BaseRequest, *, public: bool) -> None:
        try:
            await check(self, request, public=public)
            seen.append((request.method, request.path, 200))
        except Denied as denied:
            seen.append((request.method, request.path, denied.status))
            raise

    monkeypatch.setattr(Guard, "check", noted)
    async with page_of_somebody() as port, gateway_inside(tmp_path) as inside, browser(tmp_path) as page:
        await page.open(f"http://127.0.0.1:{port}/")
        script = ATTACK.replace("BASE", repr(f"http://{name}:{inside.port}")).replace("TOKEN", repr(TOKEN))
        could_read = {attempt: (kind, status, text) for attempt, kind, status, text in await page.run(script)}
        assert could_read["json"][0] == could_read["list"][0] == "error"
        assert could_read["plain"] == could_read["health"] == ("error", 0, "")
        assert could_read["socket"][0] == "error"
        # All of them came here, but what the browser itself held back after its preflight.
        await until(lambda: len([one for one in seen if one[0] == "POST"]) >= 3)
        assert {("OPTIONS", "/v1/messages"), ("GET", "/health"), ("GET", "/v1/models")} <= {one[:2] for one in seen}
        assert {status for _, _, status in seen} <= {403}
        assert inside.answering.metrics.counts() == []
