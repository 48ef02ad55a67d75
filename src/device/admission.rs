// SPDX-License-Identifier: GPL-2.0-only

//! Which handshake messages are worth a Diffie-Hellman (whitepaper, section 5.3; cookies: 5.4.7).

use kernel::{alloc::flags::GFP_KERNEL, prelude::*};

use crate::{
    device::{endpoint::Endpoint, events, limiter::Limiter, random_secret, socket, Device},
    kapi::{
        crypto::KernelCrypto,
        debug::{self, SkbEvent},
        net::{namespace::Net, skbuff::SkBuff, sockaddr::SockAddr},
        random,
        sync::{
            atomic::Ordering::Relaxed,
            rcu::{self, RcuArc},
        },
        time,
    },
    proto::{
        consts::{UNDER_LOAD_HANDSHAKES, UNDER_LOAD_HOLD_NS, XNONCE_LEN},
        cookie::{CookieChecker, MacState, Source},
        messages::HandshakeMessage,
        Rejection,
    },
};

/// Whether so much is waiting that senders must show that they own their address. One
/// verdict for all devices, and it holds on for a moment, so that it does not flutter.
fn is_under_load(device: &Device, now: u64) -> bool {
    let shared = device.shared();
    if device.handshakes.len() >= UNDER_LOAD_HANDSHAKES as usize {
        shared.under_load_since.store(now.max(1), Relaxed);
        return true;
    }
    let since = shared.under_load_since.load(Relaxed);
    since != 0 && now.saturating_sub(since) < UNDER_LOAD_HOLD_NS
}

/// What checks MACs now; no lock is shared by those who check. Under load its secret is replaced
/// when it is due. Process context.
fn cookie_checker(device: &Device, under_load: bool, now: u64) -> Option<RcuArc<CookieChecker>> {
    let checker = device.cookie_checker.get()?;
    if !under_load || !checker.needs_rotation(now) {
        return Some(checker);
    }
    let rotated = change_checker(device, |checker| {
        // Another worker may have come first.
        if checker.needs_rotation(now) {
            checker.rotate(random_secret(), now);
        }
    });
    // Without memory the old secret stays, which neither validates nor makes cookies.
    rotated.ok().or(Some(checker))
}

/// Publishes a changed cookie checker in the place of the present one. Process context.
///
/// # Errors
///
/// `ENOMEM`; nothing has changed then.
#[inline(never)]
pub(crate) fn change_checker(
    device: &Device,
    change: impl FnOnce(&mut CookieChecker),
) -> Result<RcuArc<CookieChecker>> {
    let _writer = device.checker_writer.lock();
    let mut checker = device.cookie_checker.get().ok_or(ENODEV)?.duplicate();
    change(&mut checker);
    let checker = RcuArc::new(checker, GFP_KERNEL)?;
    device.cookie_checker.swap(Some(checker.clone()));
    Ok(checker)
}

/// Checks the MACs of a message; under load also where it comes from. Answers with a cookie
/// when that is what is missing.
#[inline(never)]
pub(crate) fn admit<M: HandshakeMessage>(device: &Device, skb: &SkBuff, message: &M) -> bool {
    let now = time::boottime_coarse_ns();
    let endpoint = Endpoint::from_skb(skb);
    let source = endpoint
        .as_ref()
        .and_then(|endpoint| source_of(endpoint.remote()));
    let Some((endpoint, source)) = endpoint.zip(source) else {
        device.refuse_packet(Rejection::UnknownType, skb);
        return false;
    };
    let under_load = is_under_load(device, now);
    events::note_load(device, under_load);
    let Some(checker) = cookie_checker(device, under_load, now) else {
        device.refuse_packet(Rejection::NoIdentity, skb);
        return false;
    };
    match checker.validate_macs::<KernelCrypto, M>(message, &source, under_load, now) {
        MacState::ValidMac1 if !under_load => true,
        MacState::ValidWithCookie => {
            // The limiter may sleep: only the cookie is read under RCU.
            let netns = device.netdev().net(&rcu::read_lock()).map(Net::cookie);
            let allowed = netns
                .zip(endpoint.remote().ip())
                .is_some_and(|(netns, address)| {
                    Limiter::allow(&device.shared().limiter, netns, address, now)
                });
            if !allowed {
                report_drop(device, skb, Rejection::RateLimited);
            }
            allowed
        }
        MacState::ValidMac1 => {
            let mut nonce = [0; XNONCE_LEN];
            random::fill(&mut nonce);
            let reply = checker.create_reply::<KernelCrypto, M>(message, &source, nonce, now);
            if let Ok(reply) = reply {
                debug::skb(device.netdev(), SkbEvent::SendCookie, skb);
                let _ = socket::reply(device, &endpoint, reply.as_bytes());
                device.counters.note_cookie_sent();
            }
            device.refuse_packet(Rejection::CookieRequired, skb);
            false
        }
        MacState::Invalid => {
            debug::skb(device.netdev(), SkbEvent::InvalidMac, skb);
            device.refuse_packet(Rejection::InvalidMac1, skb);
            false
        }
    }
}

/// Counts a handshake message that is not looked at any further, with a debug message.
pub(crate) fn report_drop(device: &Device, skb: &SkBuff, rejection: Rejection) {
    device.refuse_packet(rejection, skb);
    let reason = rejection.as_str();
    debug::skb(device.netdev(), SkbEvent::DropHandshake { reason }, skb);
}

/// What cookies are bound to.
fn source_of(sender: &SockAddr) -> Option<Source> {
    match sender.ip()? {
        core::net::IpAddr::V4(address) => {
            Some(Source::v4(address.octets(), sender.port().to_be_bytes()))
        }
        core::net::IpAddr::V6(address) => {
            Some(Source::v6(address.octets(), sender.port().to_be_bytes()))
        }
    }
}
