// SPDX-License-Identifier: GPL-2.0-only

#include <linux/bottom_half.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>

/* Inline on kernels without lazy callbacks. */
__rust_helper void rust_helper_wg_call_rcu_hurry(struct callback_head *head, rcu_callback_t func)
{
	call_rcu_hurry(head, func);
}

__rust_helper void rust_helper_wg_local_bh_disable(void)
{
	local_bh_disable();
}

__rust_helper void rust_helper_wg_local_bh_enable(void)
{
	local_bh_enable();
}

__rust_helper bool rust_helper_wg_refcount_inc_not_zero(refcount_t *refcount)
{
	return refcount_inc_not_zero(refcount);
}

__rust_helper void rust_helper_wg_spin_lock_bh(spinlock_t *lock)
{
	spin_lock_bh(lock);
}

__rust_helper int rust_helper_wg_spin_trylock_bh(spinlock_t *lock)
{
	return spin_trylock_bh(lock);
}

__rust_helper void rust_helper_wg_spin_unlock_bh(spinlock_t *lock)
{
	spin_unlock_bh(lock);
}
