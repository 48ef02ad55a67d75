// SPDX-License-Identifier: GPL-2.0-only
/* Lets every frame pass, and counts them, and those longer than Ethernet's. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

#define LONGEST 1514

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

static __always_inline void count(__u32 n, int is)
{
	__u64 *value = bpf_map_lookup_elem(&counts, &n);

	if (value && is)
		__sync_fetch_and_add(value, 1);
}

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	count(0, 1);
	count(1, ctx->data_end - ctx->data > LONGEST);
	return XDP_PASS;
}
