// SPDX-License-Identifier: GPL-2.0-only

#include <linux/capability.h>
#include <linux/list.h>
#include <linux/netdevice.h>
#include <linux/spinlock.h>
#include <net/net_namespace.h>

/*
 * Weak pointers to namespaces: `wg_weak_nets_clear()`, called while a namespace exits, clears those
 * that point to it, before it is freed.
 */
struct wg_weak_net {
	struct list_head list;
	struct net __rcu *net;
};

static LIST_HEAD(wg_weak_nets);
static DEFINE_SPINLOCK(wg_weak_nets_lock);

__rust_helper void rust_helper_wg_weak_net_add(struct wg_weak_net *weak, struct net *net)
{
	spin_lock_bh(&wg_weak_nets_lock);
	rcu_assign_pointer(weak->net, net);
	list_add(&weak->list, &wg_weak_nets);
	spin_unlock_bh(&wg_weak_nets_lock);
}

__rust_helper void rust_helper_wg_weak_net_del(struct wg_weak_net *weak)
{
	spin_lock_bh(&wg_weak_nets_lock);
	RCU_INIT_POINTER(weak->net, NULL);
	list_del(&weak->list);
	spin_unlock_bh(&wg_weak_nets_lock);
}

__rust_helper void rust_helper_wg_weak_net_clear(struct wg_weak_net *weak)
{
	spin_lock_bh(&wg_weak_nets_lock);
	RCU_INIT_POINTER(weak->net, NULL);
	spin_unlock_bh(&wg_weak_nets_lock);
}

__rust_helper void rust_helper_wg_weak_nets_clear(struct net *net)
{
	struct wg_weak_net *weak;

	spin_lock_bh(&wg_weak_nets_lock);
	list_for_each_entry(weak, &wg_weak_nets, list) {
		if (rcu_access_pointer(weak->net) == net)
			RCU_INIT_POINTER(weak->net, NULL);
	}
	spin_unlock_bh(&wg_weak_nets_lock);
}

/* To be compared only, not to be dereferenced. */
__rust_helper const struct net *rust_helper_wg_weak_net_peek(const struct wg_weak_net *weak)
{
	return rcu_access_pointer(weak->net);
}

/* Takes a reference, unless the namespace has exited or is exiting. */
__rust_helper struct net *rust_helper_wg_weak_net_get(struct wg_weak_net *weak)
{
	struct net *net;

	rcu_read_lock();
	net = rcu_dereference(weak->net);
	if (net)
		net = maybe_get_net(net);
	rcu_read_unlock();
	return net;
}

__rust_helper void rust_helper_wg_get_net(struct net *net)
{
	get_net(net);
}

__rust_helper void rust_helper_wg_put_net(struct net *net)
{
	put_net(net);
}

__rust_helper u64 rust_helper_wg_net_cookie(const struct net *net)
{
	return net->net_cookie;
}

__rust_helper bool rust_helper_wg_net_admin(const struct net *net)
{
	return ns_capable(net->user_ns, CAP_NET_ADMIN);
}

/* The index of the interface of this name, 0 if there is none. */
__rust_helper int rust_helper_wg_net_ifindex(struct net *net, const char *name)
{
	const struct net_device *dev;
	int ifindex = 0;

	rcu_read_lock();
	dev = dev_get_by_name_rcu(net, name);
	if (dev)
		ifindex = dev->ifindex;
	rcu_read_unlock();
	return ifindex;
}
