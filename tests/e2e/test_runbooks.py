"""The runbooks of docs/operations.md, each tried as written: with the very commands that it prints, on real hosts.

The operator has a home of their own. What they do with an editor, a browser or a provider's console the tests do for
them, and say so.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.operator_steps import (
    doctor,
    done,
    know,
    listed,
    ready,
    results,
    set_variables,
    tasks_file,
    waits,
)
from tests.e2e.test_interrupt import until
from tests.support.farm.workstation import Workstation
from tests.support.messages_api.answer import echo
from tests.support.runbook import Runbook

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def station() -> Iterator[Workstation]:
    """An operator's workstation with one farm host, which they have built by the runbook."""
    workstation = Workstation(REPOSITORY)
    try:
        workstation.up()
        workstation.log_in()
        build(workstation)
        yield workstation
    finally:
        workstation.down()


def build(station: Workstation) -> None:
    """The runbook "Build a farm host", on a box that was just rented."""
    box = station.rent("farm1")
    with Runbook("Build a farm host") as book:
        done(station.shell(book.command("cp -rn")))
        listed(station, farm1=box.fixed)
        book.says(
            "`ansible_host` is the box's address, or its alias in `~/.ssh/config`, and `ansible_user` a login that may "
            "become root"
        )
        set_variables(station)
        mine = (station.checkout / "inventory" / "hosts.yml").read_text("utf-8")
        station.shell(book.command("cp -rn"))  # some versions of cp call it a failure that nothing was left to do
        assert (station.checkout / "inventory" / "hosts.yml").read_text("utf-8") == mine
        too_early = done(station.shell(book.command("ansible-playbook site.yml")), status=4)
        book.says("`UNREACHABLE!` and `Host key verification failed` | step 2")
        assert "UNREACHABLE!" in too_early
        assert "Host key verification failed" in too_early
        know(station, book, box)
        built = " ".join(done(station.shell(book.command("ansible-playbook site.yml"))).split())
        book.says("`farm1 is built: …`, and `unreachable=0` and `failed=0`")
        assert "farm1 is built: " in built
        assert "unreachable=0 failed=0" in built
        verified = " ".join(done(station.shell(book.command("ansible-playbook playbooks/verify.yml"))).split())
        book.says("`farm1 is as site.yml builds it: …`")
        assert "farm1 is as site.yml builds it: " in verified
        assert "changed=0" in verified
        assert done(station.shell(book.command("claude-cheap"))) == echo("Say hello") + "\n"
        said, wrong = doctor(station, book.command("farmhand doctor"))
        book.says("All lines of the second one have to be green")
        assert wrong == {}, said
        assert len(re.findall(r"^ok +farm1 ", said, re.MULTILINE)) == 7


def test_a_box_is_built_and_nothing_but_the_operator_has_accepted_its_key(station: Workstation) -> None:
    """The building itself is in the fixture: the other runbooks need the box as well."""
    known = (station.home / ".ssh" / "known_hosts").read_text("ascii").splitlines()
    assert [line.split()[0] for line in known] == [box.fixed for box in station.boxes.values()]
    hosts = json.loads((station.config_dir / "hosts.json").read_text("utf-8"))["hosts"]
    assert hosts["farm1"]["address"] == station.boxes["farm1"].fixed


#: Flips the pages behind the first of the ledger, where an agent has it.
_FLIP = """
import sqlite3
path = "/var/lib/jada-agent/ledger.db"
sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
with open(path, "r+b", buffering=0) as file:
    size = file.seek(0, 2)
    for page in PAGES:
        file.seek(page)
        old = file.read(4096)
        file.seek(page)
        file.write(bytes(byte ^ 0x5A for byte in old))
"""


