"""The stand-ins on PATH while the shells are asked: one for `claude`, and one for each program that gives out secrets.

A program that gives out secrets, or is slow, is run once per round of queries: the next shell that calls it with the
same arguments gets the same answer. So a password manager asks for its master password, or a fingerprint, once.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from .kinds import ARGUMENTS
from .names import WATCHED

#: Password managers, keychains, decryption tools, and programs that read project files.
ASKED_ONCE = (
    *("security", "op", "pass", "passage", "gopass", "rbw", "bw", "bws", "lpass", "secret-tool", "keyring"),
    *("kwallet-query", "keepassxc-cli", "envchain", "pinentry", "age", "rage", "sops", "gpg", "gpg2", "ykman"),
    *("vault", "doppler", "infisical", "chamber", "aws-vault", "dashlane", "dcli", "proton-pass", "enpass-cli"),
    *("direnv", "mise", "rtx"),
)

#: The stand-ins mark each section of their output; without `whole` after an environment it may be truncated.
_CLAUDE = """\
#!/bin/sh
case "$*" in *{arguments}) said=typed ;; *) said=other ;; esac
{{ printf '\\000\\000%s\\n' "$said"; {env} -0; printf '\\000\\000whole\\n'; }} >{answers}
"""
_BEFORE = """\
#!/bin/sh
{{
    printf '\\000\\000before\\n'
    {env} -0
    for each do printf 'FARMHAND_DEFINITION=%s\\000' "$each"; done
    printf '\\000\\000whole\\n'
}} >{answers}
printf %s {mark}
"""
_AFTER = """\
#!/bin/sh
printf '\\000\\000end\\n' >{answers}
"""
#: Reports where a variable is set.
_FISH_EVENT = """\
function __farmhand_{name} --on-variable {name}
    printf '\\n\\x1d{name}\\x1f%s\\n' (status stack-trace | string join \\x1e) >&2
