"""The checks of the workstation: which account an interactive claude bills, login, key, spool, prices."""

from __future__ import annotations

import datetime
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from farmhand import billing
from farmhand.aws.credentials.expiry import Entry, Record
from farmhand.billing.gateway import BASE_URL, OwnGateway
from farmhand.billing.names import BASE_URLS, METERED, TOKEN, counts
from farmhand.cli.checks import Check, failed, joined, passed, run, untold
from farmhand.core.claude import login_path
from farmhand.core.errors import FarmhandError, NotConfigured, WireError
from farmhand.core.keys import fingerprint
from farmhand.core.keysource import read_key
from farmhand.core.readable import counted
from farmhand.core.settings import Settings, hosts_of
from farmhand.offline import subscription
from farmhand.offline.spool import open_spool
from farmhand.rotation.build import age_days, is_old
from farmhand.rotation.provider import Provider, check_key, workspace_of
from farmhand.subscription import gate
from farmhand.subscription.login import FIX, find_login

#: A price table older than this may be wrong. Days.
PRICES_DAYS = 120
#: A key that ends within this time is red. Days.
KEY_ENDS_DAYS = 14
_REMOVE = "farmhand cloud credential remove --yes"
_IN_A_LAYER = "it is in every copy of an image"
_TAKE_OUT = "ansible-playbook playbooks/workstation.yml takes it out"
_MARKER = (
    "what it does there may be skipped while $FARMHAND_ASKING is set; or type env | grep ANTHROPIC in such a shell"
)


def checks(conf: Settings, *, ask_claude: bool, ask_shell: bool = True) -> list[tuple[str, Callable[[], Check]]]:
    """Return the checks with their names, in the order in which they are printed."""
    return [
        ("environment", environment),
        ("shells", lambda: shells(ask_shell=ask_shell)),
        ("login", lambda: login(conf)),
        ("claude", lambda: claude(conf, ask=ask_claude)),
        ("key", lambda: of_each(key, conf)),
        ("key-age", lambda: of_each(key_age, conf)),
        ("api", lambda: of_each(api, conf)),
        ("spool", lambda: spool(conf)),
        ("prices", prices),
        ("aws-credential", lambda: aws_credential(conf)),
    ]


def environment() -> Check:
    """Check that this session's environment has no metered credential."""
    own = OwnGateway(Path.home(), os.environ)
    whose, spared = own.whose(os.environ.get(BASE_URL)), own.spared(os.environ)
    found = [n for n in METERED if n not in spared and n in os.environ and counts(n, os.environ[n])]
    if found:
        fix = f"unset {' '.join(found)}, and see the line shells for where it comes from"
        does = "claude would not bill the plan" if set(found) - set(BASE_URLS) else "claude would not ask the provider"
        note = f" ({whose.note})" if whose.note else ""
        return failed(f"{' and '.join(found)} set in this session: {does}{note}", fix)
    asks = f"; claude asks your gateway on {whose.ours}" if whose.ours else ""
    return passed(f"no metered credential is set in this session{asks}")


def shells(*, ask_shell: bool = True) -> Check:
    """Check that no kind of interactive shell sets a metered credential, by asking the shells themselves."""
    report = billing.find(cwd=Path.cwd(), ask_shell=ask_shell)
    asked = f" (asked once: {', '.join(report.asked[:3])})" if report.asked else ""
    if report.metered:
        return failed(report.line() + asked, _TAKE_OUT)
    if not report.certain:
        return untold(report.line() + asked, "leave out --no-ask-shell" if report.read_only else _MARKER)
    # A file that could not be read does not fail the check, but it is named.
    unread = [str(problem) for problem in report.problems]
    return passed(report.line() + asked + (f" (not read: {', '.join(unread[:3])})" if unread else ""))


def _no_claude_here(conf: Settings) -> bool:
    """Return whether there is neither the CLI nor a login, and no setting that needs them."""
    if shutil.which("claude") or conf.allow_subscription or conf.fallback == "subscription" or sys.platform == "darwin":
        return False
    return not os.environ.get(TOKEN) and not login_path(os.environ).exists()


def login(conf: Settings) -> Check:
    """Check that the login exists and has not expired. A workstation without the CLI needs none."""
    if _no_claude_here(conf):
        return passed("none, and no claude CLI here that would use one")
    found = find_login()
    plan = f"plan {found.plan}, " if found.plan else ""
    days = found.days_left()
    if days is None:
        return passed(f"{plan}{'renewed by claude itself' if found.renews else 'its end is not noted'}")
    return passed(f"{plan}{counted(days, 'day')} left")


def claude(conf: Settings, *, ask: bool) -> Check:
    """Check that an interactive claude would use the plan. With `ask`, ask it for one word, which uses the plan."""
    program = shutil.which("claude")
    if program is None:
        if not ask and _no_claude_here(conf):
            return passed("the claude CLI is not installed here: no interactive session can be billed")
        return failed("the claude CLI is not installed here", "npm install -g @anthropic-ai/claude-code")
    spared = OwnGateway(Path.home(), os.environ).spared(os.environ)
    said = gate.auth_status(program, {n: value for n, value in os.environ.items() if n not in spared}, settings=True)
    if not said.get("loggedIn"):
        return failed("claude says that it is not logged in", FIX)
    # The CLI reports the same authMethod for its own token and for any other bearer token.
    token = TOKEN if said.get("authMethod") == "oauth_token" and TOKEN not in spared and os.environ.get(TOKEN) else None
    if token or said.get("authMethod") not in gate.PLAN:
        source = token or said.get("apiKeySource") or said.get("authMethod")
        return failed(f"claude would use {source}, not the plan", "see the lines environment and shells")
    if not ask:
        here = "asks your gateway in this session; by itself it " if spared else ""
        return passed(f"{here}would use the plan's login (not asked: --ask-claude sends it one word)")
    answer = subscription.answer({"id": "doctor", "prompt": "Answer with the one word: ready", "timeout_s": 60.0})
    return passed(f"answers on the plan: {answer['text'][:40]}")