@pytest.mark.parametrize("pages", ["range(4096, size, 4096)", "[3 * 4096]"], ids=["all of it", "a page"])
def test_the_ledger_is_damaged(station: Workstation, pages: str) -> None:
    ready(station)
    box = station.boxes["farm1"]
    for n in range(3):
        done(station.shell(f"claude-cheap --id kept-{len(pages)}-{n} 'Keep this {n}'"))
    flip = _FLIP.replace("PAGES", pages)
    done(box.exec("runuser", "-u", "jada", "--", "python3", "-c", flip))
    with Runbook("The ledger is damaged") as book:
        book.skip("farmhand flush", "farmhand cost")  # named for what they know of it

        def refused() -> bool:
            station.shell("claude-cheap --connect-timeout 5 --fallback none 'Are you there?'")
            return box.exec("systemctl", "show", "-P", "ExecMainStatus", "jada-agent.service").stdout.strip() == "65"

        # A page that nothing touches is found by the next start at the latest.
        if not refused():
            box.exec("systemctl", "restart", "jada-agent.service")
        until(refused, "the agent's end")
        asked = len(station.api.posts())
        station.shell("claude-cheap --connect-timeout 5 --fallback none 'Nobody there'")
        assert len(station.api.posts()) == asked
        said = done(station.shell(book.command("ansible NAME --become -a", NAME="farm1")))
        book.says("It says `the ledger /var/lib/jada-agent/ledger.db is damaged: …`", "ends with status 65")
        assert "the ledger /var/lib/jada-agent/ledger.db is damaged: " in said
        done(station.shell(book.command('ansible NAME --become -m shell -a "systemctl stop', NAME="farm1")))
        done(station.shell(book.command("ansible NAME --become -m apt", NAME="farm1")))
        rescued = station.shell(book.command('ansible NAME --become -m shell -a "cd', NAME="farm1"))
        empty = book.command('ansible NAME --become -m shell -a "rm', NAME="farm1")
        again = book.command('ansible NAME --become -m shell -a "systemctl reset-failed', NAME="farm1")
        verify = book.command("ansible-playbook playbooks/verify.yml", NAME="farm1")
        book.says("If it fails, or step 4 finds the new file damaged as well, leave it out")
        if rescued.returncode or station.shell(again).returncode or station.shell(verify).returncode:
            done(station.shell(empty))
            done(station.shell(again))
            done(station.shell(verify))
        assert done(station.shell("claude-cheap 'Well again'")) == echo("Well again") + "\n"
        assert box.exec("ls", "/var/lib/jada-agent/damaged/ledger.db").returncode == 0


