"""docs/first-hour.md, typed as it stands: the wheel installed, no checkout in sight, a box that was just rented."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.operator_steps import done, results
from tests.support.farm import files
from tests.support.farm.container import Container
from tests.support.farm.run import Completed, check
from tests.support.farm.workstation import Workstation
from tests.support.messages_api.answer import echo
from tests.support.runbook import Runbook

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = REPOSITORY / "docs" / "first-hour.md"


@pytest.fixture
def station() -> Iterator[Workstation]:
    """A workstation on which the wheel is installed. What it depends on is that of the checkout's venv."""
    workstation = Workstation(REPOSITORY)
    try:
        workstation.up()
        made, target = workstation.home / "dist", workstation.home / "wheel"
        check([sys.executable, str(REPOSITORY / "scripts/dist.py"), str(made)])
        wheel = next(made.glob("*.whl"))
        check([sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--target", str(target), str(wheel)])
        for name, entry in (("farmhand", "main"), ("claude-cheap", "claude_cheap")):
            call = f"from farmhand.cli import {entry}; {entry}()"
            script = f'#!/bin/sh\nPYTHONPATH={target} exec {sys.executable} -c "{call}" "$@"\n'
            files.write(workstation.home / "bin" / name, script, mode=0o755)
        yield workstation
    finally:
        workstation.down()


def typed(station: Workstation, command: str) -> Completed:
    """Type it at home, where no checkout is."""
    return station.shell(f"cd && {command}")


def _packages(box: Container) -> set[str]:
    """The names of what is installed in it."""
    lines = box.exec("dpkg", "--get-selections").stdout.splitlines()
    return {line.split()[0].partition(":")[0] for line in lines if line.endswith("\tinstall")}


def test_the_first_hour(station: Workstation) -> None:
    box = station.rent("farm1")
    installed = _packages(box)
    ours = {*box.exec("cat", "/var/lib/farmhand/packages").stdout.split()}  # of when its image was built
    assert any(name.endswith("-venv") for name in ours)
    console = box.exec("ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub").stdout.split()[1]
    with Runbook("Set up", DOCUMENT) as book:
        assert "no terminal to ask on" in done(typed(station, book.command("farmhand init")), status=2)
        book.skip("ssh-keygen", "farmhand init --yes", "farmhand playbook list")
        asked = book.command("farmhand init --address", ADDRESS=box.fixed, FINGERPRINT="$print")
        assert "Next: farmhand up" in done(typed(station, f"print={console} && {asked}"))
        extra = station.config_dir / "inventory/group_vars/farm.yml"
        if any(files.EXTRA_CA_DIR.glob("*.crt")):  # as for the demo's farm
            extra.write_text(extra.read_text("utf-8") + f"base_ca_certificates_dir: {files.EXTRA_CA_DIR}\n", "utf-8")
        assert "farm1 is built" in " ".join(done(typed(station, book.command("farmhand up"))).split())
        verified = " ".join(done(typed(station, book.command("farmhand playbook verify"))).split())
        assert "farm1 is as site.yml builds it" in verified
    with Runbook("First task", DOCUMENT) as book:
        assert done(typed(station, book.command("claude-cheap"))) == echo("Say hello") + "\n"
        assert "farm1" in done(typed(station, book.command("farmhand status")))
    with Runbook("First batch", DOCUMENT) as book:
        done(typed(station, book.command("printf")))
        station.api.fault(kind="status", status=400, count=1, match="hens")
        letters = book.command("farmhand batch")
        assert "1 done, 1 failed" in done(typed(station, letters), status=1)
        assert "farm1" in done(typed(station, f"{book.command('farmhand cost')} --by host"))
        done(typed(station, book.command("farmhand report")))
        assert (station.home / "report.html").stat().st_size > 10_000
    with Runbook("One that failed", DOCUMENT) as book:
        failed = done(typed(station, book.command("farmhand list")))
        found = results(station.home / "letters.jsonl").items()
        (ident,) = [name for name, each in found if each["state"] == "failed"]
        assert ident in failed
        assert "Write one line to Ann about hens." in done(typed(station, book.command("farmhand show", ID=ident)))
        again = done(typed(station, book.command("farmhand again", ID=ident)))
        assert echo("Write one line to Ann about hens.") in again
        repeated = book.command("farmhand batch")
        assert repeated == f"{letters} --retry-failed"
        assert "2 done" in done(typed(station, repeated))
        texts = [each["text"] for each in results(station.home / "letters.jsonl").values()]
        assert texts == [echo(f"Write one line to {who}.") for who in ("Ann about hens", "Bo about the red barn")]
    with Runbook("Upgrade", DOCUMENT) as book:
        upgraded = " ".join(done(typed(station, book.command("farmhand playbook upgrade"))).split())
        assert "farm1 is right already" in upgraded
        assert "changed=0" in upgraded
    with Runbook("Uninstall", DOCUMENT) as book:
        checked = " ".join(done(typed(station, book.command("farmhand playbook remove --check"))).split())
        assert "farm1 was checked; nothing was changed" in checked
        assert done(typed(station, "claude-cheap 'Still there?'")) == echo("Still there?") + "\n"
        assert "Nothing was removed" in done(typed(station, book.command("farmhand playbook remove")), status=1)
        removed = " ".join(done(typed(station, book.command("farmhand playbook remove -e"))).split())
        assert "farm1 is no farm host any more" in removed
        assert "/var/lib/jada-agent" in removed
        again = " ".join(done(typed(station, "farmhand playbook remove -e remove_confirm=all")).split())
        assert "changed=0" in again
        book.skip("farmhand playbook workstation")
    assert installed - _packages(box) == ours
    assert (
        box.exec("sh", "-c", "ls -d /opt/jada* /usr/bin/claude /etc/systemd/system/jada* /etc/ssh/*farmhand*").stdout
        == ""
    )
    assert box.exec("id", "farmhand").returncode == 1
    assert box.exec("test", "-s", "/var/lib/jada-agent/ledger.db").returncode == 0
    assert json.loads((station.config_dir / "hosts.json").read_text("utf-8")) == {"hosts": {}}
