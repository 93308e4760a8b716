"""A look at the containers themselves, from inside: for `farmhand cloud verify --live`, where no task runs.

The probe runs behind the wall, by way of the launcher as a task's CLI does, and beside it without the wall: a row that
is refused there too proves nothing about the wall.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec

from farmhand.cloud import probe
from farmhand.cloud.calls import CallFailed, ContainerBucket, ContainerTable, patiently, refusal
from farmhand.cloud.child import ContainerPaths
from farmhand.cloud.credential import HeldCredential
from farmhand.cloud.ending import StopClock, say
from farmhand.cloud.verify_network import network_rows
from farmhand.core.bucket_keys import BatchKeys
from farmhand.core.shard import EXIT_DONE, EXIT_LEFT, VerifyOrder, VerifyReport, VerifyRow

Outcome = Mapping[str, tuple[str, str]]
#: The probe's rows that must be refused, by what they are about.
WALL = {
    "namespaces": ("a user namespace", "a network namespace by clone", "clone3", "a mount"),
    "seccomp filter": (
        *("a TCP connection to loopback", "an IPv6 socket", "a UDP socket", "a netlink socket", "a packet socket"),
        *("a vsock socket", "an alg socket", "a TCP socket by syscall", "io_uring", "process_vm_readv", "bpf"),
        *("ptrace of the first process", "shared memory that stays", "the kernel's keyring", "userfaultfd"),
    ),
    "uid wall": (
        *("environ of the first process", "memory of the first process", "environ of other users", "uid 0"),
        *("kill of the first process", "a capability", "new privileges", "a write to the root file system"),
        *("a write to /etc", "removal of the meter's socket", "the agent's socket", "the sandboxes' socket"),
        "the ledger",
    ),
    "credentials path": ("the role's credentials", "variables of a credential"),
}
#: Of these one at least must be open without the wall, so that the refusal is the wall's. The rest of a container's
#: own profile refuses as well, or would change what it runs in.
CONTROL = {
    "seccomp filter": ("a TCP connection to loopback", "a UDP socket"),
    "credentials path": ("the role's credentials", "variables of a credential"),
}
METER = "the meter"
#: Who owns the shared volumes: as container/Dockerfile says.
OWNERS = {"/run/farmhand": 900, "/var/lib/farmhand": 900, "/run/sandbox": 0, "/work": 0}
#: Seconds for the probe, and the most that it says.
_PROBE_S, _MOST = 60.0, 1 << 20
_PROBED = re.compile(r"PROBE([A-Za-z0-9+/=]+)EBORP")
_DENIED = ("AccessDenied", "AccessDeniedException")


class VerifyRun:
    """The run of `order`."""

    def __init__(
        self,
        order: VerifyOrder,
        keys: BatchKeys,
        bucket: ContainerBucket,
        table: ContainerTable,
        credential: HeldCredential,
        clock: StopClock,
    ) -> None:
        self._order, self._keys, self._bucket, self._table = order, keys, bucket, table
        self._credential, self._clock = credential, clock

    def again(self, attempt: int) -> int:
        """Return the exit code of an order that only asks whether it is tried again."""
        code = EXIT_LEFT if attempt == 1 else EXIT_DONE
        say(f"verify: attempt {attempt}: exit {code}")
        return code

    def run(self, paths: ContainerPaths) -> int:
        """Look, write the report, wait for SIGTERM as long as the order says. Return the exit code."""
        try:
            wall, control = _walled(paths), _control()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            wall, control = {}, {METER: ("refused", f"the probe did not run: {error}")}
        rows = [
            *wall_rows(wall, control),
            self._owners(wall),
            *self._secret(),
            self._stores(),
            *network_rows(self._order),
        ]
        report = msgspec.json.encode(VerifyReport(rows=rows))
        patiently(partial(self._bucket.put_new, self._keys.output("verify.json"), report), self._clock)
        say(f"verify: {len(rows)} rows are written; SIGTERM is awaited for {self._order.hold_s:g} s")
        if self._clock.pause(self._order.hold_s):
            stopped = json.dumps({"at": time.time()}).encode()
            patiently(partial(self._bucket.put_new, self._keys.output("stopped.json"), stopped), StopClock())
            say("verify: SIGTERM has come")
        return EXIT_DONE

    def _owners(self, wall: Outcome) -> VerifyRow:
        said = ", ".join([probe.owners(OWNERS), wall.get("owners", ("", ""))[1]])
        seen = {path: int(uid) for path, uid in re.findall(r"(/[\w/]+) (\d+):\d+ \d+", said)}
        bad = [path for path, uid in OWNERS.items() if seen.get(path) != uid]
        unwritable = [path for path in ("/run/farmhand", "/var/lib/farmhand") if not os.access(path, os.W_OK)]
        verdict = f"not as the image has it: {', '.join(bad)}; " if bad else ""
        verdict += f"the agent cannot write: {', '.join(unwritable)}; " if unwritable else ""
        return _row("owners of empty volumes", not verdict, f"{verdict}{said}")

    def _secret(self) -> list[VerifyRow]:
        came = f"a {self._credential.kind} came with the container, {self._credential.fingerprint}"
        found = refusal("secretsmanager", "get_secret_value", SecretId=self._order.secret)
        if found and found not in _DENIED:
            asked = VerifyRow(name="who may read the secret", verdict="not known", seen=f"the task role: {found}")
        else:
            said = f"the task role: {found}" if found else "the task role can read it"
            asked = _row("who may read the secret", bool(found), said)
        return [_row("the secret", True, came), asked]

    def _stores(self) -> VerifyRow:
        try:
            self._table.item()
        except CallFailed as error:
            return _row("bucket, key and table", False, str(error))
        return _row("bucket, key and table", True, "the order was read, the table asked; this report was written")


def wall_rows(wall: Outcome, control: Outcome) -> list[VerifyRow]:
    """Return the verdicts on the wall: `wall` is the probe's outcome behind it, `control` without it.

    If the probe did not run, `wall` is empty, and `control` says why at METER.
    """
    rows, why = [], control.get(METER, ("", ""))[1]
    for name, tries in WALL.items():
        missing, was_open = [one for one in tries if one not in wall], _opened(wall, tries)
        if missing or was_open:
            said = f"open: {', '.join(was_open)}" if was_open else why or f"not tried: {', '.join(missing)}"
            rows.append(_row(name, False, said))
            continue
        said = f"refused: {', '.join(tries)}"
        needed = CONTROL.get(name, ())
        if needed and not _opened(control, needed):
            said = f"{said}; but without the wall too: {', '.join(needed)}"
            rows.append(VerifyRow(name=name, verdict="not known", seen=said))
        else:
            rows.append(_row(name, True, said + (f"; open without the wall: {', '.join(needed)}" if needed else "")))
    verdict, said = wall.get(METER, ("", why or "no answer"))
    rows.append(_row("the meter from a task", verdict == "open", said))
    return rows


def _opened(outcome: Outcome, tries: tuple[str, ...]) -> list[str]:
    return [f"{name} ({outcome[name][1]})" for name in tries if name in outcome and outcome[name][0] != "refused"]


def _row(name: str, good: bool, seen: str) -> VerifyRow:
    return VerifyRow(name=name, verdict="passed" if good else "failed", seen=seen[:2000])


def _walled(paths: ContainerPaths) -> Outcome:
    """Return the probe's outcome in a sandbox of the launcher's. Raise OSError, ValueError."""
    source = Path(probe.__file__).read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as line:
        order = {
            "argv": ["/usr/bin/python3", "-I", "-", str(listener.getsockname()[1])],
            "env": {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            "stdin_bytes": len(source),
            "meter_socket": str(paths.run / "meter.sock"),
            "limit_s": _PROBE_S / 2,
        }
        line.settimeout(_PROBE_S)
        line.connect(str(paths.launcher_socket))
        line.sendall(json.dumps(order).encode() + b"\n" + source)
        said = b""
        while b'"farmhand.exit"' not in said and len(said) < _MOST and (data := line.recv(65536)):
            said += data
    return _outcome(said)


def _control() -> Outcome:
    """Return the outcome of some rows in this container, without the wall. Raise OSError, ValueError."""
    names = sorted({name for tries in CONTROL.values() for name in tries})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        argv = [sys.executable, "-I", probe.__file__, str(listener.getsockname()[1]), *names]
        done = subprocess.run(argv, capture_output=True, check=False, timeout=_PROBE_S)
    return _outcome(done.stdout)


def _outcome(said: bytes) -> Outcome:
    found = _PROBED.search(said.decode("utf-8", "replace"))
    if found is None:
        raise ValueError(f"it said {said[-300:].decode('utf-8', 'replace')!r}")
    return msgspec.json.decode(base64.b64decode(found[1]), type=dict[str, tuple[str, str]])
