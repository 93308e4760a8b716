"""The gateways that are measured: ours, LiteLLM and claude-code-router, each a process of its own on the first core.

The others come from their registries when they are first measured, in the versions and with the digests of
benchmarks/pinned. Each is set up as its own pages say, without its logs, and with a key that clients have to show.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ground import ROOT
from benchmarks.meter import _pin
from benchmarks.model_server import MODEL
from tests.support.farm import FarmError
from tests.support.gateway import GatewayProcess, free_port
from tests.support.node import ROOT as CACHE
from tests.support.node import installed, node

OURS, LITELLM, CCR = "farmhand", "LiteLLM", "claude-code-router"
_PINNED = ROOT / "benchmarks" / "pinned"
_START_S = 180.0
_KEY = "sk-bench-0123456789abcdef0123456789abcdef"


@dataclass(kw_only=True)
class Gateway:
    """A gateway that runs. `models`: way → what a client asks for to be sent that way, if the gateway has it."""

    name: str
    port: int
    token: str
    models: Mapping[str, str]
    process: subprocess.Popen[bytes]
    #: Seconds from its start until it listened.
    start_s: float

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


#: How a turn goes through a gateway: the client's dialect and the model server's.
WAYS = {
    "chat": ("chat", "chat"),
    "messages": ("messages", "messages"),
    "translated": ("messages", "chat"),
}


def start(name: str, upstream: int, home: Path) -> Gateway:
    """Start a gateway before the model server on port `upstream`; return once it listens. Raise FarmError."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    argv, environ, token, models = _MADE[name](upstream, port, home)
    _pin(0)
    log = home / "log"
    try:
        began = time.perf_counter()
        with log.open("wb") as out:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environ, cwd=home)
    finally:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        _pin(1)
    while True:
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 1):
            break
        if process.poll() is not None or time.perf_counter() - began > _START_S:
            process.kill()
            raise FarmError(f"{name} did not start: {log.read_text(errors='replace')[-600:]}")
        time.sleep(0.005)
    taken = time.perf_counter() - began
    return Gateway(name=name, port=port, token=token(), models=models, process=process, start_s=taken)


_Made = tuple[list[str], dict[str, str], Callable[[], str], dict[str, str]]


def _farmhand(upstream: int, port: int, home: Path) -> _Made:
    url = f"http://127.0.0.1:{upstream}"
    settings = f"""
[local.chat]
url = "{url}"
[local.messages]
url = "{url}"
dialect = "messages"
[aliases]
chat = {{ backend = "local:chat" }}
messages = {{ backend = "local:messages" }}
"""
    ours = GatewayProcess(home, settings)
    ours.port = port
    ours.write(settings)
    argv = [str(ROOT / ".venv/bin/farmhand"), "gateway", "serve"]
    return argv, ours.environ, lambda: ours.token, {"chat": "chat", "messages": "messages", "translated": "chat"}


def _litellm(upstream: int, port: int, home: Path) -> _Made:
    url = f"http://127.0.0.1:{upstream}"
    models = {"chat": ("openai", f"{url}/v1"), "messages": ("anthropic", url)}
    listed = [
        {"model_name": name, "litellm_params": {"model": f"{kind}/{MODEL}", "api_base": base, "api_key": _KEY}}
        for name, (kind, base) in models.items()
    ]
    settings = {
        "model_list": listed,
        "general_settings": {"master_key": _KEY},
        "litellm_settings": {
            "telemetry": False,
            "drop_params": True,
            # Without it a Messages request goes to /v1/responses, which many model servers do not have.
            "use_chat_completions_url_for_anthropic_messages": True,
        },
    }
    (home / "config.yaml").write_text(json.dumps(settings))
    argv = [str(_venv() / "bin/litellm"), "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    environ = _environ(home) | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    names = {"chat": "chat", "messages": "messages", "translated": "chat"}
    return [*argv, "--telemetry", "False"], environ, lambda: _KEY, names


def _ccr(upstream: int, port: int, home: Path) -> _Made:
    url = f"http://127.0.0.1:{upstream}/v1"
    providers: list[dict[str, object]] = [
        {"name": "chat", "api_base_url": f"{url}/chat/completions"},
        {"name": "messages", "api_base_url": f"{url}/messages", "transformer": {"use": ["Anthropic"]}},
    ]
    settings = {
        "LOG": False,
        "HOST": "127.0.0.1",
        "PORT": port,
        "APIKEY": _KEY,
        "API_TIMEOUT_MS": 600_000,
        "NON_INTERACTIVE_MODE": True,
        "Providers": [provider | {"api_key": _KEY, "models": [MODEL]} for provider in providers],
        "Router": {"default": f"chat,{MODEL}"},
    }
    path = home / ".claude-code-router" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(settings))
    script = installed(_PINNED / "ccr") / "node_modules/@musistudio/claude-code-router/dist/cli.js"
    names = {"messages": f"messages,{MODEL}", "translated": f"chat,{MODEL}"}
    return [str(node((20, 0, 0))), str(script), "start"], _environ(home), lambda: _KEY, names


_MADE: dict[str, Callable[[int, int, Path], _Made]] = {OURS: _farmhand, LITELLM: _litellm, CCR: _ccr}


def _environ(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "NO_PROXY": "127.0.0.1"}


def _venv() -> Path:
    """The directory of the venv with LiteLLM, made once for its lock."""
    lock = _PINNED / "litellm.txt"
    target = CACHE / f"litellm-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not (target / "whole").exists():
        print("(LiteLLM is being installed: 750 MB, some minutes)", file=sys.stderr, flush=True)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        # The lock is complete. pip's own search would stumble over an extra in it (pydantic[email]).
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(lock)]
        for argv in (
            [sys.executable, "-m", "venv", str(target)],
            [str(target / "bin/python"), "-m", "pip", "install", *options],
        ):
            done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                raise FarmError(f"LiteLLM cannot be installed: {done.stderr[-600:]}")
        (target / "whole").touch()
    return target


def there(names: tuple[str, ...], upstream: int, directory: Path) -> dict[str, Gateway]:
    """The gateways that run. Why another one does not is said; ours has to. Raise FarmError."""
    running = {}
    for name in names:
        try:
            running[name] = start(name, upstream, directory / name)
        except (FarmError, OSError, subprocess.SubprocessError) as error:
            if name == OURS:
                raise
            print(f"({name} is not measured: {error})", file=sys.stderr, flush=True)
    return running
