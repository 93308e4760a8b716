"""What farmhand_credential predicts is what it then does: by state, in check mode and after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farmhand.core.keys import fingerprint
from farmhand.plugins import credential
from tests.unit.aws.conftest import KEY, conf, private, vault
from tests.unit.aws.test_vault import stages, value

DEFAULTS: dict[str, Any] = {
    "kind": "key",
    "place": None,
    "expires": "",
    "without_refresh_token": False,
    "client_side": False,
    "kms_key": "",
    "warn_days": 14.0,
}


@pytest.fixture(autouse=True)
def api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farmhand.rotation.provider.free_call", lambda _key, _url: 200)


def test_each_state_is_predicted_and_reached(account: Path) -> None:
    path = private(account / "repos.env", f"A={KEY}\nB={KEY}2\n")

    def reach(state: str, name: str, *, changed: bool) -> dict[str, Any]:
        """Predict, do, do again: what is predicted is done, and then nothing is left to be done."""
        given = DEFAULTS | {"state": state, "source": f"file:{path}#{name}"}
        told = credential.apply(conf(), given, check=True)
        done = credential.apply(conf(), given, check=False)
        assert (told["changed"], done["changed"]) == (changed, changed), (state, told, done)
        assert told["diff"] == done["diff"]
        again = credential.apply(conf(), given, check=False)
        assert (again["changed"], again["diff"]) == (False, {})
        assert KEY not in str((told, done, again))
        return done

    first = reach("present", "A", changed=True)
    assert first["fingerprint"] == fingerprint(KEY)
    reach("present", "A", changed=False)
    reach("present", "B", changed=True)
    assert len(stages()) == 2
    reach("rotated", "B", changed=True)
    assert len(stages()) == 1
    reach("rotated", "A", changed=True)
    assert (len(stages()), value()) == (1, KEY)
    reach("retired", "A", changed=False)
    reach("absent", "A", changed=True)
    rows = credential.apply(conf(), DEFAULTS | {"state": "status", "source": ""}, check=False)
    assert rows == {"changed": False, "credentials": [], "notes": []}


def test_what_is_taken_out_is_that_of_the_place_that_was_given(account: Path) -> None:
    """A credential that was moved: its old place is emptied, and the table's one stays."""
    path = private(account / "repos.env", f"A={KEY}\n")
    given = DEFAULTS | {"source": f"file:{path}#A"}
    for place in ("s3", "secretsmanager"):
        credential.apply(conf(), given | {"state": "present", "place": place}, check=False)
    for expected in (True, False):
        told, done = (
            credential.apply(conf(), given | {"state": "absent", "place": "s3"}, check=check) for check in (True, False)
        )
        assert (told["changed"], told["diff"]) == (done["changed"], done["diff"])
        assert (done["changed"], done["place"][:3]) == (expected, "s3:")
    assert value() == KEY
    done = credential.apply(conf(), given | {"state": "absent"}, check=False)
    assert (done["changed"], done["place"][:14]) == (True, "secretsmanager")


def test_a_look_in_check_mode_leaves_this_machines_note(account: Path) -> None:
    path = private(account / "repos.env", f"A={KEY}\n")
    credential.apply(conf(), DEFAULTS | {"state": "present", "source": f"file:{path}#A"}, check=False)
    note = account / "state" / "farmhand" / "credentials.json"
    vault().store().remove("key")
    vault().table.delete("key")
    before = note.read_bytes()
    for check in (True, False):
        credential.apply(conf(), DEFAULTS | {"state": "status", "source": ""}, check=check)
        assert (note.read_bytes() == before) is check
