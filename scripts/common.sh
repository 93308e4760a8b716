# Shared by the scripts beside it. Source it, do not run it.
# shellcheck shell=bash
# shellcheck disable=SC2034 # ROOT and CACHE are for whoever sources this

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=$ROOT/.cache
export ROOT CACHE

say() { printf '%s\n' "$*" >&2; }

# One line that says what is missing and what to do; then the end.
die() {
    say "${0##*/}: $*"
    exit 3
}

have() { command -v "$1" >/dev/null 2>&1; }

may_install() { [ "$(id -u)" -eq 0 ] && have apt-get; }

# logged LOG COMMAND...: all that the command says goes to the log. On a terminal, a line shows how long it runs and the log's end.
logged() {
    local log=$1 began=$SECONDS pid said
    shift
    if [ ! -t 2 ]; then
        "$@" </dev/null >>"$log" 2>&1
        return
    fi
    "$@" </dev/null >>"$log" 2>&1 &
    pid=$!
    trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
    while kill -0 "$pid" 2>/dev/null; do
        said=$(tail -n 1 "$log" 2>/dev/null || :)
        printf '\r\033[K%4d s  %.66s' $((SECONDS - began)) "${said//[^[:print:]]/}" >&2
        sleep 0.5
    done
    trap - INT TERM
    printf '\r\033[K' >&2
    wait "$pid"
}

_apt() {
    DEBIAN_FRONTEND=noninteractive logged "$CACHE/apt.log" apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -q "$@"
}

# install_packages WHY PACKAGE...: by apt where this user may; elsewhere the one line that says what to install.
install_packages() {
    local why=$1
    shift
    may_install || die "missing: $why. Install it (Debian or Ubuntu: apt-get install ${*}), or run this as root there"
    mkdir -p "$CACHE"
    say "Installing $* (log: .cache/apt.log)"
    # Package lists may be absent (a container image) or too old to fetch from: refresh them once when the first try fails.
    _apt install -y --no-install-recommends "$@" && return
    _apt update || die "apt-get update failed, so $* could not be installed: see the end of $CACHE/apt.log"
    _apt install -y --no-install-recommends "$@" || die "apt-get install $* failed: see the end of $CACHE/apt.log"
}

# need COMMAND PACKAGE: the command, installed when it is missing.
need() {
    have "$1" || install_packages "$1" "$2"
}
