// SPDX-License-Identifier: GPL-2.0-only
/* Gives GSO packets an unknown IP protocol, so that software segmentation of them fails. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

/* 253 and 254 are reserved for experimentation (RFC 3692). */
#define PROTOCOL 253

SEC("tc")
int spoil(struct __sk_buff *skb)
{
	__u8 first, protocol = PROTOCOL;

	/* The device has no link-layer header: the packet starts with the IP header. */
	if (skb->gso_size && !bpf_skb_load_bytes(skb, 0, &first, 1))
		bpf_skb_store_bytes(skb, first >> 4 == 6 ? 6 : 9, &protocol, 1, 0);
	return TC_ACT_UNSPEC;
}
