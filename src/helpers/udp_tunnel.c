// SPDX-License-Identifier: GPL-2.0-only

#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <net/dst_cache.h>
#include <net/icmp.h>
#include <net/ip6_route.h>
#include <net/ipv6.h>
#include <net/l3mdev.h>
#include <net/route.h>
#include <net/udp_tunnel.h>

struct wg_udp_sock_request {
	struct net *net;
	__be32 addr4;
	const struct in6_addr *addr6;
	__be16 port;
	int ifindex;
	void *owner;
	void (*data_ready)(struct sock *sk);
	struct sock *sk;
};

/*
 * Opens a UDP socket on `port` of `addr6`, or of `addr4` if that is NULL, and for packets of the
 * interface `ifindex` if that is not 0. `data_ready` is told of what it receives, which may be many
 * datagrams in one packet (UDP GRO). Received packets are taken at once, so no limit of the receive
 * queue applies, and nothing is polled for. Transmission never waits, neither for memory nor for
 * room in the send buffer, and may use the memory reserves, as swap may be reached through the
 * tunnel.
 */
static long wg_udp_sock_create(void *arg)
{
	struct wg_udp_sock_request *request = arg;
	struct udp_port_cfg port_cfg = {
		.family = request->addr6 ? AF_INET6 : AF_INET,
		.local_udp_port = request->port,
		.bind_ifindex = request->ifindex,
		.use_udp_checksums = true,
		.use_udp6_tx_checksums = true,
		.use_udp6_rx_checksums = true,
		.ipv6_v6only = true,
	};
	struct socket *sock;
	struct sock *sk;
	int on = 1;
	int ret;

	if (!request->addr6)
		port_cfg.local_ip.s_addr = request->addr4;
#if IS_ENABLED(CONFIG_IPV6)
	else
		port_cfg.local_ip6 = *request->addr6;
#endif
	ret = udp_sock_create(request->net, &port_cfg, &sock);
	if (ret < 0)
		return ret;
	sk = sock->sk;
	sk->sk_allocation = GFP_ATOMIC;
	sk->sk_sndbuf = INT_MAX;
	sk->sk_rcvbuf = INT_MAX;
#ifdef CONFIG_NET_RX_BUSY_POLL
	sk->sk_ll_usec = 0;
#endif
	sk_set_memalloc(sk);
	inet_clear_bit(MC_LOOP, sk);
	ret = sock->ops->setsockopt(sock, SOL_UDP, UDP_GRO, KERNEL_SOCKPTR(&on), sizeof(on));
	if (ret < 0) {
		sk_clear_memalloc(sk);
		udp_tunnel_sock_release(sk);
		return ret;
	}
	write_lock_bh(&sk->sk_callback_lock);
	rcu_assign_sk_user_data(sk, request->owner);
	sk->sk_data_ready = request->data_ready;
	write_unlock_bh(&sk->sk_callback_lock);
	request->sk = sk;
	return 0;
}

/*
 * On a kernel thread: a socket belongs to the memory cgroup and the cgroup of its creator, and the
 * limits and filters of whoever happens to bring the link up are not meant for the tunnel.
 */
__rust_helper int rust_helper_wg_udp_sock_create(struct net *net, __be32 addr4,
						 const struct in6_addr *addr6, __be16 port,
						 int ifindex, void *owner,
						 void (*data_ready)(struct sock *sk),
						 struct sock **sk)
{
	struct wg_udp_sock_request request = {
		.net = net,
		.addr4 = addr4,
		.addr6 = addr6,
		.port = port,
		.ifindex = ifindex,
		.owner = owner,
		.data_ready = data_ready,
	};
	int ret = work_on_cpu(raw_smp_processor_id(), wg_udp_sock_create, &request);

	*sk = request.sk;
	return ret;
}

/* Whoever looks for the socket from now on does not find it. */
__rust_helper void rust_helper_wg_udp_sock_unhash(struct sock *sk)
{
	sk->sk_prot->unhash(sk);
}

/*
 * A grace period after it was unhashed: sk_clear_memalloc() changes sk_forward_alloc without the
 * lock of the receive queue, so nobody may be receiving.
 */
__rust_helper void rust_helper_wg_udp_sock_release(struct sock *sk)
{
	sk_clear_memalloc(sk);
	udp_tunnel_sock_release(sk);
}

/*
 * The next packet that the socket has received, from behind the UDP header on, or NULL; its
 * checksum has been verified. In softirq context.
 */
