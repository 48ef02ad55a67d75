// SPDX-License-Identifier: GPL-2.0-only

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/skbuff.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/dst.h>
#include <net/dst_metadata.h>
#include <net/gso.h>
#include <net/inet_ecn.h>

/* Inline on kernels without tracepoints. */
__rust_helper void rust_helper_wg_consume_skb(struct sk_buff *skb)
{
	consume_skb(skb);
}

__rust_helper void rust_helper_wg_skb_dst_drop(struct sk_buff *skb)
{
	skb_dst_drop(skb);
}

/* Nor does it keep pages of the sender any longer, if there is memory for a copy. */
__rust_helper void rust_helper_wg_skb_orphan(struct sk_buff *skb)
{
	skb_orphan(skb);
	(void)skb_orphan_frags(skb, GFP_ATOMIC);
}

__rust_helper struct sk_buff *rust_helper_wg_skb_share_check(struct sk_buff *skb)
{
	return skb_share_check(skb, GFP_ATOMIC);
}

/* The MTU of the packet's route; 0 without a route or with a metadata dst. */
__rust_helper u32 rust_helper_wg_skb_dst_mtu(const struct sk_buff *skb)
{
	return skb_valid_dst(skb) ? dst_mtu(skb_dst(skb)) : 0;
}

/* tcp_wfree(), which is not exported; NULL until a segment has shown it. */
static void (*wg_tcp_wfree)(struct sk_buff *skb);

/*
 * Cuts a packet into its segments. With `scattered`, their payload stays where it is, and their
 * checksums are left to be filled in; else they are linear and complete.
 */
__rust_helper struct sk_buff *rust_helper_wg_skb_gso_segment(struct sk_buff *skb, bool scattered)
{
	const bool tcp = skb_is_gso_tcp(skb) && !(skb_shinfo(skb)->gso_type & SKB_GSO_FRAGLIST);
	struct sk_buff *segments;

	segments = skb_gso_segment(skb, scattered ? NETIF_F_SG | NETIF_F_HW_CSUM : 0);
	/* tcp_gso_segment() gives all segments but the last a destructor only if it is this one. */
	if (tcp && !IS_ERR_OR_NULL(segments) && segments->next && segments->destructor &&
	    READ_ONCE(wg_tcp_wfree) != segments->destructor)
		WRITE_ONCE(wg_tcp_wfree, segments->destructor);
	return segments;
}

/*
 * Makes the packet linear and its data private: no clone shares it, and at least `headroom` bytes
 * before and `tailroom` bytes behind it can be written. At most one reallocation.
 */
