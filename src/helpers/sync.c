// SPDX-License-Identifier: GPL-2.0

#include <linux/bottom_half.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>

void rust_helper_wg_local_bh_disable(void)
{
	local_bh_disable();
}

void rust_helper_wg_local_bh_enable(void)
{
	local_bh_enable();
}

bool rust_helper_wg_refcount_inc_not_zero(refcount_t *refcount)
{
	return refcount_inc_not_zero(refcount);
}

void rust_helper_wg_spin_lock_bh(spinlock_t *lock)
{
	spin_lock_bh(lock);
}

int rust_helper_wg_spin_trylock_bh(spinlock_t *lock)
{
	return spin_trylock_bh(lock);
}

void rust_helper_wg_spin_unlock_bh(spinlock_t *lock)
{
	spin_unlock_bh(lock);
}
