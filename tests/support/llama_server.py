"""The real llama.cpp's HTTP server, from the package xllamacpp, with a model of `scripted_gguf`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import urllib.error
import urllib.request
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.scripted_gguf import write_model


class LlamaServer:
    """One server process. `context` is each slot's, in tokens; a byte of a prompt is one token."""

    def __init__(self, directory: Path, *, context: int = 65536, slots: int = 2) -> None:
        self.model = directory / "scripted.gguf"
        self.log = directory / "llama.log"
        self.context = context
        self.slots = slots
        self.url = ""
        self._process: Process | None = None

    def script(self, at_user: list[str], at_result: list[str] | None = None) -> LlamaServer:
        """Set what the model says: to the user, and after a tool's result."""
        write_model(self.model, at_user=at_user, at_result=at_result or ["done"])
        return self

    async def start(self, port: int = 0) -> None:
        """Start it and wait until it is healthy. `port` 0: a free one."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.llama_server", str(self.model)),
                *(str(port), str(self.context), str(self.slots)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=Path(__file__).resolve().parents[2],
            )
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.startswith(b"listening "):
                self.url = line.split()[1].decode()
                return
        raise AssertionError(f"llama.cpp did not start: {self.log.read_text(errors='replace')[-2000:]}")

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[LlamaServer]:
        """Run it within the block."""
        await self.start(port)
        try:
            yield self
        finally:
            await self.stop()

    async def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def get(self, path: str) -> Any:
        """Return the decoded answer to a GET."""
        with urllib.request.urlopen(self.url + path) as answer:  # noqa: S310  (our own loopback server)
            return json.load(answer)


def _serve(model: str, port: int, context: int, slots: int) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel = context * slots, slots
    params.hostnames, params.port = ["127.0.0.1"], port
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = False
    params.use_jinja = params.endpoint_metrics = params.endpoint_slots = params.endpoint_props = True
    server = xllamacpp.Server(params)
    print("listening", server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    _serve(sys.argv[1], *map(int, sys.argv[2:5]))
