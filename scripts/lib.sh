# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
# Shared by the scripts beside it: where things are, how to speak, how to enter the root folder.
# Source it; it runs nothing.

TREE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE=${WGRS_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/wireguard_rs}
ROOT=${WGRS_ROOT:-$CACHE/root}     # the Debian 13 folder: build root and guest root in one
LOGS=$CACHE/log
KERNEL_SERIES=7.3                  # Debian's stock kernel of trixie-backports, newest 7.3.x

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }

# die WHAT [WHAT-TO-DO]: ends the script with a plain message.
die() {
    printf '%s: %s\n' "$(basename -- "$0")" "$1" >&2
    [ -z "${2:-}" ] || printf '  what to do: %s\n' "$2" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || die "this needs root (mounts, chroot, package installation in $CACHE)" \
        "run it as root, for example: sudo make ${MAKE_TARGET:-demo}"
}

# private_mounts "$@": runs the calling script again in a mount namespace of its own, so that every
# mount it makes ends with it, however it ends. Call it as: private_mounts "$0" "$@"
private_mounts() {
    if [ -z "${WGRS_PRIVATE:-}" ]; then
        WGRS_PRIVATE=1 exec unshare --mount --propagation private "$@"
    fi
    unset WGRS_PRIVATE
}

# mount_root: what a program inside the root folder needs. Only within private_mounts.
# The checkout appears at /wgrs; that path is the same in the build root and in the guest.
mount_root() {
    exec 9>"$ROOT.lock"             # the set-up replaces the folder only when nobody is in it
    flock -s 9
    mkdir -p "$ROOT/wgrs" "$ROOT/out" "$ROOT/cache"
    mount --rbind /dev "$ROOT/dev"
    mount -t proc proc "$ROOT/proc"
    mount --bind "$TREE" "$ROOT/wgrs"
}

# versions: what is in use, one line.
versions() {
    sed -n 's/^VERSION=/kernel /p; s/^TOOLS=//p' "$ROOT/.wgrs" 2>/dev/null | paste -s -d , | sed 's/,/, /g'
}

# kernel_version: the stock kernel of the root folder (the newest one, if there are more).
kernel_version() {
    local image
    image=$(find "$ROOT/boot" -maxdepth 1 -name 'vmlinuz-*' 2>/dev/null | sort -V | tail -n 1)
    [ -n "$image" ] || die "no kernel image in $ROOT/boot" "run scripts/setup"
    printf '%s\n' "${image##*/vmlinuz-}"
}

# need_setup: a finished root folder, made now if there is none (or another one is called for with WGRS_ROOT).
need_setup() {
    [ -n "${WGRS_ROOT:-}" ] || "$TREE/scripts/setup"
    [ -d "$ROOT/boot" ] || die "no root folder at $ROOT" "run scripts/setup"
}

# seconds COMMAND...: how long it took, in SECONDS_TAKEN; its exit code is kept.
seconds() {
    local start code=0
    start=$(date +%s%N)
    "$@" || code=$?
    SECONDS_TAKEN=$(($(date +%s%N) - start))
    SECONDS_TAKEN=$(printf '%d.%d' $((SECONDS_TAKEN / 1000000000)) $((SECONDS_TAKEN / 100000000 % 10)))
    return "$code"
}

# count_ktap LOG: "passed failed" of the top-level results; those that the plan promised and that never came are failures.
count_ktap() {
    awk '/^1\.\.[0-9]+/ { plan += substr($1, 4) }
         /^ok [0-9].* # SKIP/ { bad++; next }      # a check that was not made
         /^ok [0-9]/ { ok++ }   /^not ok [0-9]/ { bad++ }
         END { if (plan > ok + bad) bad = plan - ok; print ok + 0, bad + 0 }' "$1"
}
