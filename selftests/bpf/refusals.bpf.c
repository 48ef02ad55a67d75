// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counts what the module's tracepoint tells of, by reason: messages and packets in all, and those
 * of them that are a peer's.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct counts {
	__u64 all;
	__u64 of_peers;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct counts);
} refusals SEC(".maps");

SEC("raw_tracepoint")
int refused(struct bpf_raw_tracepoint_args *context)
{
	__u32 reason = context->args[3], count = context->args[7];
	struct counts *counts = bpf_map_lookup_elem(&refusals, &reason);

	if (!counts)
		return 0;
	__sync_fetch_and_add(&counts->all, count);
	if (context->args[1])
		__sync_fetch_and_add(&counts->of_peers, count);
	return 0;
}