end"""
#: A call that runs the operator's command or writes a file is never cached. A call that reads stdin, judged by the
#: program and without a file among its arguments, is also keyed by the content of stdin.
_ONCE = """\
#!/bin/sh
name=${{0##*/}} real= before=$IFS
IFS=:
for each in $PATH; do
    case $each in {scripts}/*) continue ;; esac
    if [ -f "$each/$name" ] && [ -x "$each/$name" ]; then real=$each/$name; break; fi
done
IFS=$before
[ -n "$real" ] || case $name in
{known}
esac
file=
for each do
    case $each in
    --|run|exec|shell|x|-o|--out-file*|--output*) exec "$real" "$@" ;;
    hook|activate) # what the prompt runs later is to come here as well
        "$real" "$@" | sed "s|$real|$0|g; s|$(readlink -f "$real")|$0|g"
        exit
        ;;
    esac
    [ ! -f "$each" ] || file=$each
done
feeds=
if [ -f /dev/stdin ]; then
    feeds=$(cksum </dev/stdin)
elif [ -z "$file" ] && [ -p /dev/stdin ]; then
    case "$name $*" in
    gpg*|age*|rage*|sops*|keepassxc-cli*|*inject*)
        cat >{cache}/fed.$$
        exec <{cache}/fed.$$
        feeds=$(cksum <{cache}/fed.$$)
        ;;
    esac
fi
words=$(printf '%s\\n' "$@" | sed '/^--shell-pid$/{{N;d;}}') # mise names the shell that asks
slot={cache}/$(printf '%s\\n' "$name" "$PWD" "$feeds" "$words" | cksum | tr ' ' -)
if mkdir "$slot" 2>/dev/null; then
    echo $$ >"$slot/pid"
    printf '%s %s\\n' "$name" "$(printf %s "$words" | tr '\\n' ' ')" >"$slot/command"
    "$real" "$@" >"$slot/out"
    echo $? >"$slot/ended" && mv "$slot/ended" "$slot/status"
fi
while [ ! -f "$slot/status" ]; do
    if [ -s "$slot/pid" ] && ! kill -0 "$(cat "$slot/pid")" 2>/dev/null && [ ! -f "$slot/status" ]; then
        {{ printf '\\000\\000unanswered\\n'; cat "$slot/command"; printf '\\000\\000end\\n'; }} >{answers}
        sleep 60
    fi
    sleep 0.02
done
cat "$slot/out"
exit "$(cat "$slot/status")"
"""


def install(bin_dir: Path, shell: str, scripts: Path, cache: Path, answers: Path, mark: str, path: str) -> None:
    """Write the stand-ins for one kind of shell to `bin_dir`, which is below `scripts`.

    `answers` is the FIFO they write to, `path` the session's PATH. A program that is not on it gets no stand-in, since
    start-up files may test whether it exists.
    """
    found = {name: at for name in ASKED_ONCE if (at := shutil.which(name, path=path))}
    words = {
        "known": "\n".join(f"{name}) real={shlex.quote(at)} ;;" for name, at in found.items()) or "*) ;;",
        "env": shlex.quote(shutil.which("env") or "/usr/bin/env"),
        "answers": shlex.quote(str(answers)),
        "mark": shlex.quote(mark),
        "arguments": shlex.quote(ARGUMENTS),
        "scripts": shlex.quote(str(scripts)),
        "cache": shlex.quote(str(cache)),
    }
    bin_dir.mkdir()
    bin_dir.chmod(0o755)
    texts = {"claude": _CLAUDE, "farmhand-before": _BEFORE, "farmhand-after": _AFTER, **dict.fromkeys(found, _ONCE)}
    for name, script in texts.items():
        (bin_dir / name).write_text(script.format(**words))
        (bin_dir / name).chmod(0o755)


def variables(bin_dir: Path, shell: str, home: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that let a shell load the stand-ins as functions too: a start-up file may reset PATH.

    bash imports functions from its environment. fish loads what a vendor's directory has, which is written here: the
    functions, and event handlers that report where a variable is set.
    """
    paths = {name: shlex.quote(str(bin_dir / name)) for name in ASKED_ONCE if (bin_dir / name).exists()}
    if shell == "bash":
        return {f"BASH_FUNC_{name}%%": f'() {{ {path} "$@"; }}' for name, path in paths.items()}
    if shell != "fish":
        return {}
    was = environ.get("XDG_DATA_DIRS")
    lines = [f"set -gx XDG_DATA_DIRS {shlex.quote(was)}" if was is not None else "set -e XDG_DATA_DIRS"]
    lines += ["set -g --unexport fish_trace 1", *(_FISH_EVENT.format(name=name) for name in WATCHED)]
    texts = {
        f"vendor_functions.d/{name}.fish": f"function {name}\n    {path} $argv\nend\n" for name, path in paths.items()
    }
    for name, text in {**texts, "vendor_conf.d/00-farmhand.fish": "\n".join(lines) + "\n"}.items():
        file = bin_dir / "data/fish" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    own: dict[str, str] = {}
    if not any((home / each).exists() for each in (".config/fish", ".local/share/fish")):
        # Keep fish from creating its directories in a home that has none.
        names = {"XDG_CONFIG_HOME", "XDG_DATA_HOME"} - set(environ)
        own = dict.fromkeys(names, str(bin_dir / "fish"))
    return {**own, "XDG_DATA_DIRS": f"{bin_dir}/data:{was or '/usr/local/share:/usr/share'}"}


def asked(cache: Path) -> list[str]:
    """Return the commands that were run, each once."""
    paths = sorted(cache.glob("*/command"), key=lambda path: path.stat().st_mtime_ns)
    return [path.read_text("utf-8", "replace").split("\n")[0].strip() for path in paths]


def clean(
    environ: Mapping[str, str], given: Mapping[str, str], session: Mapping[str, str], scripts: Path
) -> dict[str, str]:
    """Return a recorded environment without the variables that were added to the session's for the query."""
    kept = {n: v for n, v in environ.items() if given.get(n) != v and n != "FARMHAND_DEFINITION"}
    kept |= {n: session[n] for n, v in environ.items() if given.get(n) == v and n in session}
    if "PATH" in kept:
        kept["PATH"] = ":".join(each for each in kept["PATH"].split(":") if not each.startswith(f"{scripts}{os.sep}"))
    return kept
