"""The kinds of shell that a terminal may start, and how each is started, traced and made to run `claude`.

Sources: bash(1) INVOCATION, zsh(1) STARTUP/SHUTDOWN FILES, dash(1), fish(1), and their builds by Debian and Apple.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SHELLS = ("bash", "zsh", "fish", "sh")
#: mode → (login, interactive)
MODES = {"login": (True, False), "interactive": (False, True), "login interactive": (True, True)}
#: The start-up files in HOME (fish: in ~/.config) and in the system's root.
_OWN = {
    "bash": (".bashrc", ".bash_profile", ".bash_login", ".profile"),
    "zsh": (".zshenv", ".zprofile", ".zshrc", ".zlogin"),
    "fish": ("fish/config.fish", "fish/conf.d", "fish/functions", "fish/fish_variables"),
    "sh": (".profile",),
}
_SYSTEM = {
    "bash": ("etc/profile", "etc/bash.bashrc", "etc/bashrc"),
    "zsh": ("etc/zsh", "etc/zshenv", "etc/zprofile", "etc/zshrc", "etc/zlogin"),
    "fish": ("etc/fish", "opt/homebrew/etc/fish", "usr/local/etc/fish"),
    "sh": ("etc/profile",),
}
#: A trace record begins with RECORD; FIELD separates its fields, of which the command is the last.
RECORD, FIELD = "\x1d", "\x1f"
#: File descriptor for bash's trace. It is high, so that no start-up file uses it.
TRACE_FD = 97
_FRAMES = "".join(f"${{BASH_SOURCE[{n}]-}}{FIELD}${{BASH_LINENO[{n - 1}]-}}{FIELD}" for n in range(1, 7))
_PS4 = {
    "bash": f"{RECORD}${{BASH_SOURCE[0]-}}{FIELD}${{LINENO-}}{FIELD}${{#FUNCNAME[@]}}{FIELD}${{FUNCNAME[0]-}}{FIELD}"
    + _FRAMES,
    "zsh": f"{RECORD}%x{FIELD}%I{FIELD}%N{FIELD}%i{FIELD}",
    "sh": f"{RECORD}${{BASH_SOURCE-}}{FIELD}${{LINENO-}}{FIELD}",
}
#: Code that a prompt would run first (direnv, mise, lazy loaders), code due soon after it, and hooks for a typed line.
#: For the latter bash runs its DEBUG trap by itself; bash-preexec's needs the line in a history, which is empty. All of
#: it works with `nounset`, and with zsh's `ksh_arrays`, which changes the meaning of `$+functions[x]`.
_HOOKS = {
    "bash": ': __farmhand\nfor __farmhand in "${PROMPT_COMMAND[@]-}"; do eval "$__farmhand"; done\n'
    "if declare -F __bp_preexec_invoke_exec >/dev/null; then\n"
    '    for __farmhand in "${preexec_functions[@]-}"; do [ -z "$__farmhand" ] || "$__farmhand" claude; done\n'
    "fi",
    "zsh": ": __farmhand\nif (( ${+functions[precmd]} )); then precmd; fi\n"
    'for __farmhand in "${precmd_functions[@]-}"; do '
    'if (( ${+functions[$__farmhand]} )); then "$__farmhand"; fi; done\n'
    # zinit's own command to load everything that its turbo mode would load later.
    "if (( ${+functions[@zinit-scheduler]} )); then @zinit-scheduler burst; fi\n"
    'for __farmhand in "${zsh_scheduled_events[@]-}"; do eval "${__farmhand#*:*:}"; done\n'
    "if (( ${+functions[preexec]} )); then preexec claude claude claude; fi\n"
    'for __farmhand in "${preexec_functions[@]-}"; do if (( ${+functions[$__farmhand]} )); then '
    '"$__farmhand" claude claude claude; fi; done',
    # Without fish's initial steps in a new home, which write files and read all manual pages.
    "fish": "functions --erase __fish_on_interactive\nemit fish_prompt\nemit fish_preexec claude",
}
#: Work that waits for zsh's prompt: whether zsh-defer has tasks, and the functions that `zle -F` would call.
_WAITING = (
    '"${${_zsh_defer_tasks[*]-}:+1}"',
    '"$(zle -FL 2>/dev/null | while read -r __farmhand; do '
    '__farmhand=${__farmhand##* }; functions -- "$__farmhand" "${${widgets[$__farmhand]-}#user:}"; done)"',
)
#: With these arguments the real CLI, even if called by an alias, only reports which account would be billed.
ARGUMENTS = "auth status --json"
#: Words whose definitions are queried, since an alias or a function may override them.
DEFINED = ("claude", "claude-cheap", "farmhand")
_DEFINITION = {False: '"$(command -V {} 2>/dev/null)"', True: '"$(type -t {} 2>/dev/null)"'}
#: fish expands an abbreviation only when typed at a prompt, so it is looked up.
_FISH_TYPED = """\
set -l __farmhand claude
set -l __farmhand_abbr (abbr --show 2>/dev/null | string match -r -- \
    '^abbr -a (?:--position command )?(?:-U )?-- claude (.*)$')
