"""The farm's own files and processes, without Docker."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.farm import Farm, FarmError, files
from tests.support.farm.background import Background
from tests.support.farm.control import wire_answer
from tests.support.farm.run import check, run


def test_a_farm_with_a_loopback_api_points_its_agent_there(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    farm.state.mkdir()
    (farm.state / "api.url").write_text("http://172.18.0.1:4242\n", encoding="ascii")
    host = json.loads(files.inventory(farm, "172.18.0.2"))["farm"]["hosts"]["farm1"]
    assert host["jada_agent_upstream_url"] == "http://172.18.0.1:4242"
    assert host["ansible_host"] == "172.18.0.2"
    assert "StrictHostKeyChecking=no" not in json.dumps(host)


def test_a_farm_with_a_configured_key_keeps_the_default_api(tmp_path: Path) -> None:
    farm = Farm(tmp_path, key_source="file:~/repos.env")
    host = json.loads(files.inventory(farm, "172.18.0.2"))["farm"]["hosts"]["farm1"]
    assert "jada_agent_upstream_url" not in host


def test_settings_are_toml_whatever_the_path() -> None:
    source = 'file:/home/me/a "b"\\c/ü.env'
    assert tomllib.loads(files.settings(key_source=source, host="farm1")) == {"key_source": source, "host": "farm1"}


def test_the_shell_s_file_quotes_and_can_be_read_twice(tmp_path: Path) -> None:
    env = tmp_path / "env"
    env.write_text(files.shell_env(tmp_path / "it's here" / "bin", {"A": "x y'z$(id)"}), encoding="utf-8")
    script = f'. {env}; . {env}; printf "%s|%s" "$A" "$PATH"'
    done = run(["sh", "-euc", script], env={"PATH": "/usr/bin:/bin"})
    assert done.stdout == f"x y'z$(id)|{tmp_path}/it's here/bin:/usr/bin:/bin"


def test_a_file_that_is_right_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "key"
    files.write(path, "one\n", mode=0o600)
    before = path.stat()
    files.write(path, "one\n", mode=0o600)
    assert (path.stat().st_ino, path.stat().st_mode & 0o777) == (before.st_ino, 0o600)
    files.write(path, "two\n", mode=0o600)
    assert path.read_text(encoding="utf-8") == "two\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_digest_sees_sources_and_nothing_that_python_leaves(tmp_path: Path) -> None:
    (tmp_path / "roles").mkdir()
    (tmp_path / "roles" / "a.yml").write_text("a", encoding="ascii")
    first = files.digest(tmp_path, "x")
    (tmp_path / "roles" / "a.pyc").write_text("a", encoding="ascii")
    (tmp_path / "CHANGELOG.md").write_text("a", encoding="ascii")
    assert files.digest(tmp_path, "x") == first
    (tmp_path / "README.md").write_text("a", encoding="ascii")
    with_readme = files.digest(tmp_path, "x")
    assert with_readme != first  # it is in the wheel's metadata
    assert files.digest(tmp_path, "y") != with_readme
    (tmp_path / "roles" / "a.yml").write_text("b", encoding="ascii")
    assert files.digest(tmp_path, "x") != with_readme


def test_a_background_process_is_found_again_and_stopped(tmp_path: Path) -> None:
    argv = [sys.executable, "-u", "-c", "import time; print('listening on here'); time.sleep(60)"]
    first = Background(tmp_path / "pid", tmp_path / "log")
    assert first.start(argv, cwd=tmp_path, first_line="listening on ") == "listening on here"
    again = Background(tmp_path / "pid", tmp_path / "log")
    assert again.pid() == first.pid() is not None
    again.stop()
    assert first.pid() is None
    assert not (tmp_path / "pid").exists()


def test_a_background_process_that_ends_at_once_says_why(tmp_path: Path) -> None:
    process = Background(tmp_path / "pid", tmp_path / "log")
    with pytest.raises(FarmError, match="did not start: no port"):
        process.start(["sh", "-c", "echo no port; exit 1"], cwd=tmp_path, first_line="listening on ")


def test_a_reused_pid_is_never_taken_for_it(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (tmp_path / "pid").write_text(f"{stranger.pid} 1\n", encoding="ascii")
        process = Background(tmp_path / "pid", tmp_path / "log")
        assert process.pid() is None
        process.stop()
        assert stranger.poll() is None
        stranger.terminate()


def test_a_failing_program_is_one_line() -> None:
    with pytest.raises(FarmError, match=r"^sh -c .* failed with status 3: second$"):
        check(["sh", "-c", "echo first >&2; echo second >&2; exit 3"])
    with pytest.raises(FarmError, match="no-such-program is missing"):
        check(["no-such-program"])


def test_an_answer_of_the_wire_is_read() -> None:
    raw = 'HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n{"a": [1]}'
    assert wire_answer(raw.replace("9", "10")) == (404, {"a": [1]})
