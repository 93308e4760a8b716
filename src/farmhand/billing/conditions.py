"""Whether a condition of a start-up file holds: true, false, or None where only running it could tell."""

from __future__ import annotations

import os
import stat

from .expand import expand, matches
from .state import State
from .syntax import Simple, Word

_TESTS = ("[", "[[", "test")
_SAME = ("=", "==", "!=")


def known(command: Simple, state: State) -> bool | None:
    """The status of a command that only looks."""
    name = command.words[0].literal
    if name in ("true", ":"):
        return True
    if name == "false":
        return False
    if name in _TESTS:
        found = command.words[1:]
        if name != "test" and found and found[-1].literal in ("]", "]]"):
            found = found[:-1]
        return _test(found, state)
    if name == "shopt" and [word.literal for word in command.words[1:]] == ["-q", "login_shell"]:
        return state.login
    if name == "status" and len(command.words) == 2:
        asked = (command.words[1].literal or "").removeprefix("--")
        return {"is-interactive": state.interactive, "is-login": state.login, "-i": state.interactive}.get(asked)
    if name == "set" and state.shell == "fish" and len(command.words) == 3:
        flag, variable = command.words[1].literal, command.words[2].literal
        if flag in ("-q", "--query") and variable:
            return variable in state.variables
    return None


def _test(found: list[Word], state: State) -> bool | None:
    for operator, whole in (("||", any), ("-o", any), ("&&", all), ("-a", all)):
        for at, word in enumerate(found):
            # At the beginning `-o` and `-a` are tests of one operand.
            if at and word.keyword == operator:
                sides = (_test(found[:at], state), _test(found[at + 1 :], state))
                if None in sides:
                    decided = (True in sides) if whole is any else (False in sides)
                    return (whole is any) if decided else None
                return bool(whole(side is True for side in sides))
    if found and found[0].keyword == "!":
        turned = _test(found[1:], state)
        return None if turned is None else not turned
    if len(found) == 1:
        text = expand(found[0], state)
        return None if text is None else bool(text)
    if len(found) == 2:
        return _unary(found[0].literal, expand(found[1], state), state)
    if len(found) == 3:
        return _binary(found, state)
    return None


def _unary(operator: str | None, operand: str | None, state: State) -> bool | None:
    if operator == "-o" and operand is not None:
        return {"interactive": state.interactive, "login": state.login}.get(operand)
    if operand is None:
        return None
    if operator == "-n":
        return bool(operand)
    if operator == "-z":
        return not operand
    if operator == "-v":
        return operand in state.variables
    return _file(operator, operand)


def _file(operator: str | None, path: str) -> bool | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False if operator in ("-e", "-f", "-d", "-r", "-s", "-w", "-x") else None
    return {
        "-e": True,
        "-f": stat.S_ISREG(status.st_mode),
        "-d": stat.S_ISDIR(status.st_mode),
        "-r": os.access(path, os.R_OK),
        "-w": os.access(path, os.W_OK),
        "-x": os.access(path, os.X_OK),
        "-s": status.st_size > 0,
    }.get(operator or "")


def _binary(found: list[Word], state: State) -> bool | None:
    left, operator = expand(found[0], state), found[1].literal
    if left is None or operator not in _SAME:
        return None
    same = matches(left, found[2], state)
    return None if same is None else same == (operator != "!=")
