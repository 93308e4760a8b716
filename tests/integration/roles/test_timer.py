"""The timer that looks daily when the credentials on AWS end: written, enabled, unchanged by a second run, removed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.support.forked_modules import FORKED

CHECKOUT = Path(__file__).resolve().parents[3]
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: workstation, tasks_from: timer.yml}
"""


async def play(home: Path, *options: str) -> str:
    file = home / "play.yml"
    file.write_text(PLAY)
    process = await asyncio.create_subprocess_exec(
        *("ansible-playbook", str(file), "-e", "workstation_credential_upload=true", *options),
        env={
            **FORKED,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(CHECKOUT / "roles"),
        },
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, out.decode()
    return out.decode()


async def test_the_timer(tmp_path: Path) -> None:
    units = tmp_path / ".config/systemd/user"
    on = ("-e", '{"workstation_credential_timer": true}')
    await play(tmp_path, *on, "--check")
    assert not units.exists()
    await play(tmp_path, *on)
    service = (units / "farmhand-credential.service").read_text()
    assert f"ExecStart={tmp_path}/.local/bin/farmhand cloud credential check --upload\n" in service
    link = units / "timers.target.wants/farmhand-credential.timer"
    assert "Persistent=true" in link.read_text()
    assert "changed=0" in await play(tmp_path, *on)
    await play(tmp_path)
    assert [path for path in units.rglob("*") if not path.is_dir()] == []
    assert not link.is_symlink()
