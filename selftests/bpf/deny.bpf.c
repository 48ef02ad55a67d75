// SPDX-License-Identifier: GPL-2.0-only
/* Refuses the messages of a tunnel, as a socket filter of a control group. */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

/* The ports of src/harness/topo.rs. */
#define FIRST 51820
#define LAST 51821

SEC("cgroup_skb/ingress")
int deny(struct __sk_buff *skb)
{
	__u16 port = 0;
	__u8 first = 0, protocol = 0;

	/* The data begins with the IP header, which has no options here. */
	if (bpf_skb_load_bytes(skb, 0, &first, 1))
		return 1;
	bpf_skb_load_bytes(skb, first >> 4 == 6 ? 6 : 9, &protocol, 1);
	if (protocol != 17)
		return 1;
	bpf_skb_load_bytes(skb, first >> 4 == 6 ? 42 : 22, &port, 2);
	port = bpf_ntohs(port);
	return port < FIRST || port > LAST;
}
