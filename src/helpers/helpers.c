// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros of C cannot be called from Rust: each function here wraps one, or a
 * short run of them where a call each would cost too much. bindgen drops the prefix
 * `rust_helper_`. The module's own symbols must not repeat a name of the kernel's rust/helpers.
 *
 * Sorted alphabetically.
 */

#include "../bindings/bindings_helper.h"

#include "crypto.c"
#include "dyndbg.c"
#include "mm.c"
#include "module.c"
#include "namespace.c"
#include "netdevice.c"
#include "skbuff.c"
#include "sync.c"
#include "time.c"
#include "udp_tunnel.c"
