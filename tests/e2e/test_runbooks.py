"""The runbooks of docs/operations.md, each tried as written: with the very commands that it prints, on real hosts.

The operator has a home of their own. What they do with an editor, a browser or a provider's console the tests do for
them, and say so.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmhand.wire.keys import fingerprint
from tests.e2e.operator_steps import (
    doctor,
    done,
    forget,
    hosts_cost,
    know,
    listed,
    make_key,
    ready,
    results,
    tasks_file,
    waits,
)
from tests.e2e.test_interrupt import until
from tests.support.farm import files
from tests.support.farm.image import REFRESH
from tests.support.farm.run import check
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
        variables = station.checkout / "inventory" / "group_vars" / "farm.yml"
        text = re.sub(r"(?<=jada_agent_upstream_url: ).*", station.api.url, variables.read_text("utf-8"))
        if any(files.EXTRA_CA_DIR.glob("*.crt")):  # as for the demo's farm
            text += f"base_ca_certificates_dir: {files.EXTRA_CA_DIR}\n"
        variables.write_text(text, "utf-8")
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


@pytest.fixture(scope="module")
def two(station: Workstation) -> Workstation:
    """The same with another host, farm2."""
    box = station.rent("farm2")
    known = station.home / ".ssh" / "known_hosts"
    known.write_text(known.read_text("ascii") + "".join(f"{box.fixed} {key}\n" for key in box.host_keys()), "ascii")
    listed(station, farm1=station.boxes["farm1"].fixed, farm2=box.fixed)
    done(station.shell(f"ansible-playbook site.yml --limit farm2 {shlex.join(REFRESH)}"))
    return station


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
        assert waiting.wait(timeout=30) == 0
        # All that had time is answered, and the rest with another command.
        assert running.wait(timeout=60) == 1, (station.home / "night.log").read_text("utf-8")
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
        station.api.fault(kind="status", status=429, retry_after=6, count=1)
        asked = station.start("claude-cheap 'After a while'", station.home / "while.log")
        book.says("the API asked to wait (retry-after), until 03:12:40`")
        waits(station, status, "the API asked to wait \\(retry-after\\)")
        assert asked.wait(timeout=60) == 0
        assert len([post for post in station.api.posts() if "After a while" in str(post["body"])]) == 2
        # Nobody listens there. The batch ends before somebody does: it would be answered before this test is ready.
        station.switch_api(on=False)
        tasks_file(station, "dark.jsonl", {"id": "dark", "prompt": "Anybody?"})
        dark = station.start("farmhand batch dark.jsonl --out dark-out.jsonl", station.home / "dark.log")
        waits(station, status, "the API's last answer: the API could not be reached")
        dark.send_signal(signal.SIGINT)
        assert dark.wait(timeout=60) == 130
        # A task whose client went is asked for by its id.
        assert book.command("farmhand flush", ID="at-night") == "farmhand flush at-night"
        assert "no task 'at-night' is in the spool" in done(station.shell("farmhand flush at-night"), status=2)


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


def test_a_key_has_leaked(two: Workstation) -> None:
    station = two
    ready(station)
    old, new = station.key, make_key(station)
    station.settings(admin_key_source="file:~/admin.env#ANTHROPIC_ADMIN_KEY", admin_url=station.admin_url())
    (station.home / ".bashrc").write_text(f"export ANTHROPIC_API_KEY={old}\n", "ascii")
    station.boxes["farm1"].exec("tee", "/srv/notes", input=old)
    with Runbook("A key has leaked") as book:
        rotated = done(station.shell(book.command("farmhand rotate"), input=f"{new}\n"))
        book.says("`rotated: … is in use, … is dead` | 0 | step 3")
        assert f"rotated: {fingerprint(new)} is in use, {fingerprint(old)} is dead" in rotated
        assert station.api.accepted() == [new]
        stands = done(station.shell(book.command("farmhand rotate --status")))
        book.says("shows `retired`, and the fingerprint of the new key as `key in use`")
        assert f"key in use: {fingerprint(new)}" in stands
        assert ": retired since " in stands
        said, wrong = doctor(station, book.command("farmhand doctor"))
        assert set(wrong) == {"shells", "farm1 at-rest"}, said
        assert ".bashrc:1 reaches claude" in said
        assert "a key is in /srv/notes" in said
        take_out = book.command("ansible-playbook playbooks/workstation.yml", FINGERPRINT=fingerprint(new))
        done(station.shell(take_out))
        book.says("Its originals hold it still: [delete them]")
        assert old not in (station.home / ".bashrc").read_text("utf-8")
        assert station.key == new
        book.says("remove the key on the host, in the place that is named")
        station.boxes["farm1"].exec("rm", "/srv/notes")
        said, wrong = doctor(station, book.command("farmhand doctor"))
        assert wrong == {}, said
        # Whoever had it has spent something.
        station.api.bill(at=time.time(), model="claude-opus-5-5", tokens={"output_tokens": 1_000_000})
        cost = done(station.shell(book.command("farmhand cost")))
        book.says("what somebody else has spent is in the difference")
        assert re.search(r"^claude-opus-5-5 +(\d\S*) +0\S* +\1", cost.partition("The provider's own")[2], re.MULTILINE)
        without_an_admin_key(station, book)


def without_an_admin_key(station: Workstation, book: Runbook) -> None:
    """The next one leaks, the Admin key is gone, and a host is down."""
    station.settings(connect_timeout_s=2)
    old, new = station.key, make_key(station)
    station.boxes["farm2"].kill()
    left = done(station.shell(book.command("farmhand rotate"), input=f"{new}\n"), status=4)
    book.says("`… is not retired: these hosts may hold it: …` | 4")
    assert "is not retired: these hosts may hold it: farm2" in left
    by_hand = done(station.shell(book.command("farmhand rotate --resume --force")), status=3)
    book.says("`… still works: …` | 3 | step 2")
    assert "still works: admin_key_source is not set (disable it at https://platform.claude.com" in by_hand
    stands = done(station.shell(book.command("farmhand rotate --status")))
    book.says("Once that says `switched`, `verified`, `drained` or `retiring`, disable the old key in the Console")
    assert ": retiring since " in stands
    station.api.keys(new)
    book.says("(with `--force` as well if you gave it in step 1)")
    resume = book.command("farmhand rotate --resume")
    assert f"{fingerprint(old)} is dead" in done(station.shell(f"{resume} --force"))
    assert ": retired since " in done(station.shell(book.command("farmhand rotate --status")))
    said, wrong = doctor(station, book.command("farmhand doctor"))
    assert "farm2 reach" in wrong, said
    assert not [name for name in wrong if not name.startswith("farm2 ")], said
    book.says("any `claude-cheap` brings the new one")
    station.boxes["farm2"].start()
    assert done(station.shell("claude-cheap --host farm2 'Back?'")) == echo("Back?") + "\n"
    assert doctor(station, book.command("farmhand doctor"))[1] == {}


def test_a_box_is_lost(two: Workstation, tmp_path: Path) -> None:
    station, lost = two, two.boxes["farm2"]
    ready(station)
    ids = [f"row-{n}" for n in range(150)]
    tasks_file(station, "rows.jsonl", *({"id": name, "prompt": f"Row {name}"} for name in ids))
    out = station.checkout / "rows-out.jsonl"
    with Runbook("A box is lost") as book:
        again = book.command("farmhand batch", IN="rows.jsonl", FILE="rows-out.jsonl")
        # What it has spent is known here, but for what it does now.
        done(station.shell("claude-cheap --host farm2 'Work a little'"))
        before = hosts_cost(done(station.shell(book.command("farmhand cost"))))
        station.api.latency(ms=3000)
        station.api.fault(kind="stalled", after_events=1, count=-1, match="Alone on farm2")
        alone = [
            station.start(f"claude-cheap --host farm2 --id alone-{n} 'Alone on farm2, {n}'", tmp_path / f"alone-{n}")
            for n in (1, 2)
        ]
        batch = station.start(again, tmp_path / "batch")
        until(lambda: {line["host"] for line in results(out).values()} == {"farm1", "farm2"}, "answers of both hosts")
        lost.kill()
        check(["docker", "rm", "--volumes", lost.name])
        until(lambda: "unfinished tasks go to the others" in (tmp_path / "batch").read_text("utf-8"), "a word of it")
        book.says("A batch that runs says `its … unfinished tasks go to the others`")
        batch.send_signal(signal.SIGINT)
        assert batch.wait(timeout=60) == 130
        assert len(results(out)) < len(ids)

        unmerged = done(station.shell(book.command("farmhand cost")), status=4)
        book.says("this ends with status 4 and `NAME could not be asked, its figures are of …`")
        assert "farm2 could not be asked, its figures are of " in " ".join(unmerged.split())
        listed(station, farm1=station.boxes["farm1"].fixed)
        book.says("and its entry out of `~/.config/farmhand/hosts.json`")
        forget(station, "farm2")
        assert "farm2" not in done(station.shell(book.command("farmhand status")))
        station.api.latency()
        done(station.shell(again))
        assert {name: line["state"] for name, line in results(out).items()} == dict.fromkeys(ids, "succeeded")

        # These have waited a minute for it to come back.
        assert [one.wait(timeout=120) for one in alone] == [4, 4]
        flush = book.command("farmhand flush")
        left = done(station.shell(flush))
        book.says("lists them as `sent` with its name, and says `no farm host is called 'NAME' … any more`")
        assert sorted(re.findall(r"^(alone-\d) +sent +farm2 ", left, re.MULTILINE)) == ["alone-1", "alone-2"]
        assert "no farm host is called 'farm2' in " in left
        done(station.shell(book.command("farmhand flush --drop", ID="alone-1")))
        station.api.clear()
        assert done(station.shell("claude-cheap 'Alone on farm2, 1'")) == echo("Alone on farm2, 1") + "\n"

        box = station.rent("farm2", at=lost.fixed)
        listed(station, farm1=station.boxes["farm1"].fixed, farm2=box.fixed)
        up = book.command("farmhand up --limit", NAME="farm2")
        book.says("nothing connects until then (`Host key verification failed`)")
        assert "Host key verification failed" in done(station.shell(up), status=4)
        done(station.shell(book.command("ssh-keygen -R", ADDRESS=box.fixed)))
        with Runbook("Build a farm host") as building:
            know(station, building, box)
            building.skip("cp", "ansible-playbook", "claude-cheap", "farmhand")
        built = done(station.shell(up))
        assert "farm2 is built: " in built
        assert "farm1" not in built
        done(station.shell(book.command("ansible-playbook playbooks/verify.yml", NAME="farm2")))
        book.says("the next `claude-cheap` or `farmhand flush` sends them there")
        done(station.shell(flush))
        assert done(station.shell("farmhand flush alone-2")) == echo("Alone on farm2, 2") + "\n"

        after = hosts_cost(done(station.shell(book.command("farmhand cost"))))
        book.says("A box under its name counts on beside them")
        assert after["farm2"] > before["farm2"] > 0
