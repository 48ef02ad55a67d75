// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which skb fields survive from one interface to another: one tc program sets them, another checks
 * which are still set. The values and the order of the counters are those of
 * src/harness/bpf/stain.rs.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

#define MARK 0x51a10001
#define PRIORITY 0x51a20002
#define TC_INDEX 0x51a3
#define QUEUE 0x51
#define HASH 0x51a40004

/* Longer than a frame with a handshake message, which is not made from a stained packet. */
#define LONG 200

enum {
	STAINED,
	SEEN,
	WITH_MARK,
	WITH_PRIORITY,
	WITH_TC_INDEX,
	WITH_QUEUE,
	WITH_HASH,
	OTHER_MARK,
	COUNTS,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

static __always_inline void count(__u32 n, int is)
{
	__u64 *value = bpf_map_lookup_elem(&counts, &n);

	if (value && is)
		__sync_fetch_and_add(value, 1);
}

SEC("tc")
int stain(struct __sk_buff *skb)
{
	/* volatile: the verifier rejects a store that covers two fields. */
	volatile struct __sk_buff *fields = skb;

	fields->mark = MARK;
	fields->priority = PRIORITY;
	fields->tc_index = TC_INDEX;
	fields->queue_mapping = QUEUE;
	bpf_set_hash(skb, HASH);
	count(STAINED, skb->len > LONG);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int look(struct __sk_buff *skb)
{
	if (skb->len <= LONG)
		return TC_ACT_UNSPEC;
	count(SEEN, 1);
	count(WITH_MARK, skb->mark == MARK);
	count(WITH_PRIORITY, skb->priority == PRIORITY);
	count(WITH_TC_INDEX, skb->tc_index == TC_INDEX);
	count(WITH_QUEUE, skb->queue_mapping == QUEUE);
	count(WITH_HASH, skb->hash == HASH);
	count(OTHER_MARK, skb->mark && skb->mark != MARK);
	return TC_ACT_UNSPEC;
}
