/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The C headers that bindgen reads; bindgen_parameters lists what it takes from them.
 *
 * Constants that are not plain integer literals to the preprocessor are repeated here as
 * RUST_CONST_HELPER_<NAME>; Rust sees them as <NAME>.
 *
 * Sorted alphabetically.
 */

#include <crypto/blake2s.h>
#include <crypto/chacha.h>
#include <crypto/chacha20poly1305.h>
#include <crypto/curve25519.h>
#include <crypto/poly1305.h>
#include <crypto/utils.h>
#include <linux/bottom_half.h>
#include <linux/cpumask.h>
#include <linux/dynamic_debug.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/notifier.h>
#include <linux/printk.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/rtnetlink.h>
#include <linux/siphash.h>
#include <linux/skbuff.h>
#include <linux/spinlock.h>
#include <linux/suspend.h>
#include <linux/timekeeping.h>
#include <linux/timer.h>
#include <linux/workqueue.h>
#include <net/dst_cache.h>
#include <net/genetlink.h>
#include <net/net_namespace.h>
#include <net/rtnetlink.h>
#include <net/udp_tunnel.h>

/* `__GFP_*` carry the sparse annotation `__force`, which hides them from bindgen. */
static const gfp_t RUST_CONST_HELPER_GFP_ATOMIC = GFP_ATOMIC;
static const gfp_t RUST_CONST_HELPER_GFP_KERNEL = GFP_KERNEL;
static const gfp_t RUST_CONST_HELPER_GFP_NOFAIL = __GFP_NOFAIL;
static const u8 RUST_CONST_HELPER_GENL_MCAST_CAP_NET_ADMIN = GENL_MCAST_CAP_NET_ADMIN;
