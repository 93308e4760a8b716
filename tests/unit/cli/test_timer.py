"""The timer's files, judged by systemd itself and by the reader of property lists."""

from __future__ import annotations

import os
import plistlib
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from farmhand.cli.timer import Daily
from farmhand.core.errors import NotConfigured

COMMAND = ["/bin/echo", "doctor", "--notify", "mail:me", '100 % $HOME "x" \\']
DOCTOR = Daily(name="doctor", about="doctor: is the farm green?", command=COMMAND, success=1)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_systemd_takes_the_units(home: Path) -> None:
    assert DOCTOR.install({"PATH": "/opt/my tools:/bin"}, "linux") == (
        "systemctl --user daemon-reload && systemctl --user enable --now farmhand-doctor.timer"
    )
    directory = home / ".config/systemd/user"
    units = sorted(directory.iterdir())
    assert [unit.name for unit in units] == ["farmhand-doctor.service", "farmhand-doctor.timer"]
    assert {stat.S_IMODE(unit.stat().st_mode) for unit in units} == {0o600}
    assert shutil.which("systemd-analyze"), "install systemd"
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, units)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = units[0].read_text()
    assert 'ExecStart="/bin/echo" "doctor" "--notify" "mail:me" "100 %% $$HOME \\"x\\" \\\\"' in text
    assert 'Environment="PATH=/opt/my tools:/bin"' in text


def test_the_same_files_again_are_left_alone(home: Path) -> None:
    environ = {"PATH": "/bin", "XDG_CONFIG_HOME": str(home / "xdg")}
    DOCTOR.install(environ, "linux")
    unit = home / "xdg/systemd/user/farmhand-doctor.timer"
    before = unit.stat().st_mtime_ns
    DOCTOR.install(environ, "linux")
    assert unit.stat().st_mtime_ns == before


def test_launchd_gets_a_property_list(home: Path) -> None:
    said = DOCTOR.install({"PATH": "/bin"}, "darwin")
    path = home / "Library/LaunchAgents/farmhand.doctor.plist"
    assert said.endswith(str(path))
    with path.open("rb") as file:
        found = plistlib.load(file)
    assert found["ProgramArguments"] == COMMAND
    assert found["StartCalendarInterval"] == {"Hour": 9, "Minute": 0}
    assert found["EnvironmentVariables"] == {"PATH": "/bin"}
    assert found["WorkingDirectory"] == os.getcwd()


def test_a_place_that_cannot_be_written(home: Path) -> None:
    (home / ".config").write_text("")
    with pytest.raises(NotConfigured, match="cannot be written"):
        DOCTOR.install({}, "linux")


def test_the_lines_for_other_schedulers_run_the_same_words() -> None:
    assert DOCTOR.text("cron", {}).startswith(
        f"0 9 * * * cd {os.getcwd()} && {{ /bin/echo doctor --notify mail:me '100 \\% $HOME \"x\" \\' >/dev/null"
    )
    assert plistlib.loads(DOCTOR.text("launchd").encode())["ProgramArguments"] == COMMAND
    text = DOCTOR.text("systemd", {"PATH": "/bin"})
    assert "SuccessExitStatus=1" in text
    assert text.endswith("systemctl --user enable --now farmhand-doctor.timer\n")
    assert "SuccessExitStatus" not in Daily(name="x", about="x", command=["/bin/true"]).text("systemd")


def test_settings_and_project_of_this_session_are_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = home / "100 % farm"
    project.mkdir()
    monkeypatch.chdir(project)
    environ = {
        "PATH": "/bin",
        "FARMHAND_CONFIG": "../demo/config.toml",
        "FARMHAND_HOST": "it's farm1",
        "XDG_STATE_HOME": "/state",
        "ANTHROPIC_API_KEY": "sk-ant-test-0",
        "FARMHAND_DEBUG": "1",
    }
    kept = {name: environ[name] for name in ("PATH", "FARMHAND_CONFIG", "FARMHAND_HOST", "XDG_STATE_HOME")}
    daily = Daily(name="doctor", about="doctor", command=["/bin/sh", "-c", "pwd; printenv >seen"])
    agent = plistlib.loads(daily.text("launchd", environ).encode())
    assert (agent["WorkingDirectory"], agent["EnvironmentVariables"]) == (str(project), kept)
    daily.install(environ, "linux")
    unit = home / ".config/systemd/user/farmhand-doctor.service"
    lines = unit.read_text().splitlines()
    assert f"WorkingDirectory={home}/100 %% farm" in lines
    assert [line for line in lines if line.startswith("Environment=")] == [
        f'Environment="{name}={value}"' for name, value in kept.items()
    ]
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, b"")
    # cron gives its line to a shell, in another directory, and takes a % for a line feed.
    line = daily.text("cron", environ).removeprefix("0 9 * * * ").replace(r"\%", "%")
    subprocess.run(["sh", "-c", line], cwd="/", env={"PATH": os.environ["PATH"]}, check=True)
    seen = (project / "seen").read_text().splitlines()
    assert {f"{name}={value}" for name, value in kept.items() if name != "PATH"} <= set(seen)
