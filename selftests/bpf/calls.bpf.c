// SPDX-License-Identifier: GPL-2.0-only
/* Counts function entries: one program, attached once per function; the cookie is the index. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} calls SEC(".maps");

SEC("kprobe")
int entered(void *context)
{
	__u32 n = bpf_get_attach_cookie(context);
	__u64 *count = bpf_map_lookup_elem(&calls, &n);

	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}
