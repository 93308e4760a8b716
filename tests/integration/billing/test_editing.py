"""The module on every home of the data, with real shells, as the operator: what it says is what the shells then do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dotfiles import ONE, TWO, Case, Dotfiles, cases
from tests.support.editing import Module, Operator, contents, copy_library, parses

KEY = "ANTHROPIC_API_KEY"
EXPORT = f"export {KEY}={ONE}\n"
FISH = ".config/fish/config.fish"
#: Beside the given homes, more of the kinds that people's dotfiles show.
OWN = [
    Case("CRLF", {".zshrc": f"A=1\r\n{EXPORT[:-1]}\r\nB=2\r\n"}),
    Case("no final newline", {".bashrc": f"A=1; {EXPORT[:-1]}", ".zshrc": f"A=1\n{EXPORT[:-1]}"}),
    Case("among others", {".bashrc": f"export A=1 {KEY}={ONE} B=2\n", ".zshrc": f"export A=1 {KEY}={ONE} B=2\n"}),
    Case("one line of if and and", {".bashrc": f"if true; then {EXPORT[:-1]}; fi\n[ -d / ] && {EXPORT}"}),
    Case(
        "both exports", {".bashrc": f"{EXPORT}A=1\n{EXPORT}", ".zshenv": EXPORT, ".zshrc": f"[[ -n $B ]] || {EXPORT}"}
    ),
    Case(
        "hidden behind",
        {
            ".bashrc": f": ${{{KEY}:={ONE}}}\nexport {KEY}\n",
            ".zshrc": f"{EXPORT}. ~/.more\n",
            ".more": f'[ -n "${KEY}" ] || export {KEY}={ONE}\n',
        },
    ),
    Case(
        "in a loop of a function",
        {".bashrc": f"g() {{\n  for n in {KEY}; do\n    export $n={ONE}\n  done\n}}\ng\nA=1\n"},
    ),
    Case(
        "read only at the end",
        {".bashrc": "trap 'true' EXIT\n. ~/.secrets\nreturn\n", ".secrets": f"eval 'export {KEY}={ONE}'\n"},
    ),
    Case("here-document", {".bashrc": f"cat >/dev/null <<EOF\n{EXPORT}EOF\n. /dev/stdin <<EOF\n{EXPORT}EOF\nA=1\n"}),
    Case("repos.env by set -a", {".bashrc": "set -a; . ~/repos.env; set +a\n", "repos.env": f"A=1\n{KEY}={ONE}\n"}),
    Case("readonly", {".bashrc": f"declare -rx {KEY}={ONE}\n", ".zshrc": f"typeset -rx {KEY}={ONE}\n"}),
    Case("readonly by eval", {".bashrc": f"eval 'readonly {KEY}={ONE}'; export {KEY}\n"}),
    Case(
        "a hook that sets it again",
        {".zshrc": f"h() {{ eval 'export {KEY}={ONE}' }}\nprecmd_functions+=(h)\nh\n"},
        pty=True,
    ),
    Case("fish: universal again and again", {FISH: f"set -Ux {KEY} {ONE}\n"}),
    Case("fish: global over universal", {FISH: f"eval set -gx {KEY} {TWO}\nset -q X; or eval set -Ux {KEY} {ONE}\n"}),
    Case("fish: function that is called", {FISH: f"function k\n  set -gx $argv[1] {ONE}\nend\nk {KEY}\nset -g A 1\n"}),
    Case("two keys", {".bashrc": EXPORT, ".zshrc": f"export {KEY}={TWO}\n"}),
    Case("an alias beside an export", {".bashrc": f"{EXPORT}alias claude='{KEY}={ONE} claude'\n"}),
    Case("zsh: after jobs of their own", {".zshrc": f"true &!\n{EXPORT}true &|\nexport ANTHROPIC_AUTH_TOKEN={TWO}\n"}),
    Case("exec of another shell", {".bashrc": f"{EXPORT}case $- in *i*) exec zsh -i ;; esac\n", ".zshrc": "A=1\n"}),
]


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Path, Module]]:
    """A directory that every user may enter, and the module that is in it."""
    directory = Path(tempfile.mkdtemp(prefix="editing-"))
    directory.chmod(0o755)
    (directory / "root").mkdir()
    module = Module(copy_library(directory))
    yield directory, module
    module.end()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def operator(request: pytest.FixtureRequest, shared: tuple[Path, Module]) -> Iterator[Operator]:
    common, module = shared
    directory = Path(tempfile.mkdtemp(prefix="h", dir=common))
    directory.chmod(0o755)
    made = Operator(Dotfiles(directory, request.param), module, common / "root")
    made.settle()
    yield made
    made.home.remove()


@pytest.mark.parametrize("operator", [*cases("homes.json"), *OWN], indirect=True, ids=lambda case: case.name)
def test_every_home(operator: Operator) -> None:
    before = operator.snapshot()
    checked = operator.module(write=False)
    assert operator.snapshot() == before, "check mode has written"

    done = operator.module()
    if "refused" in done:
        assert "2 different keys" in done["refused"]
        assert contents(operator.snapshot()) == contents(before)
        return
    after = operator.snapshot()
    changed = {str(operator.home.path / name) for name in after if after[name][:2] != before.get(name, ())[:2]}
    assert changed == set(done["files"])
    # What would be taken back again, check mode cannot foresee.
    assert set(checked["files"]) <= changed or any("was taken back" in left for left in done["left"])
    assert all(parses(Path(path)) for path in done["files"] if Path(path).name not in ("repos.env", "fish_variables"))
    said = {f"{each['shell']} {each['mode']}": each["metered"] for each in done["billing"]["shells"]}
    for shell, mode in operator.kinds():
        if said[f"{shell} {mode}"] is None:
            assert any(f"{shell} {mode}" in left for left in done["left"])
            continue
        reaches = bool(operator.home.truth(shell, mode))
        assert said[f"{shell} {mode}"] == reaches, f"{shell} {mode}: {done['left']}"
        assert not reaches or done["left"], f"{shell} {mode} is metered, and nothing is said to be left"
    for edit in done["edits"]:
        assert any(path in edit for path in done["files"])

    again = operator.module()
    assert not again["changed"]
    assert operator.snapshot() == after, "a second run has written"
    assert again["left"] == done["left"]

    operator.module(absent=True)
    assert contents(operator.snapshot()) == contents(before)
    assert not operator.state.exists()


@pytest.mark.parametrize(
    "operator",
    [
        Case(
            "needed below",
            {
                ".bashrc": f'{EXPORT}export AIDER_KEY="${KEY}"\n',
                ".zshrc": f"{EXPORT}[[ -z ${KEY} ]] && return 1\nexport AIDER_KEY=x\n",
                FISH: f"set -gx {KEY} {ONE}\nset -gx AIDER_KEY ${KEY}\n",
            },
        )
    ],
    indirect=True,
)
def test_what_needs_the_key_in_the_rest_of_the_file_keeps_it(operator: Operator) -> None:
    done = operator.module()
    assert done["left"] == []
    for shell in ("bash", "zsh", "fish"):
        assert operator.home.run([shell, "-ic", "echo $AIDER_KEY"]).strip(), shell
        assert operator.home.truth(shell, "interactive") == {}
    assert any(f"still written in {operator.home.path}/.bashrc:1," in hint for hint in done["hints"])


@pytest.mark.parametrize(
    "operator",
    [Case("a file of its own", {".bashrc": "set -a\n. ~/keys.env\nset +a\n", "keys.env": f"A=1\n{KEY}={ONE}\n"})],
    indirect=True,
)
def test_where_the_key_is_still_written_is_said_of_files_that_stay_too(operator: Operator) -> None:
    done = operator.module()
    path = f"{operator.home.path}/keys.env"
    assert path not in done["files"]
    assert f"the key is still written in {path}:2, which does not reach claude" in done["hints"]
