// SPDX-License-Identifier: GPL-2.0

#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <net/dst_cache.h>
#include <net/icmp.h>
#include <net/ip6_route.h>
#include <net/ipv6.h>
#include <net/route.h>
#include <net/udp_tunnel.h>

/*
 * A UDP socket on `port` of all local addresses, for packets that are handed to `receive`.
 * Transmission never waits, neither for memory nor for room in the send buffer, and may use the
 * memory reserves, as swap may lie behind the tunnel.
 */
int rust_helper_wg_udp_sock_create(struct net *net, bool ipv6, __be16 port, void *owner,
				   udp_tunnel_encap_rcv_t receive, struct sock **sk)
{
	struct udp_port_cfg port_cfg = {
		.family = ipv6 ? AF_INET6 : AF_INET,
		.local_udp_port = port,
		.use_udp_checksums = true,
		.use_udp6_tx_checksums = true,
		.use_udp6_rx_checksums = true,
		.ipv6_v6only = true,
	};
	struct udp_tunnel_sock_cfg sock_cfg = {
		.sk_user_data = owner,
		.encap_type = 1,
		.encap_rcv = receive,
	};
	struct socket *sock;
	int ret;

	ret = udp_sock_create(net, &port_cfg, &sock);
	if (ret < 0)
		return ret;
	sock->sk->sk_allocation = GFP_ATOMIC;
	sock->sk->sk_sndbuf = INT_MAX;
	sk_set_memalloc(sock->sk);
	setup_udp_tunnel_sock(net, sock->sk, &sock_cfg);
	*sk = sock->sk;
	return 0;
}

void rust_helper_wg_udp_sock_release(struct sock *sk)
{
	sk_clear_memalloc(sk);
	udp_tunnel_sock_release(sk);
}

void rust_helper_wg_sock_disown(struct sock *sk)
{
	rcu_assign_sk_user_data(sk, NULL);
}

void *rust_helper_wg_sock_owner(struct sock *sk)
{
	return rcu_dereference_sk_user_data(sk);
}

__be16 rust_helper_wg_sock_port(const struct sock *sk)
{
	return inet_sk(sk)->inet_sport;
}

bool rust_helper_wg_ipv6_enabled(void)
{
	return IS_ENABLED(CONFIG_IPV6) && ipv6_mod_enabled();
}

void rust_helper_wg_rcu_read_lock_bh(void)
{
	rcu_read_lock_bh();
}

void rust_helper_wg_rcu_read_unlock_bh(void)
{
	rcu_read_unlock_bh();
}

bool rust_helper_wg_in_task(void)
{
	return in_task() && !in_softirq();
}

/* Whether `addr` is one of this host. */
bool rust_helper_wg_is_local4(struct sock *sk, __be32 addr)
{
	return inet_confirm_addr(sock_net(sk), NULL, 0, addr, RT_SCOPE_HOST);
}

bool rust_helper_wg_is_local6(struct sock *sk, const struct in6_addr *addr)
{
	return ipv6_chk_addr(sock_net(sk), addr, NULL, 0);
}

/* A route, or an error pointer. */
struct rtable *rust_helper_wg_route4(struct sock *sk, __be32 saddr, __be32 daddr, __be16 dport,
				     u32 mark, __be32 *chosen)
{
	struct flowi4 fl = {
		.saddr = saddr,
		.daddr = daddr,
		.fl4_sport = inet_sk(sk)->inet_sport,
		.fl4_dport = dport,
		.flowi4_mark = mark,
		.flowi4_proto = IPPROTO_UDP,
	};
	struct rtable *rt;

	security_sk_classify_flow(sk, flowi4_to_flowi_common(&fl));
	rt = ip_route_output_flow(sock_net(sk), &fl, sk);
	*chosen = fl.saddr;
	return rt;
}

struct dst_entry *rust_helper_wg_route6(struct sock *sk, const struct in6_addr *saddr,
					const struct in6_addr *daddr, __be16 dport, u32 mark,
					int oif, struct in6_addr *chosen)
{
	struct flowi6 fl = {
		.saddr = *saddr,
		.daddr = *daddr,
		.fl6_sport = inet_sk(sk)->inet_sport,
		.fl6_dport = dport,
		.flowi6_mark = mark,
		.flowi6_oif = oif,
		.flowi6_proto = IPPROTO_UDP,
	};
	struct dst_entry *dst;

	security_sk_classify_flow(sk, flowi6_to_flowi_common(&fl));
	dst = ip6_dst_lookup_flow(sock_net(sk), sk, &fl, NULL);
	*chosen = fl.saddr;
	return dst;
}

int rust_helper_wg_route4_ifindex(const struct rtable *rt)
{
	return rt->dst.dev->ifindex;
}

void rust_helper_wg_route4_put(struct rtable *rt)
{
	ip_rt_put(rt);
}

void rust_helper_wg_dst_cache_set4(struct dst_cache *cache, struct rtable *rt, __be32 saddr)
{
	dst_cache_set_ip4(cache, &rt->dst, saddr);
}

/* Consumes the packet and the reference to the route. RCU, BH disabled. */
void rust_helper_wg_udp_xmit4(struct rtable *rt, struct sock *sk, struct sk_buff *skb,
			      struct net_device *dev, u32 mark, __be32 saddr, __be32 daddr,
			      __be16 dport, u8 ds)
{
	skb_mark_not_on_list(skb);
	skb->dev = dev;
	skb->mark = mark;
	skb->ignore_df = 1;
	udp_tunnel_xmit_skb(rt, sk, skb, saddr, daddr, ds, ip4_dst_hoplimit(&rt->dst), 0,
			    inet_sk(sk)->inet_sport, dport, false, false, 0);
}

void rust_helper_wg_udp_xmit6(struct dst_entry *dst, struct sock *sk, struct sk_buff *skb,
			      struct net_device *dev, u32 mark, const struct in6_addr *saddr,
			      const struct in6_addr *daddr, __be16 dport, u8 ds)
{
	skb_mark_not_on_list(skb);
	skb->dev = dev;
	skb->mark = mark;
	skb->ignore_df = 1;
	udp_tunnel6_xmit_skb(dst, sk, skb, dev, saddr, daddr, ds, ip6_dst_hoplimit(dst), 0,
			     inet_sk(sk)->inet_sport, dport, false, 0);
}

void rust_helper_wg_dst_cache_reset(struct dst_cache *cache)
{
	dst_cache_reset(cache);
}

void rust_helper_wg_icmp_host_unreachable(struct sk_buff *skb)
{
	icmp_ndo_send(skb, ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, 0);
}

void rust_helper_wg_icmpv6_addr_unreachable(struct sk_buff *skb)
{
	icmpv6_ndo_send(skb, ICMPV6_DEST_UNREACH, ICMPV6_ADDR_UNREACH, 0);
}