set -q __farmhand_abbr[2]; and eval "set __farmhand $__farmhand_abbr[2]"
eval "$__farmhand {arguments}"
"""


@dataclass(frozen=True)
class Kind:
    """One shell in one mode."""

    shell: str
    mode: str
    program: str

    @property
    def name(self) -> str:
        """Return the name, such as `zsh login interactive`."""
        return f"{self.shell} {self.mode}"

    def argv(self, bin_dir: Path, *, traced: bool) -> list[str]:
        """Return the shell's argv as in a terminal, with the typed commands. `bin_dir` has the stand-in for claude."""
        login, interactive = MODES[self.mode]
        fish = self.shell == "fish"
        at = shlex.quote(str(bin_dir))
        told = [_DEFINITION[fish].format(name) for name in DEFINED] + [*(_WAITING if self.shell == "zsh" else ())]
        typed = [
            _HOOKS.get(self.shell, "") if interactive else "",
            f"set -gx PATH {at} $PATH" if fish else f'PATH={at}:"$PATH"; export PATH; hash -r',
            f"{at}/farmhand-before {' '.join(told)}",
            (_FISH_TYPED if fish and interactive else "claude {arguments}").format(arguments=ARGUMENTS),
            f"{at}/farmhand-after",
        ]
        trace = ["-x"] if traced and not fish else []
        return [self.shell, *trace, f"-{'l' * login}{'i' * interactive}c", "\n".join(typed)]

    def tracing(self) -> dict[str, str]:
        """Return the environment that makes the shell trace its commands with file and line."""
        if self.shell == "fish":
            return {"fish_trace": "1"}
        own = {"BASH_XTRACEFD": str(TRACE_FD)} if self.shell == "bash" else {}
        return {"PS4": _PS4[self.shell], **own}


def own_files(shell: str, home: Path, environ: Mapping[str, str]) -> list[Path]:
    """Return the shell's start-up files that exist in this home."""
    named = environ.get({"zsh": "ZDOTDIR", "fish": "XDG_CONFIG_HOME"}.get(shell, ""))
    usual = home / ".config" if shell == "fish" else home
    found = [base / name for base in ([Path(named)] if named else []) + [usual] for name in _OWN[shell]]
    if shell == "sh" and environ.get("ENV"):
        found.append(Path(os.path.expanduser(environ["ENV"].replace("$HOME", str(home)))))
    return [path for path in dict.fromkeys(found) if path.exists()]


def _has_commands(path: Path) -> bool:
    """Return whether a system file, or one in a system directory, contains more than comments.

    A shell with nothing to read is not asked: fish would create files in a home that never used it.
    """
    if path.is_dir():
        return any(_has_commands(each) for each in path.rglob("*") if each.is_file())
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return path.exists()
    return any(line.strip() and not line.lstrip().startswith(b"#") for line in lines)


def to_ask(home: Path, environ: Mapping[str, str], login_shell: str, root: Path) -> list[Kind]:
    """Return the kinds of installed shells with start-up files, those of the operator's own shell first."""
    usual = Path(login_shell).name
    path = environ.get("PATH") or os.defpath
    found = []
    for shell in sorted(SHELLS, key=lambda shell: shell != usual):
        given = login_shell if shell == usual and os.access(login_shell, os.X_OK) else None
        program = given or shutil.which(shell, path=path) or shutil.which(shell)
        system = any(_has_commands(root / name) for name in _SYSTEM[shell])
        if program and (system or own_files(shell, home, environ)):
            found += [Kind(shell, mode, os.path.abspath(program)) for mode in MODES]
    return found
