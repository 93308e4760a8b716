"""The checks of the workstation: who pays for an interactive claude, the login, the key, the spool, the prices."""

from __future__ import annotations

import datetime
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from farmhand import billing
from farmhand.billing.names import BASE_URLS, METERED, TOKEN, counts
from farmhand.cli.checks import Check, failed, passed, untold
from farmhand.core.errors import NotConfigured
from farmhand.core.keys import fingerprint
from farmhand.core.keysource import read_key
from farmhand.core.settings import Settings, hosts_of
from farmhand.offline import subscription
from farmhand.offline.login import FIX, find_login
from farmhand.offline.spool import open_spool
from farmhand.rotation import operator
from farmhand.rotation.check_key import check_key

#: A table that is older than this may be wrong. Days.
PRICES_DAYS = 120
_TAKE_OUT = "ansible-playbook playbooks/workstation.yml takes it out"
_MARKER = (
    "what it does there may be skipped while $FARMHAND_ASKING is set; or type env | grep ANTHROPIC in such a shell"
)


def checks(conf: Settings, *, ask_claude: bool, ask_shell: bool = True) -> list[tuple[str, Callable[[], Check]]]:
    """The checks by name, in the order of the screen."""
    return [
        ("environment", environment),
        ("shells", lambda: shells(ask_shell=ask_shell)),
        ("login", login),
        ("claude", lambda: claude(ask=ask_claude)),
        ("key", lambda: key(conf)),
        ("key-age", lambda: key_age(conf)),
        ("api", lambda: api(conf)),
        ("spool", lambda: spool(conf)),
        ("prices", prices),
    ]


def environment() -> Check:
    """No metered credential in this very session's environment."""
    found = [name for name in METERED if name in os.environ and counts(name, os.environ[name])]
    if found:
        fix = f"unset {' '.join(found)}, and see the line shells for where it comes from"
        does = "claude would not bill the plan" if set(found) - set(BASE_URLS) else "claude would not ask the provider"
        return failed("environment", f"{' and '.join(found)} set in this session: {does}", fix)
    return passed("environment", "no metered credential is set in this session")


def shells(*, ask_shell: bool = True) -> Check:
    """No metered credential in any kind of interactive shell, as the shells themselves say."""
    report = billing.find(cwd=Path.cwd(), ask_shell=ask_shell)
    asked = f" (asked once: {', '.join(report.asked[:3])})" if report.asked else ""
    if report.metered:
        return failed("shells", report.line() + asked, _TAKE_OUT)
    if not report.certain:
        return untold("shells", report.line() + asked, "leave out --no-ask-shell" if report.read_only else _MARKER)
    # A file that could not be read is no finding, but nobody should think that it was.
    unread = [str(problem) for problem in report.problems]
    return passed("shells", report.line() + asked + (f" (not read: {', '.join(unread[:3])})" if unread else ""))


def login() -> Check:
    """The login is there and has not ended."""
    found = find_login()
    plan = f"plan {found.plan}, " if found.plan else ""
    days = found.days_left()
    if days is None:
        return passed("login", f"{plan}{'renewed by claude itself' if found.renews else 'its end is not noted'}")
    return passed("login", f"{plan}{days} days left")


def claude(*, ask: bool) -> Check:
    """An interactive claude would draw on the plan; with `ask` it is asked for one word, which does draw on it."""
    program = shutil.which("claude")
    if program is None:
        return failed("claude", "the claude CLI is not installed here", "npm install -g @anthropic-ai/claude-code")
    said = subscription.auth_status(program, os.environ, settings=True)
    if not said.get("loggedIn"):
        return failed("claude", "claude says that it is not logged in", FIX)
    # The CLI says the same of its own token and of anybody's bearer token.
    token = TOKEN if said.get("authMethod") == "oauth_token" and os.environ.get(TOKEN) else None
    if token or said.get("authMethod") not in subscription.PLAN:
        source = token or said.get("apiKeySource") or said.get("authMethod")
        return failed("claude", f"claude would use {source}, not the plan", "see the lines environment and shells")
    if not ask:
        return passed("claude", "would use the plan's login (not asked: --ask-claude sends it one word)")
    answer = subscription.answer({"id": "doctor", "prompt": "Answer with the one word: ready", "timeout_s": 60.0})
    return passed("claude", f"answers on the plan: {answer['text'][:40]}")


def key(conf: Settings) -> Check:
    """The key's source can be read and is the owner's alone."""
    return passed("key", f"{conf.key_source} can be read (fingerprint {fingerprint(_key(conf))})")


def key_age(conf: Settings) -> Check:
    """The key is younger than the policy `key_max_age_days` says."""
    days = operator.age_days(conf, _key(conf))
    said = f"the key has been here for {days:.0f} days at least"
    if operator.is_old(days, conf):
        return failed("key-age", f"{said}, more than {conf.key_max_age_days:g}", "farmhand rotate")
    return passed("key-age", said)


def api(conf: Settings) -> Check:
    """The API accepts the key."""
    check_key(_key(conf), conf.upstream_url)
    return passed("api", f"{conf.upstream_url} accepts the key")


def _key(conf: Settings) -> str:
    return read_key(conf.key_source)


def spool(conf: Settings) -> Check:
    """Nothing waits in the spool for a host."""
    found = open_spool(conf)
    broken = found.broken()
    if broken:
        return failed("spool", f"{broken[0]} is not a task", "move it away")
    elsewhere = [entry for entry in found.elsewhere() if not entry.sent]
    queued = [entry for entry in found.waiting() if not entry.sent]
    if queued or elsewhere:
        hours = max(time.time() - entry.queued_at for entry in (*queued, *elsewhere)) / 3600
        count = len(queued) + len(elsewhere)
        said = f"{count} task{'s wait' if count > 1 else ' waits'}, the oldest for {max(0.0, hours):.1f} h"
        others = sorted({hosts_of(entry.farm) for entry in elsewhere})
        others_said = f"; {len(elsewhere)} for {', for '.join(others)}" if elsewhere else ""
        return failed("spool", said + others_said, "farmhand flush, with the settings that they were queued with")
    return passed("spool", "nothing waits for a host")


def prices() -> Check:
    """The price table is young enough to be believed."""
    from farmhand.core.prices import price_table

    version = price_table().version
    try:
        days = (datetime.datetime.now(datetime.UTC).date() - datetime.date.fromisoformat(version)).days
    except ValueError:
        raise NotConfigured(f"the price table's version {version!r} is not a date", hint="upgrade farmhand") from None
    if days > PRICES_DAYS:
        return failed("prices", f"the price table is of {version}, {days} days old", "upgrade farmhand")
    return passed("prices", f"the price table is of {version}, {days} days old")
