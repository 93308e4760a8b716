"""Headless Chromium, driven over the DevTools protocol: pages as people see them, and all that goes wrong in them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
#: How long anything may take here, on a machine that is busy.
WAIT_S = 90.0


class BrowserError(AssertionError):
    """What was asked of the page failed in it."""


class Page:
    """One tab. `problems` are console errors, uncaught exceptions and policy violations; `requests` all addresses."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, downloads: Path) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.downloads = downloads
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events: dict[str, asyncio.Event] = {}
        self._reader = asyncio.create_task(self._read())

    async def close(self) -> None:
        """Stop listening."""
        self._reader.cancel()
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            found = message.json()
            if "id" in found:
                self._answers.pop(found["id"]).set_result(found)
            else:
                self._event(found["method"], found["params"])

    def _event(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.problems.append(f"dialog: {params['message']}")
        name = f"{method} {params['state']}" if method == "Browser.downloadProgress" else method
        self._happened(name).set()

    def _happened(self, name: str) -> asyncio.Event:
        return self._events.setdefault(name, asyncio.Event())

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One method of the protocol. Raises BrowserError."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        answer = await asyncio.wait_for(self._answers[number], WAIT_S)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def start(self) -> None:
        """Listen to all that matters."""
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads), eventsEnabled=True
        )

    async def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a page in a window of this size; both lists begin anew."""
        scheme = "dark" if dark else "light"
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.problems.clear()
        self.requests.clear()
        loaded = self._happened("Page.loadEventFired")
        loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(loaded.wait(), WAIT_S)

    async def run(self, script: str) -> Any:
        """The value of an expression in the page. Raises BrowserError."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def press(self, key: str) -> None:
        """A key goes down and up."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        more: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": codes[key]}
        if key in ("Enter", " "):
            more["text"] = "\r" if key == "Enter" else " "
        await self.call("Input.dispatchKeyEvent", type="keyDown", **more)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=codes[key])

    async def downloaded(self, script: str) -> bytes:
        """The file that the page downloads when `script` is run."""
        done = self._happened("Browser.downloadProgress completed")
        done.clear()
        before = set(self.downloads.iterdir())
        await self.run(script)
        await asyncio.wait_for(done.wait(), WAIT_S)
        (path,) = set(self.downloads.iterdir()) - before
        return path.read_bytes()

    async def picture(self, path: Path) -> None:
        """A screenshot of the whole page."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def browser(directory: Path) -> AsyncIterator[Page]:
    """A page of a Chromium of its own, with an empty profile below `directory`."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is missing: scripts/tools test installs it"
    profile, downloads = directory / "profile", directory / "downloads"
    downloads.mkdir()
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        program, *_FLAGS, f"--user-data-dir={profile}", "about:blank", stdin=quiet, stdout=quiet, stderr=quiet
    )
    try:
        port = await asyncio.wait_for(_port(profile / "DevToolsActivePort"), WAIT_S)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = await answer.json()
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                page = Page(socket, downloads)
                await page.start()
                yield page
                await page.close()
    finally:
        process.kill()
        await process.wait()


async def _port(path: Path) -> int:
    while True:
        with contextlib.suppress(FileNotFoundError, IndexError, ValueError):
            return int(path.read_text().split()[0])
        await asyncio.sleep(0.05)
