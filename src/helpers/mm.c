// SPDX-License-Identifier: GPL-2.0-only

#include <linux/mm.h>

__rust_helper u64 rust_helper_wg_totalram_bytes(void)
{
	return (u64)totalram_pages() << PAGE_SHIFT;
}
