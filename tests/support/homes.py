"""Homes of operators, by what is peculiar about their shells' start-up files."""

from __future__ import annotations

from textwrap import dedent

ONE = "sk-ant-test-first-0000000000"
TWO = "sk-ant-test-second-000000000"
FISH = ".config/fish/config.fish"
#: Debian's own way: a login shell reads .bashrc through .profile, and .bashrc stops where nobody types.
PROFILE = dedent("""\
    if [ -n "$BASH_VERSION" ]; then
        if [ -f "$HOME/.bashrc" ]; then
    \t. "$HOME/.bashrc"
        fi
    fi
    """)
GUARD = "case $- in\n    *i*) ;;\n      *) return;;\nesac\n"
EXPORT = f"export ANTHROPIC_API_KEY={ONE}\n"
_TOKEN = "export ANTHROPIC_AUTH_TOKEN=t\n"
#: What frameworks for zsh are made of.
_FRAMEWORK = r"""
[[ -z "$NONE" ]] && export HERE="${${(%):-%x}:a:h}"
(( ${fpath[(Ie)"$NONE/completions"]} )) || fpath=("$NONE/completions" $fpath)
is_plugin() {
  builtin test -f $1/plugins/$2/$2.plugin.zsh \
    || builtin test -f $1/plugins/$2/_$2
}
for plugin ($plugins); do
  if is_plugin $CUSTOM $plugin; then fpath=($CUSTOM/plugins/$plugin $fpath); else echo "no '$plugin'"; fi
done
NAME=$(uname -n 2>/dev/null) || NAME=${HOST/.*/}
rev="#revision: $(builtin cd -q "$HERE"; echo one)"
if ! command grep -q x "$NONE" 2>/dev/null \
   || ! command grep -q -Fx "$rev" "$NONE" 2>/dev/null; then
  command true "$NONE"
fi
if (( $refresh )); then
  tee -a /dev/null &>/dev/null <<EOF2

$rev
EOF2
fi
{ sleep 0 } &!
sleep 0 &|
zstyle ':completion:*' matcher-list 'm:{a-zA-Z}={A-Za-z}' 'r:|=*' 'l:|=* r:|=*'
PROMPT='%F{blue}%~%f $(git_prompt_info)%(?..%F{red}) '
precmd() { print -Pn "\e]0;%n@%m: %~\a" }
alias -g L='| less'
case "$TERM" in xterm*|rxvt*) precmd () {print -Pn "x"} ;; esac
source <(echo "true")
for config_file ($CUSTOM/*.zsh(N)); do
  source $config_file
done
"""
HOMES: dict[str, dict[str, str]] = {
    "nothing": {".zshrc": "export EDITOR=vi\n"},
    "plain exports": {
        ".zshrc": EXPORT,
        ".bashrc": EXPORT,
        ".profile": EXPORT,
        FISH: f"set -gx ANTHROPIC_API_KEY {ONE}\n",
    },
    "zsh in every file": {
        ".zshenv": EXPORT,
        ".zprofile": f"export ANTHROPIC_API_KEY={TWO}\n",
        ".zshrc": "unset ANTHROPIC_API_KEY\n",
        ".zlogin": f"typeset -gx ANTHROPIC_AUTH_TOKEN={TWO}\n",
    },
    "zsh elsewhere": {".zshenv": "export ZDOTDIR=$HOME/.config/zsh\n", ".config/zsh/.zshrc": EXPORT},
    "zsh options": {
        ".zshrc": f"setopt allexport\nANTHROPIC_API_KEY={ONE}\nunsetopt allexport\nANTHROPIC_AUTH_TOKEN=x\n"
    },
    "zsh conditions": {
        ".zshenv": f"if [[ -o interactive ]]; then\n  {EXPORT}else\n  {_TOKEN}fi\n",
        ".zshrc": "for f in ~/.zsh.d/*.zsh(N); do source $f; done\n() { local x=1 }\n",
        ".zsh.d/a.zsh": f"[[ $- == *i* ]] && ANTHROPIC_API_KEY={TWO}\n",
    },
    "zsh with a framework": {
        ".zshrc": "plugins=(git)\nCUSTOM=$HOME/custom\nsource ~/framework.zsh\n",
        "framework.zsh": _FRAMEWORK,
        "custom/key.zsh": EXPORT,
    },
    "Debian's bash": {".profile": PROFILE, ".bashrc": GUARD + EXPORT},
    "bash without a guard": {".bash_profile": ". ~/.bashrc\n", ".bashrc": EXPORT, ".profile": _TOKEN},
    "bash_login": {".bash_login": EXPORT, ".profile": _TOKEN},
    "repos.env by set -a": {
        ".bashrc": "set -a; . ~/repos.env; set +a\n",
        "repos.env": f"A=1\nANTHROPIC_API_KEY={ONE}\n",
    },
    "repos.env sourced only": {".bashrc": ". ~/repos.env\n", "repos.env": f"ANTHROPIC_API_KEY={ONE}\n"},
    "repos.env with export": {".zshrc": "source ~/repos.env\n", "repos.env": f"export ANTHROPIC_API_KEY='{ONE}'\n"},
    "unset afterwards": {
        ".bashrc": f"{EXPORT}unset ANTHROPIC_API_KEY\n",
        FISH: f"set -gx ANTHROPIC_API_KEY {ONE}\nset -e ANTHROPIC_API_KEY\n",
    },
    "declared": {
        ".bashrc": f"declare -x ANTHROPIC_API_KEY={ONE}\n"
        "readonly ANTHROPIC_AUTH_TOKEN=t\nexport -n ANTHROPIC_AUTH_TOKEN\n"
    },
    "in two steps": {".bashrc": f"ANTHROPIC_API_KEY={ONE}\nA=1 B=2\nexport A ANTHROPIC_API_KEY\n"},
    "among others": {".bashrc": f'export A=1 ANTHROPIC_API_KEY="{ONE}" B="two words"\n'},
    "continued lines": {".bashrc": f"export A=1 \\\n  ANTHROPIC_API_KEY={ONE} \\\n  B=2\n"},
    "a subshell and a pipe": {".bashrc": f"({EXPORT.strip()})\ntrue | {_TOKEN}"},
    "here-documents": {".bashrc": f"cat >/dev/null <<EOF\n{EXPORT}EOF\ncat >/dev/null <<-'X'\n\t{EXPORT}\tX\n"},
    "quotes and comments": {
        ".bashrc": f"# {EXPORT}: 'export ANTHROPIC_API_KEY={TWO}' \"\nexport ANTHROPIC_API_KEY={TWO}\n\"\n"
    },
    "functions": {".bashrc": f"one() {{ {EXPORT.strip()}; }}\nfunction two {{\n {_TOKEN}}}\none\n"},
    "early return": {".bashrc": f'[ -n "$NO_SUCH" ] || return\n{EXPORT}'},
    "variables": {".bashrc": f"K={ONE}\nexport ANTHROPIC_API_KEY=$K\nexport ANTHROPIC_AUTH_TOKEN=${{T:-t}}\n"},
    "eval": {".bashrc": f"eval '{EXPORT.strip()}'\n"},
    "a case": {".bashrc": f"case linux in\n (mac) {_TOKEN.strip()};;\n lin*|bsd) {EXPORT};;\nesac\n"},
    "loops": {
        ".bashrc": "for n in ANTHROPIC_API_KEY; do\n  export $n\ndone\n"
        f"for v in a {TWO}; do export ANTHROPIC_API_KEY=$v; done\n"
    },
    "alias over claude": {
        ".bashrc": f"alias claude='ANTHROPIC_API_KEY={ONE} claude'\n",
        ".zshrc": f'alias claude="env ANTHROPIC_AUTH_TOKEN=t claude"\n{EXPORT}',
        FISH: f"alias claude='ANTHROPIC_API_KEY={ONE} command claude'\n",
    },
    "function over claude": {
        ".bashrc": f'claude() {{\n  local k={ONE}\n  ANTHROPIC_API_KEY=$k command claude "$@"\n}}\n',
        ".zshrc": f'{EXPORT}claude() {{ (unset ANTHROPIC_API_KEY; command claude "$@") }}\n',
        ".config/fish/functions/claude.fish": f"function claude\n    set -lx ANTHROPIC_API_KEY {ONE}\n"
        "    command claude $argv\nend\n",
    },
    "function that takes it away": {".zshrc": f'{EXPORT}claude() {{ env -u ANTHROPIC_API_KEY claude "$@"; }}\n'},
    "fish conditions": {
        FISH: f"if status is-login\n  set -gx ANTHROPIC_API_KEY {ONE}\n"
        "else if status --is-interactive\n  set -gx ANTHROPIC_AUTH_TOKEN t\nend\n",
        ".config/fish/conf.d/a.fish": f"set -q NO_SUCH; or set -x ANTHROPIC_API_KEY {TWO}\n",
    },
    "fish sources": {
        FISH: "source ~/.config/fish/keys.fish\nfor f in ~/.keys/*.fish\n  source $f\nend\n",
        ".config/fish/keys.fish": f"set --export --global ANTHROPIC_API_KEY '{ONE}'\n",
        ".keys/b.fish": _TOKEN,
    },
    "fish switch and begin": {
        FISH: "switch linux\n  case mac 'bsd*'\n    set -gx ANTHROPIC_AUTH_TOKEN t\n"
        f"  case 'li*'\n    begin\n      set -gx ANTHROPIC_API_KEY {ONE}\n    end\nend\n"
    },
    "fish universal": {
        ".config/fish/fish_variables": "# This file contains fish universal variable definitions.\n# VERSION: 3.0\n"
        f"SETUVAR --export ANTHROPIC_API_KEY:{ONE.replace('-', chr(92) + 'x2d')}\n"
    },
}
