# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034
# Shared by the other scripts: paths, messages, how to enter the rootfs. To be sourced.

TREE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE=${WGRS_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/wireguard_rs}
ROOT=${WGRS_ROOT:-$CACHE/root}     # the Debian 13 rootfs: for builds and for guests
LOGS=$CACHE/log
KERNEL_SERIES="7.3"                # kernel series that the module is for, the newest last

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }

# die WHAT [WHAT-TO-DO]: ends the script with an error message.
die() {
    printf '%s: %s\n' "$(basename -- "$0")" "$1" >&2
    [ -z "${2:-}" ] || printf '  what to do: %s\n' "$2" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || die "this needs root (mounts, chroot, package installation in $CACHE)" \
        "run it as root, for example: sudo make ${MAKE_TARGET:-demo}"
}

# private_mounts "$0" "$@": runs the calling script again in its own mount namespace, so that its
# mounts vanish with it, however it ends.
private_mounts() {
    if [ -z "${WGRS_PRIVATE:-}" ]; then
        WGRS_PRIVATE=1 exec unshare --mount --propagation private "$@"
    fi
    unset WGRS_PRIVATE
}

# mount_root: mounts what a program inside the rootfs needs. Only after private_mounts.
# The checkout is at /wgrs, in the rootfs and in the guest.
mount_root() {
    exec 9>"$ROOT.lock"             # scripts/setup replaces the rootfs only while nobody uses it
    flock -s 9
    mkdir -p "$ROOT/wgrs" "$ROOT/out" "$ROOT/cache"
    mount --rbind /dev "$ROOT/dev"
    mount -t proc proc "$ROOT/proc"
    mount --bind "$TREE" "$ROOT/wgrs"
}

# versions: the kernel and the tools in use, in one line.
versions() {
    sed -n 's/^VERSION=/kernel /p; s/^TOOLS=//p' "$ROOT/.wgrs" 2>/dev/null |
        paste -s -d , | sed 's/,/, /g'
}

# kernel_version: the release of the stock kernel in the rootfs (the newest, if there are several).
kernel_version() {
    local image
    image=$(find "$ROOT/boot" -maxdepth 1 -name 'vmlinuz-*' 2>/dev/null | sort -V | tail -n 1)
    [ -n "$image" ] || die "no kernel image in $ROOT/boot" "run scripts/setup"
    printf '%s\n' "${image##*/vmlinuz-}"
}

# supported KERNEL: the module is for kernels of its series.
supported() {
    local series
    for series in $KERNEL_SERIES; do
        if [[ $1 == "$series".* ]]; then return 0; fi
    done
    return 1
}

# need_setup: makes sure that there is a complete rootfs. One named by WGRS_ROOT is used as it is.
need_setup() {
    [ -n "${WGRS_ROOT:-}" ] || "$TREE/scripts/setup"
    [ -d "$ROOT/boot" ] || die "no rootfs at $ROOT" "run scripts/setup"
}

# made_from FILE INPUT...: what FILE is, and what the sources below INPUT are that it is built from
# in the rootfs. (Cargo goes by the times of files, which a new checkout changes.)
made_from() {
    {
        sha256sum "$1" || true
        sed -n 's/^TOOLS=//p' "$ROOT/.wgrs" || true
        shift
        find "$@" -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.lock' -o -name '*.c' \
            -o -name '*.h' -o -name '*.md' -o -name '*.service' \) ! -name bindings_generated.rs \
            -print0 | sort -z | xargs -0 sha256sum
    } 2>/dev/null | sha256sum | cut -c 1-16
}
# build_once FILE INPUT... -- COMMAND...: builds FILE with the command, unless it is there and was
# built so from the same sources.
build_once() {
    local file=$1 from=()
    while [ "$1" != -- ]; do from+=("$1"); shift; done
    shift
    if [ -e "$file" ] && [ "$(cat "$file.made" 2>/dev/null)" = "$(made_from "${from[@]}")" ]; then
        say "$file is there already"
        return 0
    fi
    mkdir -p "$(dirname -- "$file")"
    rm -f "$file.made"
    "$@" && made_from "${from[@]}" >"$file.made"
}

# seconds COMMAND...: runs it, with its exit code; SECONDS_TAKEN is how long it took.
seconds() {
    local start tenths code=0
    start=$(date +%s%N)
    "$@" || code=$?
    tenths=$((($(date +%s%N) - start) / 100000000))
    SECONDS_TAKEN=$((tenths / 10)).$((tenths % 10))
    return "$code"
}

# count_ktap LOG: prints "PASSED FAILED", of the top-level results; a result that the plan promised
# and that is missing counts as failed.
count_ktap() {
    awk '/^1\.\.[0-9]+/ { plan += substr($1, 4) }
         /^ok [0-9].* # SKIP/ { bad++; next }      # no test may be skipped
         /^ok [0-9]/ { ok++ }   /^not ok [0-9]/ { bad++ }
         END { if (plan > ok + bad) bad = plan - ok; print ok + 0, bad + 0 }' "$1"
}
