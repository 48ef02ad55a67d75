// SPDX-License-Identifier: GPL-2.0-only

#include <net/genetlink.h>

__rust_helper bool rust_helper_wg_genl_has_listeners(const struct genl_family *family,
						     struct net *net, unsigned int group)
{
	return genl_has_listeners(family, net, group) > 0;
}

/* Cuts the text if it is too long. */
__rust_helper void rust_helper_wg_genl_explain(const struct genl_info *info,
					       const struct nlattr *attr, const char *text,
					       size_t len)
{
	GENL_SET_ERR_MSG_FMT(info, "%.*s", (int)len, text);
	if (info->extack && attr)
		info->extack->bad_attr = attr;
}

__rust_helper struct sk_buff *rust_helper_wg_genlmsg_new(size_t payload, gfp_t flags)
{
	return genlmsg_new(payload, flags);
}

__rust_helper void rust_helper_wg_nlmsg_free(struct sk_buff *skb)
{
	nlmsg_free(skb);
}

__rust_helper int rust_helper_wg_genlmsg_multicast_netns(const struct genl_family *family,
							 struct net *net, struct sk_buff *skb,
							 unsigned int group, gfp_t flags)
{
	return genlmsg_multicast_netns(family, net, skb, 0, group, flags);
}
