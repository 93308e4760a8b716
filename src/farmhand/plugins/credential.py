"""The implementation of the action plugin farmhand_credential: a credential on AWS, or what would become of it."""

from __future__ import annotations

from typing import Any

from farmhand.aws.credentials.credential import read
from farmhand.aws.credentials.vault import PLACES, Options, Vault, lasting
from farmhand.core.settings import Settings
from farmhand.rotation.provider import Provider


def apply(conf: Settings, given: dict[str, Any], *, check: bool) -> dict[str, Any]:
    """Return the result: `changed`, `notes`, `diff`, and what Stored.document returns. Raise FarmhandError.

    `given` are the arguments as the module documents them. With `check` nothing is written. What is taken out is
    that of the place that was given, and without one that of the table.
    """
    here, place = given["place"] is not None, given["place"] or PLACES[0]
    options = Options(place=place, **{name: given[name] for name in ("kms_key", "client_side")})
    vault, kind, state = Vault(conf, Provider(conf.upstream_url).alive, options), given["kind"], given["state"]
    if state == "status":
        rows = vault.status(given["warn_days"], check=check)
        return {"changed": False, "credentials": rows, "notes": [row["trouble"] for row in rows if row["trouble"]]}
    if state == "retired":
        stored = vault.retire(kind, here=here, check=check)
    elif state == "absent":
        stored = vault.remove(kind, here=here, check=check)
    else:
        source, leave = given["source"], given["without_refresh_token"]
        credential = read(kind, source, conf, expires=given["expires"], without_refresh_token=leave)
        stored = vault.put(credential, source=lasting(kind, source), check=check)
    answer = stored.document() | {"notes": list(stored.notes), "diff": stored.diff()}
    if state == "rotated" and not (check and stored.changed):
        retired = vault.retire(kind, check=check)
        if retired.changed and not stored.changed:
            answer |= {"changed": True, "diff": retired.diff()}
    return answer
