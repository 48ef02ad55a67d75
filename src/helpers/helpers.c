// SPDX-License-Identifier: GPL-2.0-only
/*
 * Inline functions and macros cannot be called from Rust: each function here wraps one of them, or
 * a few where a call for each would cost too much. bindgen drops the prefix `rust_helper_`; the
 * names begin with `wg_`, so that they differ from those of the kernel's rust/helpers.
 *
 * Sorted alphabetically.
 */

#include "../bindings/bindings_helper.h"

/* As in the kernel's rust/helpers. bindgen leaves inline functions out. */
#ifdef __BINDGEN__
#define __rust_helper
#else
#define __rust_helper __always_inline
#endif

#include "crypto.c"
#include "genetlink.c"
#include "mm.c"
#include "module.c"
#include "namespace.c"
#include "netdevice.c"
#include "skbuff.c"
#include "sync.c"
#include "time.c"
#include "trace.c"
#include "udp_tunnel.c"
