// SPDX-License-Identifier: GPL-2.0
/* Makes packets of segments such that they cannot be taken apart: of a protocol that nobody knows. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

/* For experiments. */
#define PROTOCOL 253

SEC("tc")
int spoil(struct __sk_buff *skb)
{
	__u8 first, protocol = PROTOCOL;

	/* The device has no header of its own: the packet begins with that of IP. */
	if (skb->gso_size && !bpf_skb_load_bytes(skb, 0, &first, 1))
		bpf_skb_store_bytes(skb, first >> 4 == 6 ? 6 : 9, &protocol, 1, 0);
	return TC_ACT_UNSPEC;
}
