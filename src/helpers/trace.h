/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints. Trace programs see the arguments of TP_PROTO, or the fields by the names below.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM wireguard_rs

#if !defined(WGRS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define WGRS_TRACE_H

#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/tracepoint.h>

#define WGRS_KEY_LEN 32

/*
 * Messages, or packets to be sent, were refused or lost. `peer` is 0 and `public_key` NULL if they
 * are no peer's, `skb` is NULL if there is no packet. `reason` is the attribute type of the reason
 * in the netlink family, `name` its name, which no zero ends.
 */
TRACE_EVENT(wg_refused,

	TP_PROTO(const struct net_device *dev, u64 peer, const u8 *public_key, u32 reason,
		 const char *name, u32 name_len, const struct sk_buff *skb, u32 count),

	TP_ARGS(dev, peer, public_key, reason, name, name_len, skb, count),

	TP_STRUCT__entry(
		__string(dev, dev->name)
		__string_len(name, name, name_len)
		__array(u8, public_key, WGRS_KEY_LEN)
		__field(u64, peer)
		__field(const void *, skbaddr)
		__field(int, ifindex)
		__field(u32, reason)
		__field(u32, count)
		__field(u32, len)
	),

	TP_fast_assign(
		__assign_str(dev);
		__assign_str(name);
		if (public_key)
			memcpy(__entry->public_key, public_key, WGRS_KEY_LEN);
		else
			memset(__entry->public_key, 0, WGRS_KEY_LEN);
		__entry->peer = peer;
		__entry->skbaddr = skb;
		__entry->ifindex = dev->ifindex;
		__entry->reason = reason;
		__entry->count = count;
		__entry->len = skb ? skb->len : 0;
	),

	TP_printk("dev=%s peer=%llu public_key=%s reason=%s count=%u skbaddr=%p len=%u",
		  __get_str(dev), __entry->peer,
		  __print_hex_str(__entry->public_key, WGRS_KEY_LEN), __get_str(name),
		  __entry->count, __entry->skbaddr, __entry->len)
);

#endif /* WGRS_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