__rust_helper int rust_helper_wg_skb_make_private(struct sk_buff *skb, unsigned int headroom,
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
 * Prepares a packet for encryption: takes the flow hash from the headers while they can be read,
 * makes the data private, with room for what encryption adds, and fills in a checksum that was left
 * to the device. The flow dissector needs the device for the BPF program of its namespace; the
 * packet does not keep it, as it may outlive it.
 */
__rust_helper int rust_helper_wg_skb_prepare_encryption(struct sk_buff *skb, struct net_device *dev,
							unsigned int headroom,
							unsigned int tailroom)
{
	int ret;

	skb->dev = dev;
	skb_get_hash(skb);
	skb->dev = NULL;
	ret = rust_helper_wg_skb_make_private(skb, headroom, tailroom);
	if (ret || skb->ip_summed != CHECKSUM_PARTIAL)
		return ret;
	return skb_checksum_help(skb);
}

/*
 * Resets the metadata of an encapsulated or decapsulated packet, as if it had just been allocated:
 * nothing remains of the device, route, mark, connection and checksum state of the packet before,
 * which may belong to another namespace. All headers start at the data.
 *
 * An outgoing packet keeps its flow hash, for queueing disciplines, and the clock of its delivery
 * time.
 */
__rust_helper void rust_helper_wg_skb_renew(struct sk_buff *skb, bool outgoing)
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

/* Marks all checksums in the packet as verified, however many there are. */
__rust_helper void rust_helper_wg_skb_set_verified(struct sk_buff *skb, __be16 protocol)
{
	skb->protocol = protocol;
	skb->ip_summed = CHECKSUM_UNNECESSARY;
	skb->csum_level = ~0;
}

/* Sets CE or ECT(1) in the IP header, if the packet is ECN-capable. */
__rust_helper void rust_helper_wg_skb_set_ecn(struct sk_buff *skb, bool congested)
{
	if (congested)
		INET_ECN_set_ce(skb);
	else
		INET_ECN_set_ect1(skb);
}

__rust_helper void rust_helper_wg_skb_set_inner_network_header(struct sk_buff *skb)
{
	skb_set_inner_network_header(skb, 0);
}

__rust_helper bool rust_helper_wg_skb_is_gso(const struct sk_buff *skb)
{
	return skb_is_gso(skb);
}

/* Bytes of each datagram but the last, which may be shorter; 0 if the packet is one datagram. */
__rust_helper u32 rust_helper_wg_skb_piece_len(const struct sk_buff *skb)
{
	return skb_shinfo(skb)->gso_size;
}

/*
 * Copies `len` bytes of a received datagram, from `offset` on, into a packet of its own, with the
 * UDP header and the network header, without its options, before it. NULL without memory, or if
 * there are not so many.
 */
__rust_helper struct sk_buff *rust_helper_wg_skb_copy_piece(const struct sk_buff *skb,
							    unsigned int offset, unsigned int len)
{
	const unsigned int ip_len = skb->protocol == htons(ETH_P_IP) ? sizeof(struct iphdr) :
								       sizeof(struct ipv6hdr);
	const unsigned int headers_len = ip_len + sizeof(struct udphdr);
	struct sk_buff *piece;

	if (skb_network_header(skb) + ip_len > skb_tail_pointer(skb) ||
	    skb_transport_header(skb) + sizeof(struct udphdr) > skb_tail_pointer(skb))
		return NULL;
	if (offset > skb->len || len > skb->len - offset)
		return NULL;
	piece = __netdev_alloc_skb(NULL, headers_len + len, GFP_ATOMIC);
	if (!piece)
		return NULL;
	skb_reset_mac_header(piece);
	skb_reset_network_header(piece);
	skb_set_transport_header(piece, ip_len);
	__skb_put_data(piece, skb_network_header(skb), ip_len);
	__skb_put_data(piece, skb_transport_header(skb), sizeof(struct udphdr));
	if (skb_copy_bits(skb, offset, __skb_put(piece, len), len)) {
		kfree_skb(piece);
		return NULL;
	}
	__skb_pull(piece, headers_len);
	piece->protocol = skb->protocol;
	piece->skb_iif = skb->skb_iif;
	return piece;
}

/*
 * Removes the last fragment if it has stayed empty: drivers map every fragment, and some hardware
 * takes none without bytes.
 */
__rust_helper void rust_helper_wg_skb_end_frags(struct sk_buff *skb)
{
	struct skb_shared_info *info = skb_shinfo(skb);
	const skb_frag_t *last;
	struct page *page;

	if (!info->nr_frags)
		return;
	last = &info->frags[info->nr_frags - 1];
	if (skb_frag_size(last))
		return;
	page = skb_frag_page(last);
	if (!skb->destructor)
		skb->truesize -= page_size(page);
	info->nr_frags--;
	put_page(page);
}

#define WG_POOL_ORDER PAGE_ALLOC_COSTLY_ORDER
#define WG_POOL_PAGES 16

/*
 * Memory of fragments that was given out, by CPU. When nobody else uses it any more it is given out
 * again, which saves the kernel zeroing it (init_on_alloc).
 */
struct wg_pool {
	unsigned int next;
	struct page *pages[WG_POOL_PAGES];
};

static DEFINE_PER_CPU(struct wg_pool, wg_pool);

static struct page *wg_pool_get(gfp_t gfp)
{
	const unsigned int next = this_cpu_inc_return(wg_pool.next) % WG_POOL_PAGES;
	struct page **const place = raw_cpu_ptr(&wg_pool.pages[next]);
	struct page *page = xchg(place, NULL), *other;

	if (page && page_ref_count(page) != 1) {
		put_page(page);
		page = NULL;
	}
	if (!page)
		page = alloc_pages(gfp, WG_POOL_ORDER);
	if (!page || page_is_pfmemalloc(page))
		return page;
	get_page(page);
	other = xchg(place, page);
	if (other)
		put_page(other);
	return page;
}

/* Frees what is kept. What is given out meanwhile may be kept again. */
__rust_helper void rust_helper_wg_pool_free(void)
{
	unsigned int cpu, n;

	for_each_possible_cpu(cpu) {
		for (n = 0; n < WG_POOL_PAGES; n++) {
			struct page *page = xchg(&per_cpu(wg_pool.pages[n], cpu), NULL);

			if (page)
				put_page(page);
		}
	}
}

/*
 * Adds an empty fragment with memory for `len` bytes, or less, of which the first `offset` are not
 * to be part of the packet. Gives its address and its size, or NULL.
 */
__rust_helper void *rust_helper_wg_skb_add_frag(struct sk_buff *skb, unsigned int offset,
						unsigned int len, unsigned int *size)
{
	const int count = skb_shinfo(skb)->nr_frags;
	unsigned int order = min_t(unsigned int, get_order(len), PAGE_ALLOC_COSTLY_ORDER);
	struct page *page;

	if (count >= MAX_SKB_FRAGS)
		return NULL;
	for (;;) {
		const gfp_t gfp = (order ? GFP_NOWAIT | __GFP_COMP | __GFP_NORETRY : GFP_ATOMIC) |
				  __GFP_NOWARN;

		page = order == WG_POOL_ORDER ? wg_pool_get(gfp) : alloc_pages(gfp, order);
		if (page)
			break;
		if (!order)
			return NULL;
		order--;
	}
	*size = PAGE_SIZE << order;
	skb_fill_page_desc(skb, count, page, offset, 0);
	/* Of a packet with an owner, this is what the owner is charged. */
	if (!skb->destructor)
		skb->truesize += *size;
	return page_address(page);
}

/* Makes the next `len` bytes of the last fragment part of the packet. */
__rust_helper void rust_helper_wg_skb_grow_frag(struct sk_buff *skb, unsigned int len)
{
	struct skb_shared_info *info = skb_shinfo(skb);

	skb_frag_size_add(&info->frags[info->nr_frags - 1], len);
	skb->len += len;
	skb->data_len += len;
}

/* Copies the packet with its checksum filled in. */
__rust_helper int rust_helper_wg_skb_copy_complete(struct sk_buff *skb, u8 *to)
{
	int start, sum;
	__wsum csum;

	if (skb->ip_summed != CHECKSUM_PARTIAL)
		return skb_copy_bits(skb, 0, to, skb->len);
	start = skb_checksum_start_offset(skb);
	sum = start + skb->csum_offset;
	if (start < 0 || start >= skb_headlen(skb) || sum + sizeof(__sum16) > skb_headlen(skb) ||
	    skb_csum_is_sctp(skb))
		return -EINVAL;
	skb_copy_from_linear_data(skb, to, start);
	csum = skb_copy_and_csum_bits(skb, start, to + start, skb->len - start);
	*(__sum16 *)(to + sum) = csum_fold(csum) ?: CSUM_MANGLED_0;
	return 0;
}

/*
 * Makes a packet part of the flow of another, which `dev` transmits: it gets its flow hash and its
 * delivery time.
 */
__rust_helper void rust_helper_wg_skb_join_flow(struct sk_buff *skb, struct sk_buff *of,
						struct net_device *dev)
{
	of->dev = dev;
	skb_get_hash(of);
	of->dev = NULL;
	skb_copy_hash(skb, of);
	skb->tstamp = of->tstamp;
	skb->tstamp_type = of->tstamp_type;
}

/*
 * Moves what a socket's send buffer was charged for `from` to `skb`, if that is charged to nobody
 * or to the same socket.
 */
__rust_helper void rust_helper_wg_skb_take_charge(struct sk_buff *skb, struct sk_buff *from)
{
	if (!from->destructor ||
	    (from->destructor != sock_wfree && from->destructor != READ_ONCE(wg_tcp_wfree)))
		return;
	if (!skb->destructor) {
		skb->sk = from->sk;
		skb->destructor = from->destructor;
		skb->truesize = from->truesize;
	} else if (skb->destructor == from->destructor && skb->sk == from->sk) {
		skb->truesize += from->truesize;
	} else {
		return;
	}
	from->sk = NULL;
	from->destructor = NULL;
}

/*
 * Makes a packet one that stands for `count` UDP datagrams, with `len` bytes of payload each; the
 * last may have less. The UDP header will be put right before it, with a checksum left to be
 * filled in.
 */
__rust_helper void rust_helper_wg_skb_set_udp_gso(struct sk_buff *skb, u16 len, u16 count)
{
	skb_shinfo(skb)->gso_type = SKB_GSO_UDP_L4;
	skb_shinfo(skb)->gso_size = len;
	skb_shinfo(skb)->gso_segs = count;
	skb->ip_summed = CHECKSUM_PARTIAL;
	skb->csum_start = skb_headroom(skb) - sizeof(struct udphdr);
	skb->csum_offset = offsetof(struct udphdr, check);
}

/* Whether somebody wants to be told when the packet is sent. */
__rust_helper bool rust_helper_wg_skb_wants_timestamp(const struct sk_buff *skb)
{
	return skb_shinfo(skb)->tx_flags & SKBTX_ANY_TSTAMP;
}

/* How a packet is to be cut; see `proto::segment`. */
struct wg_segments {
	u32 header_len;
	u16 size;
	bool v4;
	bool tcp;
	bool fixed_id;
	bool keeps_cwr;
};

/*
 * Whether the packet stands for segments that consist of its headers, which are linear and nothing
 * but IP and TCP or UDP, and a part of its payload each.
 */
__rust_helper bool rust_helper_wg_skb_segments(const struct sk_buff *skb,
					       struct wg_segments *segments)
{
	const u32 tcp_types = SKB_GSO_TCPV4 | SKB_GSO_TCPV6;
	const struct skb_shared_info *info = skb_shinfo(skb);
	unsigned int ip_len, header_len;

	if (!skb_is_gso(skb) || skb_shared(skb) || skb->encapsulation ||
	    skb->ip_summed != CHECKSUM_PARTIAL || skb_network_offset(skb) ||
	    skb_checksum_start_offset(skb) != skb_transport_offset(skb) ||
	    (info->tx_flags & SKBTX_ANY_TSTAMP) || !skb_frags_readable(skb))
		return false;
	segments->tcp = info->gso_type & tcp_types;
	if (info->gso_type & ~(tcp_types | SKB_GSO_UDP_L4 | SKB_GSO_TCP_ECN |
			       SKB_GSO_TCP_FIXEDID | SKB_GSO_TCP_ACCECN))
		return false;
	/* Otherwise it is not known who frees the packet, and what that means. */
	if (skb->destructor && skb->destructor != sock_wfree &&
	    skb->destructor != READ_ONCE(wg_tcp_wfree))
		return false;
	segments->v4 = skb->protocol == htons(ETH_P_IP);
	ip_len = segments->v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	header_len = ip_len + (segments->tcp ? sizeof(struct tcphdr) : sizeof(struct udphdr));
	if (skb_transport_offset(skb) != ip_len || skb_headlen(skb) < header_len)
		return false;
	if (segments->v4 ? ip_hdr(skb)->ihl != 5 ||
			   ip_hdr(skb)->protocol != (segments->tcp ? IPPROTO_TCP : IPPROTO_UDP) :
			   ipv6_hdr(skb)->nexthdr != (segments->tcp ? IPPROTO_TCP : IPPROTO_UDP))
		return false;
	if (segments->tcp)
		header_len = ip_len + tcp_hdrlen(skb);
	if (header_len < ip_len + (segments->tcp ? sizeof(struct tcphdr) : 0) ||
	    header_len > skb_headlen(skb) || skb->len <= header_len)
		return false;
	segments->header_len = header_len;
	segments->size = info->gso_size;
	segments->fixed_id = info->gso_type & SKB_GSO_TCP_FIXEDID;
	segments->keeps_cwr = info->gso_type & SKB_GSO_TCP_ACCECN;
	return true;
}

/* Copies the headers and a part of the payload, and gives the sum of the latter. */
__rust_helper int rust_helper_wg_skb_copy_segment(const struct sk_buff *skb, u8 *to,
						  unsigned int header_len, unsigned int offset,
						  unsigned int len, u32 *sum)
{
	if (header_len > skb_headlen(skb) || offset > skb->len || len > skb->len - offset)
		return -EINVAL;
	skb_copy_from_linear_data(skb, to, header_len);
	*sum = (__force u32)skb_copy_and_csum_bits(skb, offset, to + header_len, len);
	return 0;
}

/*
 * Makes a packet one that stands for `count` packets of TCP or UDP with `size` bytes of payload
 * each.
 */
__rust_helper void rust_helper_wg_skb_set_joined_gso(struct sk_buff *skb, bool v4, bool udp,
						     u16 size, u16 count, bool fixed_id)
{
	skb_shinfo(skb)->gso_type = udp ? SKB_GSO_UDP_L4 : v4 ? SKB_GSO_TCPV4 : SKB_GSO_TCPV6;
	if (fixed_id && !udp)
		skb_shinfo(skb)->gso_type |= SKB_GSO_TCP_FIXEDID;
	skb_shinfo(skb)->gso_size = size;
	skb_shinfo(skb)->gso_segs = count;
}

/*
 * Leaves the checksum of a packet of TCP or UDP, which begins with a plain IP header, to be filled
 * in.
 */
__rust_helper void rust_helper_wg_skb_set_joined(struct sk_buff *skb, bool v4)
{
	const bool udp = skb_shinfo(skb)->gso_type & SKB_GSO_UDP_L4;

	skb_set_transport_header(skb, v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
	skb->ip_summed = CHECKSUM_PARTIAL;
	skb->csum_start = skb_transport_header(skb) - skb->head;
	skb->csum_offset = udp ? offsetof(struct udphdr, check) : offsetof(struct tcphdr, check);
}

/*
 * Whether a UDP packet, which begins with a plain IP header and would be received by `dev`, is for
 * a socket that takes many datagrams in one packet (UDP_GRO), and does nothing else with them. Only
 * then does generic receive offload put datagrams together: they may be those of another tunnel.
 */
__rust_helper bool rust_helper_wg_skb_is_for_gro_socket(const struct sk_buff *skb,
							const struct net_device *dev, bool v4)
{
	const unsigned int ip_len = v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	const struct iphdr *ip4 = (const void *)skb->data;
	const struct ipv6hdr *ip6 = (const void *)skb->data;
	const struct udphdr *udp = (const void *)(skb->data + ip_len);
	struct sock *sk = NULL;
	bool takes;

	if (skb_headlen(skb) < ip_len + sizeof(*udp) || netif_is_l3_slave(dev))
		return false;
	rcu_read_lock();
	if (v4)
		sk = __udp4_lib_lookup(dev_net_rcu(dev), ip4->saddr, udp->source, ip4->daddr,
				       udp->dest, dev->ifindex, 0, NULL);
#if IS_ENABLED(CONFIG_IPV6)
	else
		sk = __udp6_lib_lookup(dev_net_rcu(dev), &ip6->saddr, udp->source, &ip6->daddr,
				       udp->dest, dev->ifindex, 0, NULL);
#endif
	takes = sk && udp_test_bit(GRO_ENABLED, sk) && !READ_ONCE(udp_sk(sk)->encap_rcv) &&
		!READ_ONCE(udp_sk(sk)->gro_receive);
	rcu_read_unlock();
	return takes;
}
