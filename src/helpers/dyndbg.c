// SPDX-License-Identifier: GPL-2.0
/*
 * The debug messages. Rust's pr_debug!() is not part of dynamic debug, so each message has its
 * call site here, where "module wireguard_rs +p" and the like find it. The prefix and the names
 * of the objects are those of the in-tree driver, for people and tools that look for them. What a
 * remote party can provoke is rate limited.
 */

#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/udp.h>
#include <net/ipv6.h>

#undef pr_fmt
#define pr_fmt(fmt) "wireguard: " fmt

enum wg_debug_dev_event {
	WG_DEBUG_DEV_CREATED,
	WG_DEBUG_DEV_DESTROYED,
	WG_DEBUG_DEV_NETNS_EXIT,
	WG_DEBUG_DEV_NO_SOCKET4,
	WG_DEBUG_DEV_NO_SOCKET6,
};

enum wg_debug_peer_event {
	WG_DEBUG_PEER_CREATED,
	WG_DEBUG_PEER_DESTROYED,
	WG_DEBUG_PEER_SEND_INITIATION,
	WG_DEBUG_PEER_SEND_RESPONSE,
	WG_DEBUG_PEER_SEND_KEEPALIVE,
	WG_DEBUG_PEER_RECV_INITIATION,
	WG_DEBUG_PEER_RECV_RESPONSE,
	WG_DEBUG_PEER_RECV_KEEPALIVE,
	WG_DEBUG_PEER_RETRY_HANDSHAKE,
	WG_DEBUG_PEER_GIVE_UP_HANDSHAKE,
	WG_DEBUG_PEER_NO_RESPONSE_RETRY,
	WG_DEBUG_PEER_ZERO_KEYS,
	WG_DEBUG_PEER_ROAMED,
	WG_DEBUG_PEER_NO_ENDPOINT,
	WG_DEBUG_PEER_INVALID_SIZE,
	WG_DEBUG_PEER_INVALID_TYPE,
};

enum wg_debug_skb_event {
	WG_DEBUG_SKB_INVALID_IP,
	WG_DEBUG_SKB_NO_PEER,
	WG_DEBUG_SKB_INVALID_HEADER,
	WG_DEBUG_SKB_DROP_HANDSHAKE,
	WG_DEBUG_SKB_INVALID_MAC,
	WG_DEBUG_SKB_SEND_COOKIE,
	WG_DEBUG_SKB_RECV_COOKIE,
	WG_DEBUG_SKB_INVALID_COOKIE,
	WG_DEBUG_SKB_INVALID_INITIATION,
	WG_DEBUG_SKB_INVALID_RESPONSE,
};

