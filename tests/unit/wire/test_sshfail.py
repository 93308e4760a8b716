from __future__ import annotations

import pytest

from farmhand.wire.sshfail import classify

CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
Host key for farm1 has changed and you have requested strict checking.
Host key verification failed.
"""
UNSAFE = """@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @
Permissions 0644 for '/x/id' are too open.
Load key "/x/id": bad permissions
farmhand@farm1: Permission denied (publickey).
"""


@pytest.mark.parametrize(
    ("status", "said", "code", "words"),
    [
        (255, CHANGED, "host_key_changed", "not the one on record"),
        (
            255,
            "No ED25519 host key is known for farm1 and you have requested strict checking.\r\n"
            "Host key verification failed.\r\n",
            "host_key_unknown",
            "never accepted silently",
        ),
        (255, "farmhand@farm1: Permission denied (publickey).", "login_refused", "not accepted"),
        (255, UNSAFE, "login_refused", "chmod 600"),
        (
            255,
            'Load key "/x/id": error in libcrypto\nfarmhand@farm1: Permission denied (publickey).',
            "login_refused",
            "cannot load",
        ),
        (255, "ssh: connect to host farm1 port 22: Connection refused", "unreachable", "Connection refused"),
        (255, "ssh: connect to host farm1 port 22: Connection timed out", "unreachable", "timed out"),
        (255, "ssh: Could not resolve hostname farm1: Name or service not known", "unreachable", "correct its address"),
        (255, "", "unreachable", "ssh gave no reason"),
        (255, "mux_client_request_session: x\nkex_exchange_identification: y", "unreachable", "kex_exchange"),
        (
            255,
            "No ED25519 host key is known for [b]:22 and you have\nHost key verification failed.",
            "host_key_unknown",
            "of [b]:22",
        ),
        (
            255,
            "jo@bastion: Permission denied (publickey).\r\nConnection closed by UNKNOWN port 65535",
            "unreachable",
            "through another host failed: jo@bastion: Permission denied",
        ),
        (
            255,
            "channel 0: open failed: connect failed: No route to host\nstdio forwarding failed\n"
            "kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535\n",
            "unreachable",
            "No route to host",
        ),
        (
            255,
            "ssh: connect to host 10.0.0.1 port 22: Connection refused\n"
            "kex_exchange_identification: Connection closed by remote host\n",
            "unreachable",
            "through another host failed: ssh: connect to host 10.0.0.1",
        ),
        (255, "Connection closed by UNKNOWN port 65535", "unreachable", "UNKNOWN port"),
        (255, "kex_exchange_identification: Connection closed by remote host", "unreachable", "host is up"),
        (127, "sh: 1: jada-agent: not found", "agent_missing", "not installed"),
        (126, "", "agent_missing", "not installed"),
        (4, "jada-agent: /run/x: No such file or directory (is jada-agent running?)", "agent_down", "No such file"),
        (4, "jada-agent: /run/x: Permission denied (group)", "login_refused", "Permission denied"),
    ],
)
def test_one_code_and_one_line_for_each_cause(status: int, said: str, code: str, words: str) -> None:
    error = classify(status, said, "farm1")
    assert error is not None
    assert error.code == code
    assert words in str(error)
    assert "farm1" in str(error)
    assert "\n" not in str(error)
    assert error.hint


def test_a_good_end_is_no_failure() -> None:
    assert classify(0, "warning: whatever", "farm1") is None


def test_a_key_in_the_last_line_is_not_repeated() -> None:
    error = classify(1, "oops sk-ant-test-aaaaaaaaaaaaaa", "farm1")
    assert "sk-ant-test" not in str(error)
