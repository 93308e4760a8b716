"""The provider's host for a program that insists on it: a proxy (`HTTPS_PROXY`) that ends TLS and asks the stand-in.

So the real claude CLI is tried unmodified, with no base URL set: it believes that it talks to the provider.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

HOST = "api.anthropic.com"


class ProviderHost:
    """`async with ProviderHost(directory, api.url) as host:` `host.environ` is what a program needs to get here."""

    def __init__(self, directory: Path, api_url: str) -> None:
        self._directory = directory
        self._api = urlsplit(api_url)
        self._pipes: set[asyncio.Task[None]] = set()
        #: The hosts that were asked for, in order.
        self.asked: list[str] = []
        self.environ: dict[str, str] = {}

    async def __aenter__(self) -> ProviderHost:
        certificate, key = await asyncio.to_thread(_certificate, self._directory)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._inner = await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=context)
        self._outer = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        port = self._outer.sockets[0].getsockname()[1]
        self.environ = {"HTTPS_PROXY": f"http://127.0.0.1:{port}", "NODE_EXTRA_CA_CERTS": str(certificate)}
        return self

    async def __aexit__(self, *error: object) -> None:
        self._outer.close()
        self._inner.close()
        for pipe in self._pipes:
            pipe.cancel()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer CONNECT. Only the provider's host exists."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        host = head.split()[1].decode("latin-1").rpartition(":")[0]
        self.asked.append(host)
        if not head.startswith(b"CONNECT ") or host != HOST:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        there = self._inner.sockets[0].getsockname()
        await self._join(reader, writer, *await asyncio.open_connection(there[0], there[1]))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._join(reader, writer, *await asyncio.open_connection(self._api.hostname, self._api.port))

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        other_reader: asyncio.StreamReader,
        other_writer: asyncio.StreamWriter,
    ) -> None:
        """Copy both ways. When one side goes, so does the other: a client that leaves is gone for the API too."""
        pipes = [asyncio.create_task(_copy(reader, other_writer)), asyncio.create_task(_copy(other_reader, writer))]
        self._pipes |= set(pipes)
        try:
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pipe in pipes:
                pipe.cancel()
            self._pipes -= set(pipes)
            writer.close()
            other_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        return


def _certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for the provider's name, which a program trusts that is told to, and its key."""
    certificate, key = directory / "provider.pem", directory / "provider.key"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", f"/CN={HOST}"]
    subprocess.run([*made, "-addext", f"subjectAltName=DNS:{HOST}"], check=True, capture_output=True)
    return certificate, key
