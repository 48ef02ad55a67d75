// SPDX-License-Identifier: GPL-2.0-only

//! What the module registers with the kernel, and the events that come from outside of a link:
//! suspend and VM fork.

use kernel::{alloc::flags::GFP_KERNEL, prelude::*, sync::Arc};

use crate::{
    device::{
        limiter::Limiter,
        link::{self, WireGuardLink},
        netlink, packet, Shared, SharedHandle, SHARED,
    },
    kapi::{
        net::{
            genetlink,
            rtnl::{self, LinkRegistration},
        },
        notifier::{
            PmCallback, PmEvent, PmNotifier, VmForkCallback, VmForkNotifier, SUSPENDS_CONSTANTLY,
        },
        sync::rcu::{self, RcuArc},
    },
};

/// All that the module has registered, in the order in which it is taken back.
pub(crate) struct Registration {
    _netlink: genetlink::Registration,
    _vm_fork: VmForkNotifier<WireGuardLink>,
    _pm: PmNotifier<WireGuardLink>,
    _link: LinkRegistration<WireGuardLink>,
    _shared: SharedRegistration,
}

impl Registration {
    /// Registers everything, under names of its own if `coexist`; `bulk` as in [`Shared`]. What was
    /// registered is taken back if a later step fails.
    ///
    /// # Errors
    ///
    /// `EEXIST` if somebody else provides WireGuard.
    pub(crate) fn new(coexist: bool, bulk: bool) -> Result<Self> {
        let kind = if coexist {
            c"wireguard_rs"
        } else {
            c"wireguard"
        };
        packet::choose_cipher()?;
        let shared = SharedRegistration::new(bulk, netlink::register_extension(coexist)?)?;
        let link = LinkRegistration::register(kind)?;
        Ok(Self {
            _shared: shared,
            _link: link,
            _pm: PmNotifier::new()?,
            _vm_fork: VmForkNotifier::new()?,
            _netlink: netlink::register(coexist)?,
        })
    }
}

/// New devices find [`Shared`] while this exists.
struct SharedRegistration(Option<Arc<Shared>>);

impl SharedRegistration {
    fn new(bulk: bool, family: genetlink::Registration) -> Result<Self> {
        let shared = Arc::new(Shared::new(bulk, family)?, GFP_KERNEL)?;
        SHARED.swap(Some(RcuArc::new(SharedHandle(shared.clone()), GFP_KERNEL)?));
        Ok(Self(Some(shared)))
    }
}

impl Drop for SharedRegistration {
    fn drop(&mut self) {
        SHARED.swap(None);
        if let Some(shared) = &self.0 {
            Limiter::stop(&shared.limiter);
        }
        // Devices hold it too, and go where nobody may sleep: they must be gone before. Each has
        // been let go of already.
        rcu::barrier();
        self.0 = None;
        rcu::drain();
    }
}

impl PmCallback for WireGuardLink {
    fn notify(event: PmEvent) {
        let suspending = matches!(event, PmEvent::SuspendPrepare | PmEvent::HibernationPrepare);
        if suspending && !SUSPENDS_CONSTANTLY {
            rtnl::for_each_device::<Self>(&rtnl::lock(), link::suspend);
            // A keypair's last reference is that of its entry in the index table: the first barrier
            // waits for the callbacks that free the entries, the second one for those that these
            // have queued, which erase the keys.
            rcu::barrier();
            rcu::barrier();
        }
    }
}

impl VmForkCallback for WireGuardLink {
    fn notify() {
        rtnl::for_each_device::<Self>(&rtnl::lock(), link::vm_fork);
    }
}
