// SPDX-License-Identifier: GPL-2.0-only

#include <linux/module.h>

#ifdef WGRS_VERSION
/* `module!` has no field for the version; this makes /sys/module/wireguard_rs/version. */
MODULE_VERSION(WGRS_VERSION);
#endif