def test_the_api_is_down(station: Workstation) -> None:
    ready(station)
    batch = [{"id": f"night-{n}", "prompt": f"Night {n}"} for n in range(3)]
    tasks_file(station, "night.jsonl", *batch, {"id": "short", "prompt": "No time", "timeout_s": 8})
    names = {"IN": "night.jsonl", "FILE": "night-out.jsonl"}
    with Runbook("The API is down") as book:
        status = book.command("farmhand status")
        again = book.command("farmhand batch", **names)
        # It is overloaded.
        station.api.fault(kind="status", status=529, count=-1)
        running = station.start(again.replace(" --retry-failed", ""), station.home / "night.log")
        waits(station, status, "the API's last answer: Overloaded")
        book.says("`3 tasks wait: the API's last answer: Overloaded, until 03:12:40`")
        failed = station.shell("claude-cheap --timeout 6 --id at-night 'Are you there?'")
        book.says("then fails with the API's last answer and status 1")
        # With its time over, or with the meter's tries, whichever comes first.
        assert re.search(r"Overloaded\)? \(the API is overloaded: try again later\)$", done(failed, status=1))
        out = station.checkout / "night-out.jsonl"
        until(lambda: "short" in results(out), "the end of the task without time")
        # Nothing is to be sent any more.
        emptied = done(station.shell(book.command("ansible-playbook playbooks/drain.yml -e drain_mode=running")))
        book.says("It ends with `empty` for each host", "a batch that runs waits, and a `claude-cheap` waits a minute")
        assert re.search(r"farm1 is empty: 3\s+queued", emptied)
        waiting = station.start("claude-cheap 'Patience'", station.home / "patience.log")
        station.api.clear()
        time.sleep(2)
        assert station.api.posts() == []
        assert (running.poll(), waiting.poll()) == (None, None)
        back = done(station.shell(book.command("ansible-playbook playbooks/drain.yml -e drain_state=off")))
        assert "farm1 is in service" in back
        assert waiting.wait(timeout=120) == 0
        # All that had time is answered, and the rest with another command.
        assert running.wait(timeout=120) == 1, (station.home / "night.log").read_text("utf-8")
        assert {name for name, line in results(out).items() if line["state"] == "succeeded"} == {x["id"] for x in batch}
        assert "the API's last answer: " in results(out)["short"]["error"]["message"]
        done(station.shell(again))
        assert {line["state"] for line in results(out).values()} == {"succeeded"}
        assert len(results(out)) == 4
        book.says("keeps that as its result: give it again later without `--id`, or with a new one")
        kept = station.shell("claude-cheap --timeout 6 --id at-night 'Are you there?'")
        assert "Overloaded" in done(kept, status=1)
        assert done(station.shell("claude-cheap 'Are you there?'")) == echo("Are you there?") + "\n"
        # It asks to be left alone, and is.
        station.api.fault(kind="status", status=429, retry_after=15, count=1)
        asked = station.start("claude-cheap 'After a while'", station.home / "while.log")
        book.says("the API asked to wait (retry-after), until 03:12:40`")
        waits(station, status, "the API asked to wait \\(retry-after\\)")
        assert asked.wait(timeout=120) == 0
        assert len([post for post in station.api.posts() if "After a while" in str(post["body"])]) == 2
        # Nobody listens there. The batch ends before somebody does: it would be answered before this test is ready.
        station.switch_api(on=False)
        tasks_file(station, "dark.jsonl", {"id": "dark", "prompt": "Anybody?"})
        dark = station.start("farmhand batch dark.jsonl --out dark-out.jsonl", station.home / "dark.log")
        waits(station, status, "the API's last answer: the API could not be reached")
        dark.send_signal(signal.SIGINT)
        assert dark.wait(timeout=120) == 130
        # A task whose client went is asked for by its id.
        assert book.command("farmhand flush", ID="at-night") == "farmhand flush at-night"
        assert "no task 'at-night' is queued here" in done(station.shell("farmhand flush at-night"), status=2)


def test_the_login_has_expired(station: Workstation) -> None:
    ready(station)
    elsewhere = "FARMHAND_HOSTS_FILE=~/nowhere.json FARMHAND_CONNECT_TIMEOUT_S=2"
    subscription = f"{elsewhere} claude-cheap --fallback subscription --allow-subscription 'Hello'"
    nowhere = {"farm1": {"address": str(station.network.subnet[250])}}
    (station.home / "nowhere.json").write_text(json.dumps({"hosts": nowhere}), "utf-8")
    with Runbook("The login has expired") as book:
        look, ask = (book.command(f"farmhand doctor --skip at-rest{more}") for more in ("", " --ask-claude"))
        station.log_in(refreshToken="", expiresAt=int((time.time() - 3600) * 1000))
        book.says("`farmhand doctor` shows `login` red", "`the login in … ended on …`", "Start `claude`, give `/login`")
        said, wrong = doctor(station, book.command("farmhand doctor"))
        assert wrong == {"login": "log in: run claude, then /login"}, said
        assert re.search(r"^RED +login +the login in \S+ ended on \d{4}-\d\d-\d\d$", said, re.MULTILINE)
        refused = done(station.shell(subscription), status=3)
        assert re.search(r"the login in \S+ ended on \S+ \(log in: run claude, then /login\)$", refused, re.MULTILINE)
        book.says("The farm does not need the login: its tasks go on")
        assert done(station.shell("claude-cheap 'Still there?'")) == echo("Still there?") + "\n"
        # The operator logs in, in the browser.
        station.log_in()
        assert doctor(station, look)[1] == {}
        # The file looks well, and the provider does not take the login any more.
        said, wrong = doctor(station, ask)
        book.says("if the line `claude` is red then, step 1")
        assert list(wrong) == ["claude"], said
        station.api.keys(station.key, station.login_token)
        assert doctor(station, ask)[1] == {}
        assert echo("Hello") in done(station.shell(subscription))
