// SPDX-License-Identifier: GPL-2.0-only

//! The CPU that a peer's packets leave on.

/// A home moves to another CPU when nothing was delivered for so many jiffies, 32 to 320 ms: what
/// the CPU before has delivered has gone on by then, even if its soft interrupts were late.
const SETTLED: u32 = 32;

/// Who asks to deliver, and when.
#[derive(Clone, Copy)]
pub struct Caller {
    /// The CPU that it runs on.
    pub cpu: u32,
    /// The time in jiffies.
    pub now: u32,
    /// Whether a CPU is online. One that is not has handed on its queues.
    pub is_online: fn(u32) -> bool,
}

/// The CPU that delivers a FIFO's runs. Beyond the FIFO there are queues that each CPU has, where
/// what two CPUs deliver at once may change its order.
#[derive(Clone, Copy)]
pub struct Home {
    cpu: u32,
    /// When it was last delivered there.
    last: u32,
}

impl Home {
    /// No CPU yet: one that is never online.
    pub const NONE: Self = Self {
        cpu: u32::MAX,
        last: 0,
    };

    /// Lets the caller deliver, if it is at home, or moves in.
    ///
    /// # Errors
    ///
    /// The CPU that must deliver instead.
    #[inline]
    pub fn enter(&mut self, caller: Caller) -> Result<(), u32> {
        let is_settled = caller.now.wrapping_sub(self.last) >= SETTLED;
        if self.cpu != caller.cpu && !is_settled && (caller.is_online)(self.cpu) {
            return Err(self.cpu);
        }
        *self = Self {
            cpu: caller.cpu,
            last: caller.now,
        };
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn caller(cpu: u32, now: u32) -> Caller {
        Caller {
            cpu,
            now,
            is_online: |cpu| cpu < 3,
        }
    }

    #[test]
    fn a_home_is_left_at_once_if_it_is_not_online() {
        let mut home = Home::NONE;
        for (cpu, result) in [
            (3, Ok(())),
            (1, Ok(())),
            (2, Err(1)),
            (3, Err(1)),
            (1, Ok(())),
        ] {
            assert_eq!(home.enter(caller(cpu, 0)), result, "{cpu}");
        }
    }

    #[test]
    fn a_home_moves_when_nothing_is_under_way() {
        for start in [SETTLED, u32::MAX - 1] {
            let mut home = Home::NONE;
            let mut enter = |cpu, after| home.enter(caller(cpu, start.wrapping_add(after)));
            assert_eq!(enter(1, 0), Ok(()));
            assert_eq!(enter(2, SETTLED - 1), Err(1));
            assert_eq!(enter(1, SETTLED - 1), Ok(()));
            assert_eq!(enter(2, SETTLED), Err(1), "counted from the last delivery");
            assert_eq!(enter(2, 2 * SETTLED - 1), Ok(()));
            assert_eq!(enter(1, 2 * SETTLED), Err(2));
            assert_eq!(enter(2, u32::MAX), Ok(()), "however long ago");
        }
    }
}
