// SPDX-License-Identifier: GPL-2.0

#include <linux/skbuff.h>
#include <net/dst.h>
#include <net/dst_metadata.h>
#include <net/gso.h>
#include <net/inet_ecn.h>

void rust_helper_wg_skb_dst_drop(struct sk_buff *skb)
{
	skb_dst_drop(skb);
}

void rust_helper_wg_skb_orphan(struct sk_buff *skb)
{
	skb_orphan(skb);
}

struct sk_buff *rust_helper_wg_skb_share_check(struct sk_buff *skb)
{
	return skb_share_check(skb, GFP_ATOMIC);
}

/* The MTU of the packet's route; 0 without a route. A metadata dst has none either. */
u32 rust_helper_wg_skb_dst_mtu(const struct sk_buff *skb)
{
	return skb_valid_dst(skb) ? dst_mtu(skb_dst(skb)) : 0;
}

struct sk_buff *rust_helper_wg_skb_gso_segment(struct sk_buff *skb)
{
	return skb_gso_segment(skb, 0);
}

/*
 * Gives the caller a linear buffer of its own: nobody else sees the data, and at least `headroom`
 * bytes before and `tailroom` bytes behind it can be written. At most one reallocation.
 */
int rust_helper_wg_skb_make_private(struct sk_buff *skb, unsigned int headroom,
				    unsigned int tailroom)
{
	unsigned int front = skb_headroom(skb), end = skb->end - skb->tail;
	unsigned int grow_front = 0, grow_end = 0;

	if (front < headroom)
		grow_front = ALIGN(headroom - front, NET_SKB_PAD);
	if (check_add_overflow(tailroom, skb->data_len, &tailroom))
		return -EMSGSIZE;
	if (end < tailroom)
		grow_end = tailroom - end;
	if (skb_cloned(skb) || grow_front || grow_end) {
		int ret = pskb_expand_head(skb, grow_front, grow_end, GFP_ATOMIC);

		if (ret)
			return ret;
	}
	return skb_linearize(skb);
}

/*
 * What has to happen to a packet before it is encrypted: the flow hash is taken from the headers
 * while they can be read, the buffer made private, with room for what encryption adds, and a
 * checksum that was left to the device is filled in.
 */
int rust_helper_wg_skb_prepare_seal(struct sk_buff *skb, unsigned int headroom,
				    unsigned int tailroom)
{
	int ret;

	skb_get_hash(skb);
	ret = rust_helper_wg_skb_make_private(skb, headroom, tailroom);
	if (ret || skb->ip_summed != CHECKSUM_PARTIAL)
		return ret;
	return skb_checksum_help(skb);
}

/*
 * Makes the buffer look as if it had been allocated just now, with the packet that it holds: no
 * device, route, mark, connection or checksum state of the packet that was wrapped or unwrapped,
 * which may belong to another namespace. All headers start at the data.
 *
 * A packet on its way out keeps its flow hash, for queueing disciplines, and the clock of its
 * delivery time.
 */
void rust_helper_wg_skb_renew(struct sk_buff *skb, bool outgoing)
{
	const u16 alloc_cpu = skb->alloc_cpu;
	const u32 hash = outgoing ? skb->hash : 0;
	const bool l4_hash = outgoing && skb->l4_hash;
	const bool sw_hash = outgoing && skb->sw_hash;
	const u8 tstamp_type = outgoing ? skb->tstamp_type : 0;

	skb_scrub_packet(skb, true);
	memset(&skb->headers, 0, sizeof(skb->headers));
	skb->alloc_cpu = alloc_cpu;
	skb->hash = hash;
	skb->l4_hash = l4_hash;
	skb->sw_hash = sw_hash;
	skb->tstamp_type = tstamp_type;

	skb->dev = NULL;
	skb->queue_mapping = 0;
	skb->nohdr = 0;
	skb->peeked = 0;
	skb->mac_len = 0;
	skb->hdr_len = skb_headroom(skb);
	skb_reset_mac_header(skb);
	skb_reset_network_header(skb);
	skb_reset_transport_header(skb);
	skb_reset_inner_headers(skb);
}

/*
 * Hands a decrypted packet to `dev`: it authenticated as a whole, so that every checksum in it
 * counts as verified.
 */
void rust_helper_wg_skb_mark_received(struct sk_buff *skb, struct net_device *dev,
				      __be16 protocol)
{
	skb->dev = dev;
	skb->protocol = protocol;
	skb->ip_summed = CHECKSUM_UNNECESSARY;
	skb->csum_level = ~0;
}

/* Marks a packet that knows of congestion notification: CE, or ECT(1). */
int rust_helper_wg_skb_set_ecn(struct sk_buff *skb, bool congested)
{
	return congested ? INET_ECN_set_ce(skb) : INET_ECN_set_ect1(skb);
}

void rust_helper_wg_skb_set_dev(struct sk_buff *skb, struct net_device *dev)
{
	skb->dev = dev;
}

void rust_helper_wg_skb_set_inner_network_header(struct sk_buff *skb)
{
	skb_set_inner_network_header(skb, 0);
}

bool rust_helper_wg_skb_is_gso(const struct sk_buff *skb)
{
	return skb_is_gso(skb);
}