/* An address for %pIS; an unknown one has family 0, which printk shows as such. */
union wg_debug_addr {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static const struct sockaddr *wg_debug_endpoint(union wg_debug_addr *addr, const void *bytes,
						size_t len)
{
	memset(addr, 0, sizeof(*addr));
	memcpy(addr, bytes, min(len, sizeof(*addr)));
	return &addr->sa;
}

static const struct sockaddr *wg_debug_source(union wg_debug_addr *addr,
					      const struct sk_buff *skb, bool port)
{
	memset(addr, 0, sizeof(*addr));
	if (skb->protocol == htons(ETH_P_IP)) {
		addr->in.sin_family = AF_INET;
		addr->in.sin_addr.s_addr = ip_hdr(skb)->saddr;
		if (port)
			addr->in.sin_port = udp_hdr(skb)->source;
	} else if (skb->protocol == htons(ETH_P_IPV6)) {
		addr->in6.sin6_family = AF_INET6;
		addr->in6.sin6_addr = ipv6_hdr(skb)->saddr;
		addr->in6.sin6_scope_id = ipv6_iface_scope_id(&ipv6_hdr(skb)->saddr, skb->skb_iif);
		if (port)
			addr->in6.sin6_port = udp_hdr(skb)->source;
	}
	return &addr->sa;
}

static const struct sockaddr *wg_debug_destination(union wg_debug_addr *addr,
						   const struct sk_buff *skb)
{
	memset(addr, 0, sizeof(*addr));
	if (skb->protocol == htons(ETH_P_IP)) {
		addr->in.sin_family = AF_INET;
		addr->in.sin_addr.s_addr = ip_hdr(skb)->daddr;
	} else if (skb->protocol == htons(ETH_P_IPV6)) {
		addr->in6.sin6_family = AF_INET6;
		addr->in6.sin6_addr = ipv6_hdr(skb)->daddr;
	}
	return &addr->sa;
}

void rust_helper_wg_debug_dev(enum wg_debug_dev_event event, const struct net_device *dev)
{
	switch (event) {
	case WG_DEBUG_DEV_CREATED:
		pr_debug("%s: Interface created\n", dev->name);
		break;
	case WG_DEBUG_DEV_DESTROYED:
		pr_debug("%s: Interface destroyed\n", dev->name);
		break;
	case WG_DEBUG_DEV_NETNS_EXIT:
		pr_debug("%s: Creating namespace is going away\n", dev->name);
		break;
	/* No debug messages, but of the same prefix: Rust's pr_err!() says "wireguard_rs: ". */
	case WG_DEBUG_DEV_NO_SOCKET4:
		pr_err("%s: Could not create IPv4 socket\n", dev->name);
		break;
	case WG_DEBUG_DEV_NO_SOCKET6:
		pr_err("%s: Could not create IPv6 socket\n", dev->name);
		break;
	}
}

void rust_helper_wg_debug_keypair(bool created, const struct net_device *dev, u64 keypair, u64 peer)
{
	if (created)
		net_dbg_ratelimited("%s: Keypair %llu created for peer %llu\n", dev->name, keypair, peer);
	else
		net_dbg_ratelimited("%s: Keypair %llu destroyed for peer %llu\n", dev->name, keypair,
				    peer);
}

/* The arguments of a message are evaluated only when it is switched on. */
#define ENDPOINT wg_debug_endpoint(&addr, endpoint, endpoint_len)

void rust_helper_wg_debug_peer(enum wg_debug_peer_event event, const struct net_device *dev,
			       u64 peer, unsigned int tries, unsigned int seconds,
			       const void *endpoint, size_t endpoint_len)
{
	union wg_debug_addr addr;

	switch (event) {
	case WG_DEBUG_PEER_CREATED:
		pr_debug("%s: Peer %llu created\n", dev->name, peer);
		break;
	case WG_DEBUG_PEER_DESTROYED:
		pr_debug("%s: Peer %llu (%pISpfsc) destroyed\n", dev->name, peer, ENDPOINT);
		break;
	case WG_DEBUG_PEER_SEND_INITIATION:
		net_dbg_ratelimited("%s: Sent handshake initiation to peer %llu (%pISpfsc)\n",
				    dev->name, peer, ENDPOINT);
		break;
	case WG_DEBUG_PEER_SEND_RESPONSE:
		net_dbg_ratelimited("%s: Sent handshake response to peer %llu (%pISpfsc)\n",
				    dev->name, peer, ENDPOINT);
		break;
	case WG_DEBUG_PEER_SEND_KEEPALIVE:
		net_dbg_ratelimited("%s: Sent keepalive packet to peer %llu (%pISpfsc)\n",
				    dev->name, peer, ENDPOINT);
		break;
	case WG_DEBUG_PEER_RECV_INITIATION:
		net_dbg_ratelimited("%s: Received handshake initiation from peer %llu (%pISpfsc)\n",
				    dev->name, peer, ENDPOINT);
		break;
	case WG_DEBUG_PEER_RECV_RESPONSE:
		net_dbg_ratelimited("%s: Received handshake response from peer %llu (%pISpfsc)\n",
				    dev->name, peer, ENDPOINT);
		break;
	case WG_DEBUG_PEER_RECV_KEEPALIVE:
		net_dbg_ratelimited("%s: Received keepalive packet from peer %llu (%pISpfsc)\n",
				    dev->name, peer, ENDPOINT);
		break;
	case WG_DEBUG_PEER_RETRY_HANDSHAKE:
		pr_debug("%s: Handshake for peer %llu (%pISpfsc) has had no response in %u s, retrying (try %u)\n",
			 dev->name, peer, ENDPOINT, seconds, tries);
		break;
	case WG_DEBUG_PEER_GIVE_UP_HANDSHAKE:
		pr_debug("%s: Handshake for peer %llu (%pISpfsc) has had no response to %u tries, giving up\n",
			 dev->name, peer, ENDPOINT, tries);
		break;
	case WG_DEBUG_PEER_NO_RESPONSE_RETRY:
		pr_debug("%s: Retrying handshake with peer %llu (%pISpfsc): nothing was heard of it for %u s\n",
			 dev->name, peer, ENDPOINT, seconds);
		break;
	case WG_DEBUG_PEER_ZERO_KEYS:
		pr_debug("%s: Zeroed all keys for peer %llu (%pISpfsc): no new session in %u s\n",
			 dev->name, peer, ENDPOINT, seconds);
		break;
	case WG_DEBUG_PEER_ROAMED:
		net_dbg_ratelimited("%s: Endpoint of peer %llu is now %pISpfsc\n", dev->name, peer,
				    ENDPOINT);
		break;
	case WG_DEBUG_PEER_NO_ENDPOINT:
		net_dbg_ratelimited("%s: No endpoint for peer %llu\n", dev->name, peer);
		break;
	case WG_DEBUG_PEER_INVALID_SIZE:
		net_dbg_ratelimited("%s: Packet has an incorrect size, from peer %llu (%pISpfsc)\n",
				    dev->name, peer, ENDPOINT);
		break;
	case WG_DEBUG_PEER_INVALID_TYPE:
		net_dbg_ratelimited("%s: Packet is neither IPv4 nor IPv6, from peer %llu (%pISpfsc)\n",
				    dev->name, peer, ENDPOINT);
		break;
	}
}

void rust_helper_wg_debug_no_route(const struct net_device *dev, const void *endpoint,
				   size_t endpoint_len, int error)
{
	union wg_debug_addr addr;

	net_dbg_ratelimited("%s: No route to %pISpfsc: error %d\n", dev->name, ENDPOINT, error);
}

void rust_helper_wg_debug_unallowed_src(const struct net_device *dev, const struct sk_buff *skb,
					u64 peer, const void *endpoint, size_t endpoint_len)
{
	union wg_debug_addr src, addr;

	net_dbg_ratelimited("%s: Packet has src IP %pISc, not among the allowed IPs of peer %llu (%pISpfsc)\n",
			    dev->name, wg_debug_source(&src, skb, false), peer, ENDPOINT);
}

#undef ENDPOINT

void rust_helper_wg_debug_invalid_nonce(const struct net_device *dev, u64 nonce, u64 max)
{
	net_dbg_ratelimited("%s: Packet has nonce %llu, seen before or too old (max %llu)\n",
			    dev->name, nonce, max);
}

#define REASON (int)reason_len, reason
/* Of the message that a skb carries: its sender. */
#define OUTER_SOURCE wg_debug_source(&addr, skb, true)

void rust_helper_wg_debug_skb(enum wg_debug_skb_event event, const struct net_device *dev,
			      const struct sk_buff *skb, const char *reason, size_t reason_len)
{
	union wg_debug_addr addr;

	switch (event) {
	case WG_DEBUG_SKB_INVALID_IP:
		net_dbg_ratelimited("%s: Invalid IP packet to send\n", dev->name);
		break;
	case WG_DEBUG_SKB_NO_PEER:
		net_dbg_ratelimited("%s: No peer has allowed IPs for %pISc\n", dev->name,
				    wg_debug_destination(&addr, skb));
		break;
	case WG_DEBUG_SKB_INVALID_HEADER:
		net_dbg_ratelimited("%s: Invalid message header, packet dropped\n", dev->name);
		break;
	case WG_DEBUG_SKB_DROP_HANDSHAKE:
		net_dbg_ratelimited("%s: Handshake packet from %pISpfsc dropped: %.*s\n", dev->name,
				    OUTER_SOURCE, REASON);
		break;
	case WG_DEBUG_SKB_INVALID_MAC:
		net_dbg_ratelimited("%s: Invalid MAC of handshake packet from %pISpfsc\n", dev->name,
				    OUTER_SOURCE);
		break;
	case WG_DEBUG_SKB_SEND_COOKIE:
		net_dbg_ratelimited("%s: Sent cookie response to %pISpfsc: under load\n", dev->name,
				    OUTER_SOURCE);
		break;
	case WG_DEBUG_SKB_RECV_COOKIE:
		net_dbg_ratelimited("%s: Received cookie response from %pISpfsc\n", dev->name,
				    OUTER_SOURCE);
		break;
	case WG_DEBUG_SKB_INVALID_COOKIE:
		net_dbg_ratelimited("%s: Invalid cookie response from %pISpfsc: %.*s\n", dev->name,
				    OUTER_SOURCE, REASON);
		break;
	case WG_DEBUG_SKB_INVALID_INITIATION:
		net_dbg_ratelimited("%s: Invalid handshake initiation from %pISpfsc: %.*s\n", dev->name,
				    OUTER_SOURCE, REASON);
		break;
	case WG_DEBUG_SKB_INVALID_RESPONSE:
		net_dbg_ratelimited("%s: Invalid handshake response from %pISpfsc: %.*s\n", dev->name,
				    OUTER_SOURCE, REASON);
		break;
	}
}

#undef OUTER_SOURCE
#undef REASON
