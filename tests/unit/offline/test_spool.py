"""The spool keeps tasks whole, in order, private, and once."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from farmhand.core.errors import FarmhandError, NotConfigured, UsageError
from farmhand.core.settings import Settings, farm_name, old_spool_name, spool_name
from farmhand.offline import spool as spool_module
from farmhand.offline.spool import Spool, SpooledTask, open_spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "state" / "spool")


def task(task_id: str, prompt: str = "p") -> dict[str, Any]:
    return {"id": task_id, "prompt": prompt, "timeout_s": 0.0}


def number(entry: SpooledTask) -> int:
    return int(entry.path.name[:12])


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert spool_name({}) == "/h/.local/state/farmhand/spool"
    assert spool_name({"XDG_STATE_HOME": "relative"}) == "/h/.local/state/farmhand/spool"
    assert spool_name({"XDG_STATE_HOME": "/s"}) == "/s/farmhand/spool"


def test_every_farm_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    usual = Settings(config_file="/h/.config/farmhand/config.toml")
    others = [Settings(config_file="/demo/config.toml"), usual._replace(hosts_file="/work/hosts.json")]
    assert [farm_name(conf, {}) for conf in (usual, *others)] == ["", "/demo/hosts.json", "/work/hosts.json"]
    assert farm_name(usual, {"XDG_CONFIG_HOME": "/c"}) == "/h/.config/farmhand/hosts.json"
    moved = Settings(config_file="/c/farmhand/config.toml")
    assert farm_name(moved, {"XDG_CONFIG_HOME": "/c"}) == ""


def test_one_spool_shows_what_waits_for_every_farm_and_gives_each_its_own(tmp_path: Path) -> None:
    usual, demo = Spool(tmp_path / "spool", ""), Spool(tmp_path / "spool", "/demo/hosts.json")
    usual.add(task("a"))
    demo.add(task("b"), wanted="farm2")
    assert [entry.id for entry in usual.waiting()] == ["a"]
    assert [(entry.id, entry.farm) for entry in usual.elsewhere()] == [("b", "/demo/hosts.json")]
    assert [entry.id for entry in demo.waiting()] == ["b"]
    assert [(entry.id, entry.farm) for entry in demo.elsewhere()] == [("a", "")]
    with pytest.raises(UsageError) as caught:
        usual.add(task("b"))
    assert caught.value.code == "id_conflict"
    demo.claim("b", "farm2")
    assert [(entry.sent, entry.farm) for entry in demo.waiting()] == [("farm2", "/demo/hosts.json")]


def test_what_an_older_version_kept_apart_is_seen_and_brought_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": "/c"}
    conf = Settings(config_file="/demo/config.toml")
    apart = Spool(Path(old_spool_name(conf, environ)))
    apart.add(task("a"))
    apart.add(task("b"), sent="farm1")
    apart.add(task("done"))
    apart.finish("done", {"id": "done", "state": "succeeded"}, "farm1")
    usual = open_spool(Settings(config_file="/c/farmhand/config.toml"), environ)
    assert usual.waiting() == []
    assert [entry.id for entry in usual.elsewhere()] == ["a", "b"]
    ours = open_spool(conf, environ)
    assert [(entry.id, entry.sent) for entry in ours.waiting()] == [("a", ""), ("b", "farm1")]
    assert ours.kept("done") is not None
    assert not apart.directory.exists()
    assert {entry.farm for entry in usual.elsewhere()} == {"/demo/hosts.json"}


def test_what_cannot_be_brought_in_whole_is_neither_lost_nor_sent_twice(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": "/c"}
    conf = Settings(config_file="/demo/config.toml")
    apart = Spool(Path(old_spool_name(conf, environ)))
    apart.add(task("a"), queued_at=1000.0)
    again = apart.add(task("b"), queued_at=1000.0).path.read_bytes()
    (apart.directory / "waiting" / "000000000009-c.json").write_text("{")
    (apart.directory / "waiting" / ".000000000003-d.json.new").write_text("half of it")
    usual = open_spool(Settings(config_file="/c/farmhand/config.toml"), environ)
    usual.add({"id": "a", "prompt": "another"})
    ours = open_spool(conf, environ)
    assert [(entry.id, entry.queued_at) for entry in ours.waiting()] == [("b", 1000.0)]
    assert [(entry.task["prompt"], entry.farm) for entry in ours.elsewhere()] == [
        ("another", ""),
        (task("a")["prompt"], str(apart.directory)),
    ]
    assert [path.name for path in ours.broken()] == ["000000000009-c.json"]
    usual.finish("a", {"id": "a", "state": "succeeded"}, "farm1")
    ours.finish("b", {"id": "b", "state": "succeeded"}, "farm1")
    # As where its file could not be taken away.
    (apart.directory / "waiting" / "000000000002-b.json").write_bytes(again)
    assert [entry.id for entry in open_spool(conf, environ).waiting()] == ["a"]
    ours.broken()[0].unlink()
    open_spool(conf, environ)
    assert not apart.directory.exists()


def test_nothing_is_made_before_something_is_kept(spool: Spool) -> None:
    assert (spool.waiting(), spool.results(), spool.broken(), spool.find("a"), spool.kept("a")) == (
        [],
        [],
        [],
        None,
        None,
    )
    assert not spool.directory.exists()


def test_order_is_kept_whatever_the_ids(spool: Spool) -> None:
    for name in ("z", "a", "m-1", "1"):
        spool.add(task(name), wanted="farm2")
    assert [entry.id for entry in spool.waiting()] == ["z", "a", "m-1", "1"]
    assert spool.waiting()[0].wanted == "farm2"
    spool.drop("z")
    spool.add(task("b"))
    assert [entry.id for entry in spool.waiting()] == ["a", "m-1", "1", "b"]


def test_files_are_the_owner_s_alone(spool: Spool) -> None:
    before = os.umask(0)
    try:
        spool.add(task("a"))
        spool.finish("a", {"id": "a", "state": "succeeded"}, "farm1")
        spool.add(task("b"))
    finally:
        os.umask(before)
    found = [spool.directory, *spool.directory.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_file()} == {0o600}


@pytest.mark.parametrize("task_id", ["../x", "a/b", "", ".a", "a" * 65, "a\n", "é"])
def test_an_id_that_is_no_file_s_name_is_refused(spool: Spool, task_id: str) -> None:
    with pytest.raises(UsageError, match="is not one") as caught:
        spool.add(task(task_id))
    assert "\n" not in str(caught.value)
    assert spool.kept(task_id) is None
    assert not spool.directory.exists()


def test_the_same_task_is_kept_once_and_another_is_refused(spool: Spool) -> None:
    first = spool.add(task("a"))
    assert spool.add(task("a")) == first
    with pytest.raises(UsageError) as caught:
        spool.add(task("a", "other"))
    assert caught.value.code == "id_conflict"
    assert len(spool.waiting()) == 1


def test_a_task_is_pinned_to_the_host_that_may_have_it(spool: Spool) -> None:
    spool.add(task("a"))
    assert spool.claim("a", "farm1") == "farm1"
    assert spool.claim("a", "farm2") == "farm1"
    spool.release("a")
    assert spool.claim("a", "farm2") == "farm2"
    assert spool.claim("nobody", "farm1") == ""
    spool.release("nobody")


def test_a_result_ends_the_waiting(spool: Spool) -> None:
    spool.add(task("a"))
    spool.finish("a", {"id": "a", "state": "succeeded", "text": "é\ud800"}, "farm1")
    spool.finish("a", {"id": "a", "state": "failed"}, "farm2")
    assert spool.waiting() == []
    kept = spool.kept("a")
    assert kept is not None
    assert (kept.task, kept.host, kept.result["text"]) == (task("a"), "farm1", "é\ud800")
    assert [each.task["id"] for each in spool.results()] == ["a"]


def test_what_a_crash_leaves_is_mended(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = spool.add(task("a"))
    text = entry.path.read_text()
    spool.finish("a", {"id": "a", "state": "succeeded"}, "farm1")
    entry.path.write_text(text)  # a crash between keeping the result and removing the task
    half = spool.directory / "waiting" / ".000000000009-b.json.new"
    half.write_text('{"task": {"id"')
    ours = spool.directory / "waiting" / ".000000000009-b.json.x1y2.farmhand-new"  # as core.files names it
    ours.write_text('{"task": {"id"')
    spool.tidy()
    assert spool.waiting() == []
    assert not half.exists()
    assert not ours.exists()
    assert spool.kept("a") is not None
    monkeypatch.setattr(spool_module, "KEEP_S", -1.0)
    spool.tidy()
    assert spool.results() == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"task": 3}',
        '{"task": {"id": "other"}, "wanted": "", "sent": "", "queued_at": 1}',
        '{"task": {"id": "a"}, "wanted": null, "sent": "", "queued_at": 1}',
        "\udcff",
    ],
)
def test_a_file_that_is_no_task_stops_no_other(spool: Spool, text: str) -> None:
    bad = spool.add(task("a")).path
    spool.add(task("b"))
    bad.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert [entry.id for entry in spool.waiting()] == ["b"]
    assert spool.broken() == [bad]
    assert number(spool.add(task("c"))) == 3


def test_a_spool_that_cannot_be_written_is_one_line(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    spool.add(task("a"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NotConfigured, match="No space left on device"):
            spool.add(task("b"))
    assert [entry.id for entry in spool.waiting()] == ["a"]
    assert spool.broken() == []
    spool.directory.chmod(0o750)
    with pytest.raises(NotConfigured, match="chmod 700"):
        spool.add(task("b"))


def test_a_file_where_the_spool_should_be(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("")
    with pytest.raises(NotConfigured, match="cannot be written"):
        Spool(tmp_path / "spool").add(task("a"))


def _add_some(directory: Path, name: str) -> None:
    for number in range(20):
        Spool(directory).add(task(f"{name}-{number:02d}"))


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    workers = [multiprocessing.Process(target=_add_some, args=(tmp_path, name)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    waiting = Spool(tmp_path).waiting()
    assert len({number(entry) for entry in waiting}) == 60
    for name in "abc":
        mine = [entry.id for entry in waiting if entry.id.startswith(name)]
        assert mine == sorted(mine)
    assert all(json.loads(entry.path.read_text())["sent"] == "" for entry in waiting)


def test_a_spool_that_another_process_holds_is_said_to_be_held(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_LOCK_S", 0.1)
    spool.add(task("a"))
    with open(spool.directory / "lock", "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FarmhandError, match="another process holds the spool") as held:
            spool.add(task("b"))
    # Exit 1: nobody may take it for a task that was not sent.
    assert (held.value.code, held.value.exit_code) == ("spool_held", 1)
    assert [entry.id for entry in spool.waiting()] == ["a"]
    assert spool.add(task("b")).id == "b"
