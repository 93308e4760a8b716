"""`farmhand up --create`, as it is typed: what is wrong ends with its own exit code and one line after Ansible's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FROM = "box_ssh_from=203.0.113.7/32"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("farm1",), 2, "box_ssh_from is missing: who may use ssh is never guessed"),
        (("Farm_1", "-e", FROM), 2, "Farm_1"),
        (("farm1", "-e", "box_ssh_from=10.0.0.0/24"), 2, "a private network, which AWS never sees"),
        (("farm1", "-e", FROM, "-e", "box_public_key=/none.pub"), 3, "box_public_key /none.pub cannot be read"),
        (("farm1", "-e", FROM, "-e", "box_region=xx-east-9"), 3, "xx-east-9"),
        (("farm1", "--no-such-option"), 2, "ansible-playbook"),
    ],
    ids=["no network", "name", "private", "no key", "region", "option of Ansible"],
)
def test_what_is_wrong_has_its_own_exit_code_and_one_line(
    tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / ".ssh").mkdir()
    key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / ".ssh/id_ed25519")]
    subprocess.run(key, check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FARMHAND_", "ANSIBLE_"))}
    inventory = json.dumps({"box_inventory_dir": str(tmp_path / "inventory")})
    done = subprocess.run(
        [str(Path(sys.executable).with_name("farmhand")), "up", "--json", "--create", *words, "-e", inventory],
        env=kept | {"HOME": str(tmp_path), "FARMHAND_AWS_REGION": "us-east-1", "FARMHAND_PROJECT_DIR": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if line.startswith("farmhand: ")]
    assert (done.returncode, len(ours)) == (code, 1), done.stderr
    assert said in ours[0]
    assert done.stderr.splitlines()[-1] == ours[0]
    assert json.loads(done.stdout)["error"]["message"] in ours[0]
    assert not (tmp_path / "inventory").exists()
