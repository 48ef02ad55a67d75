// SPDX-License-Identifier: GPL-2.0-only

//! Debug messages, as call sites of dynamic debug.
//!
//! The kernel crate's `pr_debug!()` is not part of dynamic debug. Here each message is an event
//! with a call site of its own, where `module wireguard_rs +p` and the like find it; its function
//! is the event's name. The prefix and the names of the objects are those of the in-tree driver,
//! for people and tools that look for them. What a remote party can provoke is rate limited.
//!
//! A message that is switched off costs a call, a load and a branch. All functions may be called in
//! any context.
//!
//! C header: [`include/linux/dynamic_debug.h`](srctree/include/linux/dynamic_debug.h)

use core::{mem::zeroed, ptr};

use kernel::{
    error::Error,
    str::{as_char_ptr_in_const_context, CStrExt as _},
    types::Opaque,
};

use crate::{
    bindings,
    kapi::net::{
        netdevice::NetDevice,
        skbuff::Skb,
        sockaddr::{Family, SockAddr},
    },
};

/// What all messages begin with; dynamic debug does not count it among a message's format.
macro_rules! prefix {
    () => {
        "wireguard: "
    };
}

/// Defines the events of one kind, each with its message.
///
/// `Always` messages are not rate limited, `Limited` ones are. The format is that of `printk()`; it
/// is preceded by the device's name and followed by a line break. The function that reports the
/// kind says which arguments follow; a format may use the first of them only.
macro_rules! events {
    (
        $(#[$attr:meta])*
        $vis:vis enum $kind:ident {
            $(
                $(#[$event_attr:meta])*
                $event:ident $({ $($(#[$field_attr:meta])* $field:ident: $type:ty,)* })?
                    => $limit:ident $format:literal,
            )*
        }
    ) => {
        $(#[$attr])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $kind {
            $(
                $(#[$event_attr])*
                $event $({ $($(#[$field_attr])* $field: $type,)* })?,
            )*
        }

        impl $kind {
            /// The event's call site if its message is to be printed now.
            fn enabled(&self) -> Option<&'static CallSite> {
                let (site, limit) = match self {
                    $(
                        Self::$event { .. } => {
                            #[link_section = "__dyndbg"]
                            static SITE: CallSite = CallSite::new(
                                concat!(file!(), "\0"),
                                concat!(stringify!($event), "\0"),
                                concat!(prefix!(), "%s: ", $format, "\n\0"),
                                line!(),
                            );
                            (&SITE, Limit::$limit)
                        }
                    )*
                };
                site.is_on(limit).then_some(site)
            }
        }
    };
}

events! {
    /// What happens to a device.
    pub enum DevEvent {
        /// It has been registered.
        Created => Always "Interface created",
        /// It has been destroyed.
        Destroyed => Always "Interface destroyed",
        /// The namespace that its sockets are in exits.
        NetnsExit => Always "Creating namespace is going away",
    }
}

events! {
    /// What happens to a peer. Arguments: its number, its endpoint, two numbers of the event.
    pub enum PeerEvent {
        /// It has been created.
        Created => Always "Peer %llu created",
        /// It has been freed.
        Destroyed => Always "Peer %llu (%pISpfsc) destroyed",
        /// We send an initiation.
        SendInitiation => Limited "Sent handshake initiation to peer %llu (%pISpfsc)",
        /// We send a response.
        SendResponse => Limited "Sent handshake response to peer %llu (%pISpfsc)",
        /// We send a keepalive.
        SendKeepalive => Limited "Sent keepalive packet to peer %llu (%pISpfsc)",
        /// An initiation was accepted.
        RecvInitiation => Limited "Received handshake initiation from peer %llu (%pISpfsc)",
        /// A response was accepted.
        RecvResponse => Limited "Received handshake response from peer %llu (%pISpfsc)",
        /// A keepalive was accepted.
        RecvKeepalive => Limited "Received keepalive packet from peer %llu (%pISpfsc)",
        /// There was no response; the initiation is repeated.
        RetryHandshake {
            /// How long it was waited for.
            after_ms: u32,
            /// The number of the initiation that follows, from 2.
            attempt: u32,
        } => Always
            "Handshake for peer %llu (%pISpfsc) has had no response in %u s, retrying (try %u)",
        /// There was no response, and no other initiation follows.
        GiveUpHandshake {
            /// The number of initiations sent.
            attempts: u32,
        } => Always
            "Handshake for peer %llu (%pISpfsc) has had no response to %u tries, giving up",
        /// The peer has fallen silent; a handshake is tried.
        NoResponseRetry {
            /// How long it has been silent.
            after_ms: u32,
        } => Always
            "Retrying handshake with peer %llu (%pISpfsc): nothing was heard of it for %u s",
        /// The session has expired, its keys are erased.
        ZeroKeys {
            /// How old it is.
            after_ms: u32,
        } => Always "Zeroed all keys for peer %llu (%pISpfsc): no new session in %u s",
        /// Its endpoint has changed.
        Roamed => Limited "Endpoint of peer %llu is now %pISpfsc",
        /// A packet cannot be sent as there is no endpoint.
        NoEndpoint => Limited "No endpoint for peer %llu",
        /// A decrypted packet is shorter than it says.
        InvalidSize => Limited "Packet has an incorrect size, from peer %llu (%pISpfsc)",
        /// A decrypted packet is neither IPv4 nor IPv6.
        InvalidType => Limited "Packet is neither IPv4 nor IPv6, from peer %llu (%pISpfsc)",
    }
}

events! {
    /// What happens to a session. Arguments: the numbers of the keypair and of its peer.
    pub enum KeypairEvent {
        /// It begins.
        Created => Limited "Keypair %llu created for peer %llu",
        /// It ends.
        Destroyed => Limited "Keypair %llu destroyed for peer %llu",
    }
}

events! {
    /// What happens to a packet. Arguments: an address (the sender of a message, the destination of
    /// a packet to send), a reason as length and text.
    pub enum SkbEvent {
        /// To send: not an IP packet.
        InvalidIp => Limited "Invalid IP packet to send",
        /// To send: no peer has its destination among its allowed IPs.
        NoPeer => Limited "No peer has allowed IPs for %pISc",
        /// Received: not a message.
        InvalidHeader => Limited "Invalid message header, packet dropped",
        /// Received: a handshake message that is dropped before it is parsed.
        DropHandshake {
            /// Why, in plain words.
            reason: &'static str,
        } => Limited "Handshake packet from %pISpfsc dropped: %.*s",
        /// Received: a handshake message without a valid MAC.
        InvalidMac => Limited "Invalid MAC of handshake packet from %pISpfsc",
        /// Received: a handshake message that is answered by a cookie reply.
        SendCookie => Limited "Sent cookie response to %pISpfsc: under load",
        /// Received: a cookie reply.
        RecvCookie => Limited "Received cookie response from %pISpfsc",
        /// Received: a cookie reply that is refused.
        InvalidCookie {
            /// Why, in plain words.
            reason: &'static str,
        } => Limited "Invalid cookie response from %pISpfsc: %.*s",
        /// Received: an initiation that is refused.
        InvalidInitiation {
            /// Why, in plain words.
            reason: &'static str,
        } => Limited "Invalid handshake initiation from %pISpfsc: %.*s",
        /// Received: a response that is refused.
        InvalidResponse {
            /// Why, in plain words.
            reason: &'static str,
        } => Limited "Invalid handshake response from %pISpfsc: %.*s",
    }
}

events! {
    /// Arguments: the counter, and the greatest one plus one.
    enum NonceEvent {
        Invalid => Limited "Packet has nonce %llu, seen before or too old (max %llu)",
    }
}

events! {
    /// Arguments: an address, a peer's number, its endpoint.
    enum SourceEvent {
        NotAllowed => Limited
            "Packet has src IP %pISc, not among the allowed IPs of peer %llu (%pISpfsc)",
    }
}

events! {
    /// Arguments: the endpoint, an error number.
    enum RouteEvent {
        None => Limited "No route to %pISpfsc: error %d",
    }
}

/// Reports what happens to a device.
pub fn dev(dev: &NetDevice, event: DevEvent) {
    if let Some(site) = event.enabled() {
        // SAFETY: The formats of the kind have no arguments but the name.
        unsafe { site.print(dev, [0; 4]) };
    }
}

/// Reports what happens to a peer; `endpoint` where the message names one.
pub fn peer(dev: &NetDevice, event: PeerEvent, peer: u64, endpoint: Option<&SockAddr>) {
    let Some(site) = event.enabled() else { return };
    let (first, second) = match event {
        PeerEvent::RetryHandshake { after_ms, attempt } => (after_ms / 1000, attempt),
        PeerEvent::GiveUpHandshake { attempts } => (attempts, 0),
        PeerEvent::NoResponseRetry { after_ms } | PeerEvent::ZeroKeys { after_ms } => {
            (after_ms / 1000, 0)
        }
        _ => (0, 0),
    };
    let args = [
        peer as usize,
        addr(endpoint.unwrap_or(&SockAddr::NONE)),
        first as usize,
        second as usize,
    ];
    // SAFETY: These are the arguments of the kind.
    unsafe { site.print(dev, args) };
}

/// Reports what happens to a session.
pub fn keypair(dev: &NetDevice, event: KeypairEvent, keypair: u64, peer: u64) {
    if let Some(site) = event.enabled() {
        // SAFETY: These are the arguments of the kind.
        unsafe { site.print(dev, [keypair as usize, peer as usize, 0, 0]) };
    }
}

/// Reports what happens to a packet.
pub fn skb(dev: &NetDevice, event: SkbEvent, skb: &Skb) {
    let Some(site) = event.enabled() else { return };
    let reason = match event {
        SkbEvent::DropHandshake { reason }
        | SkbEvent::InvalidCookie { reason }
        | SkbEvent::InvalidInitiation { reason }
        | SkbEvent::InvalidResponse { reason } => reason,
        _ => "",
    };
    let subject = match event {
        SkbEvent::NoPeer => skb.dst_addr().map(SockAddr::from_ip),
        _ => SockAddr::sender_of(skb),
    }
    .unwrap_or(SockAddr::NONE);
    let args = [
        addr(&subject),
        reason.len(),
        reason.as_ptr().expose_provenance(),
        0,
    ];
    // SAFETY: These are the arguments of the kind.
    unsafe { site.print(dev, args) };
}

/// Reports that the source of a packet that came from `peer`, at `endpoint`, does not belong to it.
/// The packet's network header is that of the inner packet.
pub fn unallowed_src(dev: &NetDevice, skb: &Skb, peer: u64, endpoint: &SockAddr) {
    if let Some(site) = SourceEvent::NotAllowed.enabled() {
        let source = skb.src_addr().map_or(SockAddr::NONE, SockAddr::from_ip);
        let args = [addr(&source), peer as usize, addr(endpoint), 0];
        // SAFETY: These are the arguments of the kind.
        unsafe { site.print(dev, args) };
    }
}

/// Reports that the counter of a decrypted packet is replayed or too old; `max` is one more than
/// the greatest one accepted.
pub fn invalid_nonce(dev: &NetDevice, nonce: u64, max: u64) {
    if let Some(site) = NonceEvent::Invalid.enabled() {
        // SAFETY: These are the arguments of the kind.
        unsafe { site.print(dev, [nonce as usize, max as usize, 0, 0]) };
    }
}

/// Reports that a message cannot be sent to `endpoint`, and why.
pub fn no_route(dev: &NetDevice, endpoint: &SockAddr, error: Error) {
    if let Some(site) = RouteEvent::None.enabled() {
        // SAFETY: These are the arguments of the kind.
        unsafe { site.print(dev, [addr(endpoint), error.to_errno() as usize, 0, 0]) };
    }
}

/// Reports that a device's socket of a family cannot be opened. No debug message but an error,
/// which is always printed; `pr_err!()` has another prefix.
pub fn no_socket(dev: &NetDevice, family: Family) {
    // `KERN_ERR` comes first.
    let format = match family {
        Family::V4 => c"\x013wireguard: %s: Could not create IPv4 socket\n",
        Family::V6 => c"\x013wireguard: %s: Could not create IPv6 socket\n",
    };
    // SAFETY: The format has one argument, a string; the device and its name are valid.
    unsafe { bindings::_printk(format.as_char_ptr(), bindings::wg_netdev_name(dev.as_raw())) };
}

/// A socket address as an argument of a message (`%pIS`). Without an address the family is 0, which
/// is printed as unknown.
fn addr(addr: &SockAddr) -> usize {
    ptr::from_ref(addr).expose_provenance()
}

/// Whether a message is rate limited.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    Always,
    Limited,
}

/// A call site of dynamic debug: the kernel's `struct _ddebug`.
///
/// # Invariants
///
/// It is a static in section `__dyndbg`. Its strings are static and end with a zero byte; `format`
/// points behind the prefix in such a string.
#[repr(transparent)]
struct CallSite(Opaque<bindings::_ddebug>);

// SAFETY: The core changes a site under a lock of its own; we only read its flags, which may change
// at any time.
unsafe impl Sync for CallSite {}

// Each argument of a message takes a register or a place on the stack of this size.
const _: () = assert!(size_of::<usize>() == size_of::<u64>());

impl CallSite {
    /// All strings must end with a zero byte, and `format` begin with the prefix.
    const fn new(
        file: &'static str,
        function: &'static str,
        format: &'static str,
        line: u32,
    ) -> Self {
        // SAFETY: The C struct of numbers, pointers and a static key that is off may be all zeros.
        let mut site: bindings::_ddebug = unsafe { zeroed() };
        site.modname = as_char_ptr_in_const_context(c"wireguard_rs");
        site.filename = file.as_ptr().cast();
        site.function = function.as_ptr().cast();
        // SAFETY: The format is longer than the prefix.
        site.format = unsafe { format.as_ptr().add(prefix!().len()) }.cast();
        // The line in 18 bits, the class in 6, and no flags.
        let word = (line & 0x3ffff) | bindings::_DPRINTK_CLASS_DFLT << 18;
        site._bitfield_1 = bindings::__BindgenBitfieldUnit::new(word.to_le_bytes());
        // INVARIANT: By the requirements of this function, of which `events!` makes statics only.
        Self(Opaque::new(site))
    }

    /// Whether the message is to be printed now.
    #[inline]
    fn is_on(&self, limit: Limit) -> bool {
        // SAFETY: The site is valid; the flags may change at any time, and are read once.
        let flags = unsafe { bindings::_ddebug::flags_raw(self.0.get()) };
        cfg!(CONFIG_DYNAMIC_DEBUG)
            && flags & bindings::_DPRINTK_FLAGS_PRINT != 0
            // SAFETY: No requirements.
            && (limit == Limit::Always || unsafe { bindings::net_ratelimit() } != 0)
    }

    /// Prints the message.
    ///
    /// # Safety
    ///
    /// The arguments that the format has after the device's name must be the first of `args`: as
    /// many, in that order, strings and addresses as pointers that are valid for the call.
    #[cold]
    #[cfg(CONFIG_DYNAMIC_DEBUG)]
    unsafe fn print(&self, dev: &NetDevice, args: [usize; 4]) {
        let [a, b, c, d] = args;
        let site = self.0.get();
        // SAFETY: By the type invariant the format is in a string that begins with the prefix. The
        // arguments fit by the requirement of this function; those too many are not looked at, and
        // a number takes the same place whatever its size.
        unsafe {
            let format = (*site).format.sub(prefix!().len());
            let name = bindings::wg_netdev_name(dev.as_raw());
            bindings::__dynamic_pr_debug(site, format, name, a, b, c, d);
            if bindings::_ddebug::flags_raw(site) & bindings::_DPRINTK_FLAGS_INCL_STACK != 0 {
                bindings::dump_stack();
            }
        }
    }

    /// Without dynamic debug no message is ever printed.
    #[cfg(not(CONFIG_DYNAMIC_DEBUG))]
    unsafe fn print(&self, _dev: &NetDevice, _args: [usize; 4]) {}
}