__rust_helper struct sk_buff *rust_helper_wg_udp_recv(struct sock *sk)
{
	struct net *net = sock_net(sk);
	bool ipv4 = sk->sk_family == AF_INET;
	struct sk_buff *skb;
	unsigned int count = 1;
	int err;

	/* Others may have taken it. */
	if (skb_queue_empty_lockless(&sk->sk_receive_queue) &&
	    skb_queue_empty_lockless(&udp_sk(sk)->reader_queue))
		return NULL;
	skb = skb_recv_udp(sk, MSG_DONTWAIT, &err);
	if (!skb)
		return NULL;
	/* The socket has used this for notes of its own. */
	skb->dev = NULL;
	if (udp_lib_checksum_complete(skb)) {
		if (ipv4) {
			UDP_INC_STATS(net, UDP_MIB_CSUMERRORS);
			UDP_INC_STATS(net, UDP_MIB_INERRORS);
		} else {
			UDP6_INC_STATS(net, UDP_MIB_CSUMERRORS);
			UDP6_INC_STATS(net, UDP_MIB_INERRORS);
		}
		udp_drops_inc(sk);
		kfree_skb_reason(skb, SKB_DROP_REASON_UDP_CSUM);
		return NULL;
	}
	if (skb_is_gso(skb))
		count = DIV_ROUND_UP(skb->len, skb_shinfo(skb)->gso_size);
	SNMP_ADD_STATS(__UDPX_MIB(sk, ipv4), UDP_MIB_INDATAGRAMS, count);
	return skb;
}

__rust_helper void rust_helper_wg_sock_disown(struct sock *sk)
{
	rcu_assign_sk_user_data(sk, NULL);
}

__rust_helper void *rust_helper_wg_sock_owner(struct sock *sk)
{
	return rcu_dereference_sk_user_data(sk);
}

__rust_helper __be16 rust_helper_wg_sock_port(const struct sock *sk)
{
	return inet_sk(sk)->inet_sport;
}

__rust_helper bool rust_helper_wg_ipv6_enabled(void)
{
	return IS_ENABLED(CONFIG_IPV6) && ipv6_mod_enabled();
}

__rust_helper bool rust_helper_wg_in_task(void)
{
	return in_task() && !in_softirq();
}

/* Whether `addr` is an address of this host. */
__rust_helper bool rust_helper_wg_is_local4(struct sock *sk, __be32 addr)
{
	return inet_confirm_addr(sock_net(sk), NULL, 0, addr, RT_SCOPE_HOST);
}

__rust_helper bool rust_helper_wg_is_local6(struct sock *sk, const struct in6_addr *addr)
{
	return ipv6_chk_addr(sock_net(sk), addr, NULL, 0);
}

/* A route, or an error pointer. */
__rust_helper struct rtable *rust_helper_wg_route4(struct sock *sk, __be32 saddr, __be32 daddr,
						   __be16 dport, u32 mark, __be32 *chosen)
{
	struct flowi4 fl = {
		.saddr = saddr,
		.daddr = daddr,
		.fl4_sport = inet_sk(sk)->inet_sport,
		.fl4_dport = dport,
		.flowi4_mark = mark,
		.flowi4_oif = sk->sk_bound_dev_if,
		.flowi4_proto = IPPROTO_UDP,
	};
	struct rtable *rt;

	security_sk_classify_flow(sk, flowi4_to_flowi_common(&fl));
	rt = ip_route_output_flow(sock_net(sk), &fl, sk);
	*chosen = fl.saddr;
	return rt;
}

__rust_helper struct dst_entry *rust_helper_wg_route6(struct sock *sk, const struct in6_addr *saddr,
						      const struct in6_addr *daddr, __be16 dport,
						      u32 mark, int oif, struct in6_addr *chosen)
{
	struct flowi6 fl = {
		.saddr = *saddr,
		.daddr = *daddr,
		.fl6_sport = inet_sk(sk)->inet_sport,
		.fl6_dport = dport,
		.flowi6_mark = mark,
		.flowi6_oif = oif ?: sk->sk_bound_dev_if,
		.flowi6_proto = IPPROTO_UDP,
	};
	struct dst_entry *dst;

	security_sk_classify_flow(sk, flowi6_to_flowi_common(&fl));
	dst = ip6_dst_lookup_flow(sock_net(sk), sk, &fl, NULL);
	*chosen = fl.saddr;
	return dst;
}

/*
 * The interface that the route leaves by, or its VRF if the socket is bound to that: packets come
 * in by the VRF then.
 */
__rust_helper int rust_helper_wg_route4_ifindex(const struct rtable *rt, const struct sock *sk)
{
	const struct net_device *dev = rt->dst.dev;

	if (sk->sk_bound_dev_if && l3mdev_master_ifindex_rcu(dev) == sk->sk_bound_dev_if)
		return sk->sk_bound_dev_if;
	return dev->ifindex;
}

/*
 * Bytes of UDP payload that a datagram on this route may have to be sent as part of a segmentation
 * offload packet. 0 if none may be: IPsec and software checksums cut the packet early, at a higher
 * cost for each datagram than that of sending it as such.
 */
