// SPDX-License-Identifier: GPL-2.0-only

#include <linux/if_arp.h>
#include <linux/inetdevice.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <net/addrconf.h>
#include <net/gro.h>
#include <net/ip_tunnels.h>
#include <net/rtnetlink.h>

__rust_helper void *rust_helper_wg_netdev_priv(const struct net_device *dev)
{
	return netdev_priv(dev);
}

__rust_helper const char *rust_helper_wg_netdev_name(const struct net_device *dev)
{
	return dev->name;
}

__rust_helper void rust_helper_wg_netdev_copy_name(const struct net_device *dev, char *name)
{
	strscpy(name, dev->name, IFNAMSIZ);
}

__rust_helper int rust_helper_wg_netdev_ifindex(const struct net_device *dev)
{
	return READ_ONCE(dev->ifindex);
}

__rust_helper unsigned int rust_helper_wg_netdev_mtu(const struct net_device *dev)
{
	return READ_ONCE(dev->mtu);
}

/* The namespace of a registered device, NULL if it is not registered. Under RCU. */
__rust_helper struct net *rust_helper_wg_netdev_net_rcu(const struct net_device *dev)
{
	if (READ_ONCE(dev->reg_state) != NETREG_REGISTERED)
		return NULL;
	return dev_net_rcu(dev);
}

__rust_helper const struct rtnl_link_ops *
rust_helper_wg_netdev_link_ops(const struct net_device *dev)
{
	return dev->rtnl_link_ops;
}

/* A software device that carries IP packets without link-layer headers, point to point. */
__rust_helper void rust_helper_wg_netdev_setup_l3(struct net_device *dev,
						  const struct net_device_ops *ops,
						  const struct device_type *type, unsigned int mtu,
						  unsigned int max_mtu, unsigned short headroom,
						  unsigned short tailroom)
{
	const netdev_features_t features = NETIF_F_HW_CSUM | NETIF_F_RXCSUM | NETIF_F_SG |
					   NETIF_F_GSO | NETIF_F_GSO_SOFTWARE | NETIF_F_HIGHDMA;

	dev->netdev_ops = ops;
	dev->header_ops = &ip_tunnel_header_ops;
	dev->type = ARPHRD_NONE;
	dev->flags = IFF_POINTOPOINT | IFF_NOARP;
	dev->priv_flags |= IFF_NO_QUEUE;
	dev->lltx = true;
	dev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	dev->hard_header_len = 0;
	dev->addr_len = 0;
	dev->needed_headroom = headroom;
	dev->needed_tailroom = tailroom;
	dev->mtu = mtu;
	dev->min_mtu = 0;
	dev->max_mtu = max_mtu;
	dev->features |= features;
	dev->hw_features |= features;
	dev->hw_enc_features |= features;
	netif_set_tso_max_size(dev, GSO_MAX_SIZE);
	/* Needed for the MTU of a packet's path, and for ICMP errors. */
	netif_keep_dst(dev);
	SET_NETDEV_DEVTYPE(dev, type);
}

__rust_helper void rust_helper_wg_netdev_set_destructor(struct net_device *dev,
							void (*destructor)(struct net_device *dev))
{
	dev->needs_free_netdev = true;
	dev->priv_destructor = destructor;
}

/* A registered device has per-CPU counters; they are freed a grace period later. Under RCU. */
__rust_helper bool rust_helper_wg_netdev_registered(const struct net_device *dev)
{
	return READ_ONCE(dev->reg_state) == NETREG_REGISTERED;
}

__rust_helper void rust_helper_wg_netdev_sw_rx_add(struct net_device *dev, unsigned long packets,
						   unsigned long bytes)
{
	struct pcpu_sw_netstats *stats;

	if (unlikely(READ_ONCE(dev->reg_state) != NETREG_REGISTERED))
		return;
	stats = this_cpu_ptr(dev->tstats);
	u64_stats_update_begin(&stats->syncp);
	u64_stats_add(&stats->rx_packets, packets);
	u64_stats_add(&stats->rx_bytes, bytes);
	u64_stats_update_end(&stats->syncp);
}

__rust_helper void rust_helper_wg_netdev_add_tx_dropped(struct net_device *dev, unsigned long count)
{
	DEV_STATS_ADD(dev, tx_dropped, count);
}

__rust_helper void rust_helper_wg_netdev_add_rx_dropped(struct net_device *dev, unsigned long count)
{
	DEV_STATS_ADD(dev, rx_dropped, count);
}

__rust_helper void rust_helper_wg_netdev_inc_tx_errors(struct net_device *dev)
{
	DEV_STATS_INC(dev, tx_errors);
}

__rust_helper void rust_helper_wg_netdev_inc_rx_errors(struct net_device *dev)
{
	DEV_STATS_INC(dev, rx_errors);
}

__rust_helper void rust_helper_wg_netdev_inc_rx_frame_errors(struct net_device *dev)
{
	DEV_STATS_INC(dev, rx_frame_errors);
}

__rust_helper void rust_helper_wg_netdev_inc_rx_length_errors(struct net_device *dev)
{
	DEV_STATS_INC(dev, rx_length_errors);
}

/*
 * No ICMP redirects: it is normal for a tunnel that a packet leaves by the device that it came in
 * by. No IPv6 link-local address: there is no hardware address to derive one from. Under RTNL.
 */
__rust_helper void rust_helper_wg_netdev_no_redirects_no_addrgen(struct net_device *dev)
{
	struct in_device *in_dev = __in_dev_get_rtnl(dev);
#if IS_ENABLED(CONFIG_IPV6)
	struct inet6_dev *in6_dev = __in6_dev_get(dev);

	if (in6_dev)
		in6_dev->cnf.addr_gen_mode = IN6_ADDR_GEN_MODE_NONE;
#endif
	if (in_dev) {
		IN_DEV_CONF_SET(in_dev, SEND_REDIRECTS, false);
		IPV4_DEVCONF_ALL(dev_net(dev), SEND_REDIRECTS) = false;
	}
}

__rust_helper int rust_helper_wg_xmit_depth(void)
{
	return dev_recursion_level();
}

__rust_helper struct net *rust_helper_wg_newlink_link_net(struct rtnl_newlink_params *params)
{
	return rtnl_newlink_link_net(params);
}

/* Whether received packets may be put together. */
__rust_helper bool rust_helper_wg_netdev_may_gro(const struct net_device *dev)
{
	return !netif_elide_gro(dev);
}

/* No busy polling: there is no hardware queue to poll. */
__rust_helper void rust_helper_wg_napi_add(struct net_device *dev, struct napi_struct *napi,
					   int (*poll)(struct napi_struct *napi, int budget))
{
	set_bit(NAPI_STATE_NO_BUSY_POLL, &napi->state);
	netif_napi_add(dev, napi, poll);
}

__rust_helper void rust_helper_wg_napi_del(struct napi_struct *napi)
{
	netif_napi_del(napi);
}

/* Any context but hard interrupts: outside of softirqs, the poll runs when BH is enabled again. */
__rust_helper void rust_helper_wg_napi_schedule(struct napi_struct *napi)
{
	local_bh_disable();
	napi_schedule(napi);
	local_bh_enable();
}

__rust_helper void rust_helper_wg_napi_gro_receive(struct napi_struct *napi, struct sk_buff *skb)
{
	skb->dev = napi->dev;
	napi_gro_receive(napi, skb);
}
