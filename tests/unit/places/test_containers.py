"""How the pair of containers is started; that the wall holds is tests/e2e/test_containers.py."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from farmhand.agent.config import Config
from farmhand.cli.signals import Stopped
from farmhand.core.errors import NotConfigured
from farmhand.places import containers, image
from farmhand.places.containers import ContainerPair, ContainerTransport, PairSettings


class Engine:
    """A docker command that keeps what it is asked, and answers an inspection with `running`."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.specs: dict[str, str] = {}

    def run(self, argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(argv[1:])
        out = ""
        if argv[1] == "inspect":
            spec = self.specs.get(argv[-1])
            out = f"true {spec}" if spec else ""
            if spec is None:
                return subprocess.CompletedProcess(argv, 1, "", f"Error: No such container: {argv[-1]}")
        if argv[1] == "exec" and "task.sock" not in argv[-1]:
            return subprocess.CompletedProcess(argv, 1, "", "")
        if argv[1] == "run":
            self.specs[argv[argv.index("--name") + 1]] = argv[argv.index("--label") + 1].partition("=")[2]
        if argv[1] == "rm":
            self.specs.pop(argv[-1], None)
        return subprocess.CompletedProcess(argv, 0, out, "")

    def started(self) -> dict[str, list[str]]:
        """The commands of the containers that were started, by name."""
        return {call[call.index("--name") + 1]: call for call in self.calls if call[0] == "run"}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    made = Engine()
    monkeypatch.setattr(subprocess, "run", made.run)
    monkeypatch.setattr(containers, "ensure", lambda *_: "image:1")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return made


def pair(**more: Any) -> ContainerPair:
    return ContainerPair(PairSettings(checkout=Path("/c"), upstream_url="https://api.anthropic.com", name="x", **more))


def test_both_are_started_once_with_what_confines_them(engine: Engine) -> None:
    said: list[str] = []
    pair().up(said.append)
    started = engine.started()
    assert list(started) == ["x-agent", "x-worker"]
    for call in started.values():
        assert {"--read-only", "--init", "no-new-privileges"} <= set(call)
        assert call[call.index("--cap-drop") + 1] == "ALL"
        assert "--privileged" not in call
    added = {call[i + 1] for call in started.values() for i, word in enumerate(call) if word == "--cap-add"}
    assert added == set(containers.LAUNCHER)
    assert started["x-worker"][started["x-worker"].index("--network") + 1] == "none"
    assert "x-run:/run/farmhand:ro" in started["x-worker"]
    assert "x-sandbox:/run/sandbox:ro" in started["x-agent"]
    engine.calls.clear()
    pair().up(said.append)
    assert [call[0] for call in engine.calls] == ["inspect", "inspect"]
    assert said == ["starting the containers"]


def test_containers_whose_start_was_stopped_are_waited_for(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise Stopped(signal.SIGTERM)

    with monkeypatch.context() as during:
        during.setattr(ContainerPair, "_await_ready", stopped)
        with pytest.raises(Stopped):
            pair().up(print)
    for probes in (1, 0):
        engine.calls.clear()
        pair().up(print)
        assert len([call for call in engine.calls if call[0] == "exec"]) == probes
        assert not engine.started()


def test_two_pairs_share_no_user(engine: Engine) -> None:
    """The kernel counts a user's processes over all containers: a fork bomb in one would stop the other's tasks."""
    firsts = set()
    for name in ("farmhand", "other", "third"):
        ContainerPair(PairSettings(checkout=Path("/c"), upstream_url="https://a", name=name)).up(lambda _step: None)
        call = engine.started()[f"{name}-worker"]
        environ = dict(call[i + 1].split("=", 1) for i, word in enumerate(call) if word == "--env")
        firsts.add(int(environ["FARMHAND_FIRST_UID"]))
    assert len(firsts) == 3
    assert all(100_000 < first < 2**31 - 1000 for first in firsts)


def test_the_agent_s_settings_are_ones_that_it_takes(engine: Engine) -> None:
    pair(prices="x", slots=3).up(lambda _step: None)
    call = engine.started()["x-agent"]
    environ = dict(call[i + 1].split("=", 1) for i, word in enumerate(call) if word == "--env")
    values = tomllib.loads(environ["FARMHAND_CONFIG"])
    assert values.pop("prices_file") == "/tmp/prices.toml"
    config = msgspec.convert(values, Config)
    assert (config.slots_cli, config.repositories, config.network_full) == (3, True, False)
    assert environ["FARMHAND_PRICES"] == "x"


def test_other_settings_replace_the_containers_and_keep_the_ledger(engine: Engine) -> None:
    pair().up(lambda _step: None)
    engine.calls.clear()
    pair(slots=5).up(lambda _step: None)
    assert next(call for call in engine.calls if call[0] == "stop")[-1] == "x-agent"
    assert not [call for call in engine.calls if call[:2] == ["volume", "rm"]]
    engine.calls.clear()
    pair().down()
    assert ["volume", "rm", "x-state"] not in engine.calls
    pair().down(delete_data=True)
    assert ["volume", "rm", "x-state"] in engine.calls


def test_a_new_image_replaces_those_of_the_same_checkout_that_nothing_uses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    removed: list[str] = []

    def docker(*words: str, fine: str = "", **_: Any) -> str:
        if words[:2] == ("image", "ls"):
            assert words[-1] == image.REPOSITORY
            assert words[3] == f"label={ours}"
            return "farmhand-worker:old\nfarmhand-worker:used\nfarmhand-worker:new\n"
        assert words[:2] == ("image", "rm")
        if words[2].endswith("used"):
            raise NotConfigured("conflict: container 1 is using it")
        removed.append(words[2])
        return ""

    ours = "farmhand.checkout=1"
    monkeypatch.setattr(image, "docker", docker)
    image._remove_others("farmhand-worker:new", ours)
    assert removed == ["farmhand-worker:old"]


def test_a_program_that_is_stopped_ends_by_itself(tmp_path: Path) -> None:
    """Mmdebstrap has mounts to take back: it is not killed."""
    script = f"trap 'touch {tmp_path}/ended; exit' TERM; touch {tmp_path}/began; while :; do sleep 0.1; done"

    def stop(*_: object) -> None:
        raise Stopped(signal.SIGTERM)

    def soon() -> None:
        while not (tmp_path / "began").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        threading.Thread(target=soon).start()
        with pytest.raises(Stopped):
            image.run(["bash", "-c", script], "the image")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (tmp_path / "ended").exists()


def test_an_engine_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(containers, "ensure", lambda *_: "image:1")
    failed = subprocess.CompletedProcess(
        [], 1, "", "Cannot connect to the Docker daemon at unix:///x. Is it running?\n"
    )
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(NotConfigured, match="Cannot connect to the Docker daemon"):
        pair().up(lambda _step: None)

    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(NotConfigured, match="docker cannot be started"):
        pair().up(lambda _step: None)


def test_an_engine_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stuck = tmp_path / "docker"
    stuck.write_text("#!/bin/sh\nexec tail -f /dev/null\n")
    stuck.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("_ANSWER_S", "_DONE_S"):
        monkeypatch.setattr(image, name, 0.2)
    with pytest.raises(NotConfigured, match=r"docker inspect: its engine has not answered for 0\.2 s"):
        pair().wall()
    with pytest.raises(NotConfigured, match="docker stop: its engine has not answered"):
        pair().down()
    # Its tasks are not taken for gone: the agent is asked next, and that is said.
    assert pair().exists()


def test_a_home_that_cannot_be_written_is_one_line(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
    with pytest.raises(NotConfigured, match=r"x\.lock cannot be written: Not a directory .*XDG_STATE_HOME"):
        pair().up(lambda _step: None)
    assert engine.calls == []


def test_a_reason_above_an_exit_status_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `docker network rm` of Docker 28 tells it."""

    def fails(said: str) -> None:
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", said))

    fails("Error response from daemon: network x not found\nexit status 1\n")
    assert image.docker("network", "rm", "x", fine="not found") == ""
    fails("Error response from daemon: network x has active endpoints\nexit status 1\n")
    with pytest.raises(NotConfigured, match=r"docker network failed: .*has active endpoints"):
        image.docker("network", "rm", "x", fine="not found")
    for nothing in ("", "exit status 1\n"):
        fails(nothing)
        with pytest.raises(NotConfigured, match="no reason given"):
            image.docker("network", "rm", "x")


@pytest.mark.parametrize(
    ("status", "said", "code"),
    [
        (0, "", None),
        (1, "Error response from daemon: No such container: x-agent", "agent_missing"),
        (1, "Error response from daemon: Container abc is not running", "agent_missing"),
        (1, "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", "unreachable"),
        (137, "", "unreachable"),
    ],
)
def test_why_a_call_ended(status: int, said: str, code: str | None) -> None:
    error = ContainerTransport("x-agent", "docker", 1.0).why(status, said)
    assert (None if error is None else error.code) == code
