"""A rotation that is killed before or after anything that it does: it is taken up again and ends well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from farmhand.core.errors import WireError
from farmhand.rotation.machine import Machine
from tests.unit.rotation.doubles import NEW, NEW_PRINT, OLD, OLD_PRINT, Crash, World


def forward(machine: Machine) -> None:
    machine.stage(NEW)
    machine.advance()


def back(machine: Machine) -> None:
    machine.stage(NEW)
    machine.advance("drained")
    machine.abort()


def effects(directory: Path, run: Callable[[Machine], None]) -> int:
    world = World(directory)
    run(world.machine())
    return world.clock.done


def points(run: Callable[[Machine], None], tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    count = effects(tmp_path_factory.mktemp("count"), run)
    assert count > 12
    return [number + half for number in range(1, count + 1) for half in (-0.5, 0.0)]


def crash(world: World, run: Callable[[Machine], None], at: float) -> None:
    world.clock.crash_at = at
    with pytest.raises(Crash):
        run(world.machine())
    world.clock.crash_at = None
    text = world.path.read_text()
    assert OLD in text or OLD not in world.alive, "a key that lives is never lost"
    assert [path for path in world.memory.rglob("*") if path.is_file() and b"sk-ant-" in path.read_bytes()] == []


def test_resumed_wherever_it_was_killed(tmp_path_factory: pytest.TempPathFactory) -> None:
    for at in points(forward, tmp_path_factory):
        world = World(tmp_path_factory.mktemp("w"))
        crash(world, forward, at)
        state = world.machine().status()
        if not state["unfinished"]:
            if state["step"] == "none":
                forward(world.machine())
        elif state["step"] == "staging" and NEW not in world.path.read_text():
            # The new key never arrived: resuming takes that back, and it can begin anew.
            with pytest.raises(WireError, match="was not stored before a crash"):
                world.machine().advance()
            forward(world.machine())
        else:
            world.machine().advance()
        assert world.machine().status()["step"] == "retired", at
        assert world.path.read_bytes() == world.before.replace(OLD.encode(), NEW.encode()), at
        assert world.keys == dict.fromkeys(world.keys, NEW), at
        assert world.held == {name: {NEW} for name in world.held}, at
        assert world.alive == {NEW}, at


def test_aborted_wherever_it_was_killed(tmp_path_factory: pytest.TempPathFactory) -> None:
    for at in points(forward, tmp_path_factory):
        world = World(tmp_path_factory.mktemp("w"))
        crash(world, forward, at)
        try:
            world.machine().abort()
        except WireError as error:
            assert error.code == "too_late"  # noqa: PT017  (what was raised before is fine as well)
            assert OLD not in world.alive, at
            world.machine().advance()
        if OLD in world.alive:
            assert world.path.read_bytes() == world.before, at
            assert set(world.keys.values()) == {OLD}, at
        else:
            assert world.keys == dict.fromkeys(world.keys, NEW), at


def test_killed_on_the_way_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    for at in points(back, tmp_path_factory):
        world = World(tmp_path_factory.mktemp("w"))
        crash(world, back, at)
        world.machine().abort()
        assert world.path.read_bytes() == world.before, at
        assert set(world.keys.values()) == {OLD}, at
        assert world.machine().abort() is False


def test_a_roll_back_that_was_cut_off_goes_on_with_resume(tmp_path: Path) -> None:
    world = World(tmp_path)
    machine = world.machine()
    machine.stage(NEW)
    machine.advance("switched")
    world.alive.discard(NEW)
    world.clock.crash_at = world.clock.done + 3
    with pytest.raises(Crash):
        machine.advance()
    world.clock.crash_at = None
    assert world.machine().status()["step"] == "rolling_back"
    with pytest.raises(WireError, match=f"rolled back to the old key {OLD_PRINT}: .*the canary task failed"):
        world.machine().advance()
    assert world.path.read_bytes() == world.before
    assert set(world.keys.values()) == {OLD}


def test_a_canary_is_the_same_task_after_a_crash(tmp_path: Path) -> None:
    world = World(tmp_path)
    machine = world.machine()
    machine.stage(NEW)
    machine.advance("switched")
    world.clock.crash_at = world.clock.done + 2
    with pytest.raises(Crash):
        machine.advance()
    world.clock.crash_at = None
    world.machine().advance()
    assert len({task for _, task in world.canaries}) == 1
    assert NEW_PRINT in world.canaries[0][1]


def test_a_host_that_is_down_is_left_alone_on_the_way_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    machine = world.machine()
    machine.stage(NEW)
    machine.advance("verified")
    world.down = {"farm1"}
    assert machine.abort()
    assert world.keys == {"farm1": NEW, "farm2": OLD}
    assert world.machine().status()["hosts"]["farm1"]["state"] == "unreached"


@pytest.mark.parametrize("step", ["switched", "drained"])
def test_an_old_key_that_somebody_takes_out_leaves_a_way_on_and_a_way_out(tmp_path: Path, step: str) -> None:
    world = World(tmp_path)
    world.machine().stage(NEW)
    world.machine().advance(step)
    lines = [line for line in world.path.read_text().splitlines(keepends=True) if OLD not in line]
    world.path.write_text("".join(lines))
    with pytest.raises(WireError, match="is not in its source any more"):
        world.machine().advance()
    before = world.machine().status()
    assert (before["unfinished"], before["step"] != "rolling_back") == (True, True), "nothing is taken back half-way"
    assert world.machine().abort()
    about = world.machine().status()
    assert (about["unfinished"], about["current"]) == (False, NEW_PRINT)
    assert f"the old key {OLD_PRINT} was not in its source any more: {NEW_PRINT} stays in use" in about["why"]
    assert world.machine().abort() is False


def test_a_way_back_without_the_old_key_is_not_begun(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.machine().stage(NEW)
    world.machine().advance("switched")
    text = world.path.read_bytes()
    world.path.write_bytes(b"".join(line for line in text.splitlines(keepends=True) if OLD.encode() not in line))
    world.alive.discard(NEW)
    with pytest.raises(WireError, match=r"the canary task failed.*there is no way back") as caught:
        world.machine().advance()
    assert (caught.value.code, world.machine().status()["step"]) == ("key_missing", "switched")
    world.path.write_bytes(text)
    assert world.machine().abort(), "with the key there again it is taken back"
    assert world.path.read_bytes() == world.before
