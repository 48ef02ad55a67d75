// SPDX-License-Identifier: GPL-2.0-only

#include <linux/cpumask.h>
#include <linux/jiffies.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/siphash.h>
#include <linux/suspend.h>
#include <linux/timekeeping.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

__rust_helper u64 rust_helper_wg_boottime_coarse_ns(void)
{
	return ktime_get_coarse_boottime_ns();
}

__rust_helper void rust_helper_wg_cond_resched(void)
{
	cond_resched();
}

/* True if the timer was pending before. */
__rust_helper bool rust_helper_wg_mod_timer_ms(struct timer_list *timer, unsigned int ms)
{
	return mod_timer(timer, jiffies + msecs_to_jiffies(ms));
}

__rust_helper unsigned int rust_helper_wg_num_online_cpus(void)
{
	return num_online_cpus();
}

__rust_helper unsigned int rust_helper_wg_next_online_cpu(unsigned int after)
{
	unsigned int cpu = nr_cpu_ids;

	/* cpumask_next() takes an int, and no number above the last CPU's. */
	if (after < nr_cpu_ids)
		cpu = cpumask_next(after, cpu_online_mask);
	if (cpu >= nr_cpu_ids)
		cpu = cpumask_first(cpu_online_mask);
	return cpu;
}

__rust_helper bool rust_helper_wg_queue_work_on(unsigned int cpu, struct workqueue_struct *wq,
						struct work_struct *work)
{
	/* If the CPU goes offline after the check, the workqueue takes care of that. */
	if (cpu >= nr_cpu_ids || !cpu_online(cpu))
		cpu = WORK_CPU_UNBOUND;
	return queue_work_on(cpu, wq, work);
}

__rust_helper u64 rust_helper_wg_siphash(const void *data, size_t len, const siphash_key_t *key)
{
	return siphash(data, len, key);
}

__rust_helper int rust_helper_wg_register_pm_notifier(struct notifier_block *block)
{
	return register_pm_notifier(block);
}

__rust_helper int rust_helper_wg_unregister_pm_notifier(struct notifier_block *block)
{
	return unregister_pm_notifier(block);
}

__rust_helper int rust_helper_wg_register_vmfork_notifier(struct notifier_block *block)
{
	return register_random_vmfork_notifier(block);
}

__rust_helper int rust_helper_wg_unregister_vmfork_notifier(struct notifier_block *block)
{
	return unregister_random_vmfork_notifier(block);
}
