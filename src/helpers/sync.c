// SPDX-License-Identifier: GPL-2.0

#include <linux/rcupdate.h>
#include <linux/spinlock.h>

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
