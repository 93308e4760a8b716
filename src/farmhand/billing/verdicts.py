"""The billed account for an environment, by the CLI's documented precedence and the CLI's own status."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from ..core.keys import fingerprint
from .names import BASE_URLS, CLOUDS, HEADERS, HELPER, INDIRECT, KEY, OAUTH, TOKEN, counts
from .verdict import Setting, Verdict

#: Authentication methods of `claude auth status` that use a plan, or a bearer token of an unknown issuer.
_PLAN = ("claude.ai", "oauth_token")
_BILLED = {"api_key": "api_key", "api_key_helper": "api_key", "third_party": "cloud"}


def status(output: str) -> dict[str, Any] | None:
    """Return the JSON object printed by `claude auth status --json`, ignoring other output around it."""
    start = output.find("{")
    while start >= 0:
        with contextlib.suppress(ValueError):
            found, _ = json.JSONDecoder().raw_decode(output[start:])
            if isinstance(found, dict) and "loggedIn" in found:
                return found
        start = output.find("{", start + 1)
    return None


def shown(env: Mapping[str, str], said: Mapping[str, Any]) -> dict[str, str]:
    """Return the part of an environment that agrees with the CLI's status: a wrapper may have removed variables."""
    method = said.get("authMethod")
    kept = {"claude.ai": (), "oauth_token": (TOKEN,), "api_key": (KEY, *INDIRECT)}.get(str(method))
    gone = set() if kept is None else {*CLOUDS, TOKEN, KEY, *INDIRECT, HEADERS} - set(kept)
    return {name: value for name, value in env.items() if name not in gone}


def judge(
    shell: str,
    mode: str,
    env: Mapping[str, Setting],
    helper: Setting | None,
    *,
    logged_in: bool,
    said: Mapping[str, Any] | None = None,
    how: str = "asked",
) -> Verdict:
    """Return the verdict. Precedence: cloud, bearer token, key, indirect names, headers, helper, OAuth token, login.

    `said` is the CLI's own status here. It is believed if it names something metered that the variables do not show,
    but not if it names the plan although a metered variable is set.
    """

    def there(name: str) -> bool:
        return name in env and counts(name, env[name].text)

    def first(names: tuple[str, ...]) -> str:
        return next((name for name in names if there(name)), "")

    logged_in = bool(said.get("loggedIn")) if said else logged_in
    setting: Setting | None = None
    headers: tuple[str, ...] = ()
    if name := first(CLOUDS):
        credential, billed, setting = name, "cloud", env[name]
    elif there(TOKEN):
        credential, billed, setting = TOKEN, "token", env[TOKEN]
        headers = ("authorization", *(("x-api-key",) if there(KEY) else ()))
    elif there(KEY):
        credential, billed, setting = KEY, "api_key", env[KEY]
        headers = (*(("authorization",) if helper else ()), "x-api-key")
    elif name := first(tuple(INDIRECT)):
        credential, billed, setting = name, INDIRECT[name], env[name]
    elif there(HEADERS):
        credential, billed, setting = HEADERS, "token", env[HEADERS]
    elif helper:
        credential, billed, setting, headers = HELPER, "api_key", helper, ("authorization", "x-api-key")
    elif there(OAUTH):
        credential, billed, setting, headers = OAUTH, "subscription", env[OAUTH], ("authorization",)
    elif logged_in:
        credential, billed, headers = "login", "subscription", ("authorization",)
    else:
        credential, billed = "none", "none"
    source = "the login of the CLI" if credential == "login" else str(setting.location) if setting else ""
    method = str(said.get("authMethod") or "") if said else ""
    if billed in ("subscription", "none") and said and said.get("loggedIn") and method not in _PLAN:
        billed = _BILLED.get(method, "token")
        credential = str(said.get("apiKeySource") or method or "unknown")[:80]
        source, headers = "what claude auth status says", ()
    url = first(BASE_URLS)
    return Verdict(
        shell=shell,
        mode=mode,
        credential=credential,
        billed=billed,
        how=how,
        source=source,
        fingerprint=fingerprint(setting.text) if setting and setting.text and billed != "cloud" else None,
        api_key_source=str(said["apiKeySource"])
        if said and said.get("apiKeySource")
        else KEY
        if there(KEY)
        else HELPER
        if helper
        else "none",
        headers=headers,
        base_url=f"{url} in {env[url].location}" if url else None,
    )
