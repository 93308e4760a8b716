"""What a user gets wrong: one line, the right exit code, and nothing accepted silently."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.e2e.settings_copy import assert_refused, settings_dir
from tests.support.farm import ApiControl, Farm
from tests.support.farm.control import wire_answer, wire_request


def test_an_unreachable_host_ends_within_the_connect_timeout(farm: Farm, tmp_path: Path) -> None:
    # An address of the farm's own network that nobody has.
    nobody = farm.container.gateway.rpartition(".")[0] + ".250"
    env = settings_dir(farm, tmp_path, lambda host: host.update(address=nobody))
    started = time.monotonic()
    done = farm.cheap("--connect-timeout", "2", "hello", env=env)
    assert time.monotonic() - started < 5
    assert_refused(done, 4, "farm1")


def test_an_agent_host_that_refuses_connections(farm: Farm, tmp_path: Path) -> None:
    env = settings_dir(farm, tmp_path, lambda host: host.update(port=9))
    assert_refused(farm.cheap("hello", env=env), 4, "farm1")


def test_an_unknown_host_key_is_not_accepted(farm: Farm, api: ApiControl, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.touch()
    env = settings_dir(farm, tmp_path, lambda host: host.update(known_hosts_file=str(known)))
    assert_refused(farm.cheap("hello", env=env), 4, "host key")
    assert known.read_text(encoding="ascii") == ""
    assert api.posts() == []


def test_a_changed_host_key_is_not_accepted(farm: Farm, api: ApiControl, tmp_path: Path) -> None:
    key = (farm.state / "admin_ed25519.pub").read_text(encoding="ascii").split()[1]
    known = tmp_path / "known_hosts"
    known.write_text(f"{farm.container.address} ssh-ed25519 {key}\n", encoding="ascii")
    env = settings_dir(farm, tmp_path, lambda host: host.update(known_hosts_file=str(known)))
    assert_refused(farm.cheap("hello", env=env), 4, "host key")
    assert api.posts() == []


def test_a_login_that_the_host_does_not_know(farm: Farm, tmp_path: Path) -> None:
    stranger = str(farm.state / "admin_ed25519")
    env = settings_dir(farm, tmp_path, lambda host: host.update(identity_file=stranger))
    assert_refused(farm.cheap("hello", env=env), 4, "farm1")


def test_a_missing_key_file(farm: Farm, tmp_path: Path) -> None:
    missing = tmp_path / "none.env"
    done = farm.cheap("--key-source", f"file:{missing}", "hello")
    assert_refused(done, 3, str(missing), "No such file")


def test_a_key_file_that_others_can_read(farm: Farm, tmp_path: Path) -> None:
    loose = tmp_path / "loose.env"
    loose.write_text(f"ANTHROPIC_API_KEY={farm.key}\n", encoding="ascii")
    loose.chmod(0o640)
    done = farm.cheap("--key-source", f"file:{loose}", "hello")
    assert_refused(done, 3, str(loose), "chmod 600")
    assert farm.key not in done.stderr


def test_an_empty_prompt(farm: Farm) -> None:
    assert_refused(farm.cheap(""), 2, "prompt is empty")
    assert_refused(farm.cheap(input=" \n"), 2, "prompt is empty")


def test_an_invalid_schema(farm: Farm) -> None:
    assert_refused(farm.cheap("--schema", '{"type": "nope"}', "hello"), 2, "--schema")
    assert_refused(farm.cheap("--schema", "{", "hello"), 2, "--schema", "JSON")


def test_an_unknown_model(farm: Farm, api: ApiControl) -> None:
    assert_refused(farm.cheap("--model", "wat", "hello"), 2, "wat", "haiku")
    assert api.posts() == []


def test_a_retired_model_gives_the_apis_error_and_a_suggestion(farm: Farm) -> None:
    done = farm.cheap("--model", "claude-3-haiku-20240307", "hello")
    assert_refused(done, 1, "claude-3-haiku-20240307", "claude-haiku-5-5")


def test_an_unknown_option_tool_and_host(farm: Farm) -> None:
    assert_refused(farm.cheap("--wat", "hello"), 2, "--wat")
    assert_refused(farm.cheap("--tools", "Wat", "hello"), 2, "Wat", "Bash")
    assert_refused(farm.cheap("--host", "wat", "hello"), 3, "wat", "farm1")


def test_a_full_network_is_refused_where_the_host_does_not_allow_it(farm: Farm, api: ApiControl) -> None:
    done = farm.cheap("--network", "full", "--tools", "Bash", "hello")
    assert_refused(done, 5, "jada_agent_network_full")
    assert api.posts() == []


def test_a_client_that_is_too_new_or_too_old_is_told_so(farm: Farm) -> None:
    """Raw words of the wire, over ssh to the dispatch account: another version than the agent's."""
    newer = farm.ssh(user="farmhand", input=wire_request("GET", "/v1/status", version="2"))
    status, answer = wire_answer(newer.stdout)
    assert (status, answer["error"]["code"]) == (426, "agent_too_old")
    assert "2" in answer["error"]["message"]
    older = farm.ssh(user="farmhand", input=wire_request("GET", "/v1/status", version="0"))
    status, answer = wire_answer(older.stdout)
    assert (status, answer["error"]["code"]) == (426, "client_too_old")


def test_no_settings_at_all(farm: Farm, tmp_path: Path) -> None:
    done = farm.cheap("hello", env={"FARMHAND_CONFIG": str(tmp_path / "none" / "config.toml"), "HOME": str(tmp_path)})
    assert_refused(done, 3)
    assert os.listdir(tmp_path) == []