def of_each(check: Callable[[Settings], Check], conf: Settings) -> Check:
    """Check the key of each pot, where there are pots; else the one key."""
    if not conf.pots:
        return check(conf)
    own = [conf._replace(pot=pot.name, key_source=pot.key_source) for pot in conf.pots]
    return joined(run([(f"pot {each.pot}", partial(check, each)) for each in own], ()))


def key(conf: Settings) -> Check:
    """Check that the key's source can be read, and by its owner only; and that no other pot has that key."""
    found = read_key(conf.key_source)
    for pot in conf.pots:
        with suppress(FarmhandError):  # has its own line
            if pot.name != conf.pot and read_key(pot.key_source) == found:
                return failed(f"it is the key of the pot {pot.name} too", "give each pot a key of its own")
    return passed(f"{conf.key_source} can be read (fingerprint {fingerprint(found)})")


def key_age(conf: Settings) -> Check:
    """Check that the key is not older than the setting `key_max_age_days`, nor about to end, where that can be seen."""
    found = read_key(conf.key_source)
    days = age_days(conf, found)
    said, fix = f"the key has been here for {counted(round(days), 'day')} at least", "farmhand rotate"
    fix += f" --pot {conf.pot}" if conf.pot else ""
    if is_old(days, conf):
        return failed(f"{said}, more than {conf.key_max_age_days:g}", fix)
    if not conf.admin_key_source:
        return passed(said)
    try:
        ends = Provider(conf.upstream_url, read_key(conf.admin_key_source), conf.admin_url).ends_at(found)
    except WireError as error:
        return passed(f"{said}; when it ends cannot be asked: {error.message}")
    if ends is None:
        return passed(said)
    left = (ends - datetime.datetime.now(datetime.UTC)).total_seconds() / 86400
    said += f"; it ends on {ends.astimezone(datetime.UTC):%Y-%m-%d}"
    return failed(said, fix) if left < KEY_ENDS_DAYS else passed(said)


def api(conf: Settings) -> Check:
    """Check that the API accepts the key."""
    found = read_key(conf.key_source)
    check_key(found, conf.upstream_url)
    workspace = workspace_of(found, conf.upstream_url)
    return passed(f"{conf.upstream_url} accepts the key{f', which is of {workspace}' if workspace else ''}")


def spool(conf: Settings) -> Check:
    """Check that no task in the spool waits for a host."""
    found = open_spool(conf)
    broken = found.broken()
    if broken:
        return failed(f"{broken[0]} is not a task", "move it away")
    elsewhere = [entry for entry in found.elsewhere() if not entry.sent]
    queued = [entry for entry in found.waiting() if not entry.sent]
    if queued or elsewhere:
        hours = max(time.time() - entry.queued_at for entry in (*queued, *elsewhere)) / 3600
        count = len(queued) + len(elsewhere)
        said = f"{count} task{'s wait' if count > 1 else ' waits'}, the oldest for {max(0.0, hours):.1f} h"
        others = sorted({hosts_of(entry.farm) for entry in elsewhere})
        others_said = f"; {len(elsewhere)} for {', for '.join(others)}" if elsewhere else ""
        return failed(said + others_said, "farmhand flush, with the settings that they were queued with")
    return passed("nothing waits for a host")


def prices() -> Check:
    """Check that the price table is not too old."""
    from farmhand.core.prices import price_table

    version = price_table().version
    try:
        days = (datetime.datetime.now(datetime.UTC).date() - datetime.date.fromisoformat(version)).days
    except ValueError:
        raise NotConfigured(f"the price table's version {version!r} is not a date", hint="upgrade farmhand") from None
    said = f"the price table is of {version}, {counted(days, 'day')} old"
    return failed(said, "upgrade farmhand") if days > PRICES_DAYS else passed(said)


def aws_credential(conf: Settings) -> Check:
    """Check that no credential that was put on AWS from here has ended, ends soon, or is in a weak place."""
    entries = Record(conf.aws_environment).entries()
    bad = [entry for entry in entries if entry.trouble() or _baked(entry)]
    if bad:
        said = "; ".join(f"{entry.kind}: {entry.trouble() or _IN_A_LAYER}" for entry in bad)
        fixes = [entry.renewal if entry.trouble() else f"{_REMOVE} --kind {entry.kind} --place image" for entry in bad]
        return failed(said, "; ".join([*fixes, "farmhand cloud credential status"]))
    if not entries:
        return passed("none was put on AWS from here")
    weak = [entry.kind for entry in entries if entry.place.startswith("s3:")]
    said = f" ({', '.join(weak)} in S3, which a task's own role can read)" if weak else ""
    return passed(f"{', '.join(entry.kind for entry in entries)} on AWS, none ends soon{said}")


def _baked(entry: Entry) -> bool:
    return entry.place.startswith("image:")
