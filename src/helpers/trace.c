// SPDX-License-Identifier: GPL-2.0-only

/* bindgen needs the prototypes only. */
#ifndef __BINDGEN__
#define CREATE_TRACE_POINTS
#endif
#include "trace.h"

__rust_helper void rust_helper_wg_trace_refused(const struct net_device *dev, u64 peer,
						const u8 *public_key, u32 reason, const char *name,
						u32 name_len, const struct sk_buff *skb, u32 count)
{
	trace_wg_refused(dev, peer, public_key, reason, name, name_len, skb, count);
}