static u32 wg_dst_bulk_limit(const struct dst_entry *dst, netdev_features_t checksum, u32 headers)
{
	const netdev_features_t features = dst->dev->features;
	const u32 mtu = dst_mtu(dst);

	if (dst_xfrm(dst) || dst->lwtstate || mtu <= headers)
		return 0;
	if (!(features & NETIF_F_SG) || !(features & NETIF_F_GSO) ||
	    !(features & (NETIF_F_HW_CSUM | checksum)))
		return 0;
	return mtu - headers;
}

__rust_helper u32 rust_helper_wg_route4_bulk_limit(const struct rtable *rt)
{
	if (rt->rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST))
		return 0;
	return wg_dst_bulk_limit(&rt->dst, NETIF_F_IP_CSUM,
				 sizeof(struct iphdr) + sizeof(struct udphdr));
}

__rust_helper u32 rust_helper_wg_route6_bulk_limit(const struct dst_entry *dst)
{
	return wg_dst_bulk_limit(dst, NETIF_F_IPV6_CSUM,
				 sizeof(struct ipv6hdr) + sizeof(struct udphdr));
}

__rust_helper void rust_helper_wg_route4_put(struct rtable *rt)
{
	ip_rt_put(rt);
}

__rust_helper void rust_helper_wg_dst_cache_set4(struct dst_cache *cache, struct rtable *rt,
						 __be32 saddr)
{
	dst_cache_set_ip4(cache, &rt->dst, saddr);
}

/* How many packets of the device this CPU has counted as sent. BH disabled. */
static u64 wg_sent_here(const struct net_device *dev)
{
	return u64_stats_read(&this_cpu_ptr(dev->tstats)->tx_packets);
}

/*
 * A packet that stands for `count` has been counted as one: counts the others as well, be it as
 * sent or, if this CPU has counted none as sent since `before`, as what the stack counts a packet
 * that is refused.
 */
static void wg_count_others(struct net_device *dev, u64 before, unsigned int count, bool ipv6)
{
	if (count <= 1)
		return;
	if (wg_sent_here(dev) != before) {
		dev_sw_netstats_tx_add(dev, count - 1, 0);
	} else if (ipv6) {
		DEV_STATS_ADD(dev, tx_errors, count - 1);
		DEV_STATS_ADD(dev, tx_aborted_errors, count - 1);
	} else {
		DEV_STATS_ADD(dev, tx_dropped, count - 1);
	}
}

/* Consumes the packet and the reference to the route. BH disabled. */
__rust_helper void rust_helper_wg_udp_xmit4(struct rtable *rt, struct sock *sk, struct sk_buff *skb,
					    struct net_device *dev, u32 mark, __be32 saddr,
					    __be32 daddr, __be16 dport, u8 ds)
{
	const unsigned int count = skb_shinfo(skb)->gso_segs;
	const u64 before = wg_sent_here(dev);

	skb_mark_not_on_list(skb);
	skb->dev = dev;
	skb->mark = mark;
	skb->ignore_df = 1;
	udp_tunnel_xmit_skb(rt, sk, skb, saddr, daddr, ds, ip4_dst_hoplimit(&rt->dst), 0,
			    inet_sk(sk)->inet_sport, dport, false, false, 0);
	wg_count_others(dev, before, count, false);
}

__rust_helper void rust_helper_wg_udp_xmit6(struct dst_entry *dst, struct sock *sk,
					    struct sk_buff *skb, struct net_device *dev, u32 mark,
					    const struct in6_addr *saddr,
					    const struct in6_addr *daddr, __be16 dport, u8 ds)
{
	const unsigned int count = skb_shinfo(skb)->gso_segs;
	const u64 before = wg_sent_here(dev);

	skb_mark_not_on_list(skb);
	skb->dev = dev;
	skb->mark = mark;
	skb->ignore_df = 1;
	udp_tunnel6_xmit_skb(dst, sk, skb, dev, saddr, daddr, ds, ip6_dst_hoplimit(dst), 0,
			     inet_sk(sk)->inet_sport, dport, false, 0);
	wg_count_others(dev, before, count, true);
}

__rust_helper void rust_helper_wg_dst_cache_reset(struct dst_cache *cache)
{
	dst_cache_reset(cache);
}

__rust_helper void rust_helper_wg_icmp_host_unreachable(struct sk_buff *skb)
{
	icmp_ndo_send(skb, ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, 0);
}

__rust_helper void rust_helper_wg_icmpv6_addr_unreachable(struct sk_buff *skb)
{
	icmpv6_ndo_send(skb, ICMPV6_DEST_UNREACH, ICMPV6_ADDR_UNREACH, 0);
}
