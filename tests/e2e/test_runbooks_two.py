"""The runbooks of docs/operations.md that need two farm hosts; see test_runbooks.py."""

from __future__ import annotations

import re
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmhand.core.keys import fingerprint
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
    set_variables,
    tasks_file,
)
from tests.e2e.test_interrupt import until
from tests.support.farm.image import REFRESH
from tests.support.farm.run import check
from tests.support.farm.workstation import Workstation
from tests.support.messages_api.answer import echo
from tests.support.runbook import Runbook

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two() -> Iterator[Workstation]:
    """An operator's workstation with two farm hosts."""
    station = Workstation(REPOSITORY)
    try:
        station.up()
        station.log_in()
        boxes = [station.rent("farm1"), station.rent("farm2")]
        done(station.shell("cp -rn inventory/example/. inventory/"))
        listed(station, **{box.hostname: box.fixed for box in boxes})
        set_variables(station)
        known = "".join(f"{box.fixed} {key}\n" for box in boxes for key in box.host_keys())
        (station.home / ".ssh" / "known_hosts").write_text(known, "ascii")
        done(station.shell(f"ansible-playbook site.yml {shlex.join(REFRESH)}"))
        yield station
    finally:
        station.down()


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
        assert batch.wait(timeout=120) == 130
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
