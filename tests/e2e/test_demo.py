"""`make demo` a second time, and what `make down` leaves: nothing."""

from __future__ import annotations

import tempfile
import urllib.error
from pathlib import Path

import pytest

from tests.support.farm import Farm
from tests.support.farm.checkout import copy_checkout
from tests.support.farm.run import run
from tests.support.messages_api.answer import echo

REPOSITORY = Path(__file__).parents[2]
PROMPT = "In one sentence: what does a farmhand do?"


def test_make_demo_again_builds_nothing_and_says_first_whose_api_it_uses(farm: Farm) -> None:
    # A home of its own: with the operator's key in ~/repos.env the demo would spend it. Its path is short, since ssh
    # keeps its shared connections there.
    # These tests may run below a make of their own, which would make this one announce directories.
    env = {name: value for name, value in farm.env.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    with tempfile.TemporaryDirectory(prefix="home-") as home:
        done = run(["make", "demo"], env={**env, "HOME": home}, cwd=farm.root)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("No key is configured")
    assert "loopback Messages API" in lines[0]
    assert f"$ claude-cheap '{PROMPT}'" in lines
    assert echo(PROMPT) in lines
    assert "PLAY RECAP" not in done.stdout, "a farm that is built is built again"


def test_every_verb_knows_the_demo_s_api_and_checkout_from_anywhere(built_farm: Farm, tmp_path: Path) -> None:
    env = {**built_farm.env, "HOME": str(tmp_path), "PATH": f"{built_farm.root}/.venv/bin:/usr/bin:/bin"}
    env["ANSIBLE_SSH_CONTROL_PATH_DIR"] = str(built_farm.control_path.parent)  # this home is too deep for one
    # at-rest is Ansible's, which is found in the checkout; it takes long here, where other tests' files are searched.
    doctor = run(["farmhand", "doctor", "--skip", "shells", "--skip", "at-rest"], env=env, cwd=tmp_path)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert f"{built_farm.api.url} accepts the key" in doctor.stdout
    (tmp_path / "in.jsonl").write_text('"Name a hen"\n')
    batch = run(["farmhand", "batch", "in.jsonl", "--out", "out.jsonl"], env=env, cwd=tmp_path)
    assert batch.returncode == 0, batch.stderr


def test_down_removes_everything_and_can_be_said_twice(built_farm: Farm, tmp_path: Path) -> None:
    farm = Farm(copy_checkout(REPOSITORY, tmp_path / "checkout"))
    assert farm.name != built_farm.name
    try:
        farm.boot()
        assert farm.ansible("farm", "-m", "ansible.builtin.ping").returncode == 0
        assert farm.control_path.exists()
        assert farm.api.posts() == []
        api = farm.api
    finally:
        farm.down()
    assert not farm.container.exists()
    assert run(["docker", "network", "inspect", farm.name]).returncode != 0
    assert not farm.state.exists()
    assert not farm.inventory.exists()
    assert not farm.control_path.exists()
    with pytest.raises(urllib.error.URLError):
        api.posts()
    farm.down()
    assert built_farm.container.exists()
