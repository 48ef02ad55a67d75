// SPDX-License-Identifier: GPL-2.0-only

//! Generic netlink families whose commands are written in Rust.
//!
//! The vocabulary, from the outside in:
//!
//! - a [`Family`] is a static; registering it gives a [`Registration`];
//! - its commands are a static table of [`Command`]s, each made from a type that implements
//!   [`Do`] (one request, executed or refused) or [`Dump`] (one request, many messages as answer);
//! - its multicast [`Group`]s are another one; [`Registration::notify`] sends to them;
//! - a [`Policy`] says how the core validates a request before a command sees it;
//! - a [`Request`] has [`Attr`]s; a [`Message`] is written through [`AttrWriter`] and [`Nest`].
//!
//! Commands run in process context and may sleep. The core serialises the commands of a family.
//!
//! This adds commands to what `kernel::net::netlink` has (families).
//!
//! C header: [`include/net/genetlink.h`](srctree/include/net/genetlink.h)

mod attr;
mod message;
mod policy;

use attr::Elements;
pub use attr::{Attr, Attrs};
pub use message::{AttrWriter, Message};
pub use policy::Policy;

use core::{
    fmt,
    marker::PhantomData,
    mem::{align_of, size_of},
    ptr::{addr_of, addr_of_mut, NonNull},
};

use kernel::{
    error::to_result,
    ffi::{c_char, c_int},
    prelude::*,
    types::Opaque,
};

use crate::{bindings, kapi::net::namespace::Net};

/// Who may send a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Who has `CAP_NET_ADMIN` in the user namespace that owns the caller's network namespace;
    /// others get [`EPERM`].
    NetnsAdmin,
}

impl Permission {
    const fn flags(self) -> u8 {
        match self {
            Self::NetnsAdmin => bindings::GENL_UNS_ADMIN_PERM as u8,
        }
    }
}

/// A command that is executed once per request.
pub trait Do {
    /// Its number in the family.
    const CMD: u8;

    /// Who may send it.
    const PERMISSION: Permission;

    /// How the core validates its attributes, strictly.
    const POLICY: &'static [Policy];

    /// Executes it. An error goes back to the sender with a copy of the request.
    fn run(request: &Request<'_>) -> Result;
}

/// A command that is answered by a series of messages, in as many buffers as they need.
pub trait Dump {
    /// The position of a dump, kept from one buffer to the next. At most 48 bytes.
    ///
    /// It may be dropped long after the last [`Dump::fill`], when the receiver closes its socket:
    /// what it holds a reference to may have been shut down by then.
    type Cursor: Send + 'static;

    /// Its number in the family.
    const CMD: u8;

    /// Who may send it.
    const PERMISSION: Permission;

    /// How the core validates its attributes, strictly.
    const POLICY: &'static [Policy];

    /// Starts a dump. An error goes back to the sender, and there is no dump.
    fn start(request: &Request<'_>) -> Result<Self::Cursor>;

    /// Writes messages until the buffer is full or there is nothing left to write.
    ///
    /// An error ends the dump, except that [`EMSGSIZE`] with a message in the buffer counts as
    /// [`Progress::More`].
    fn fill(cursor: &mut Self::Cursor, buffer: &mut DumpBuffer<'_>) -> Result<Progress>;
}

/// Whether a dump has more to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Call again with an empty buffer.
    More,
    /// The dump is complete.
    Done,
}

/// An entry in a family's table of commands.
///
/// # Invariants
///
/// The callbacks are the thunks of one type that implements [`Do`] or [`Dump`], the policy is a
/// static table of `maxattr` + 1 entries.
#[repr(transparent)]
pub struct Command(bindings::genl_split_ops);

// SAFETY: A command is never written to; by the invariant it points to static `Sync` data only.
unsafe impl Sync for Command {}

impl Command {
    /// The command that `T` implements.
    pub const fn new_do<T: Do>() -> Self {
        // INVARIANT: By the types.
        Self(bindings::genl_split_ops {
            __bindgen_anon_1: bindings::genl_split_ops__bindgen_ty_1 {
                __bindgen_anon_1: bindings::genl_split_ops__bindgen_ty_1__bindgen_ty_1 {
                    pre_doit: None,
                    doit: Some(doit_thunk::<T>),
                    post_doit: None,
                },
            },
            policy: T::POLICY.as_ptr().cast(),
            maxattr: max_attr(T::POLICY) as u32,
            cmd: T::CMD,
            internal_flags: 0,
            flags: T::PERMISSION.flags() | bindings::GENL_CMD_CAP_DO as u8,
            validate: 0,
        })
    }

    /// The command that `T` implements.
    pub const fn new_dump<T: Dump>() -> Self {
        const {
            assert!(size_of::<T::Cursor>() <= size_of::<CursorSpace>());
            assert!(align_of::<T::Cursor>() <= align_of::<CursorSpace>());
        }
        // INVARIANT: By the types.
        Self(bindings::genl_split_ops {
            __bindgen_anon_1: bindings::genl_split_ops__bindgen_ty_1 {
                __bindgen_anon_2: bindings::genl_split_ops__bindgen_ty_1__bindgen_ty_2 {
                    start: Some(start_thunk::<T>),
                    dumpit: Some(dumpit_thunk::<T>),
                    done: Some(done_thunk::<T>),
                },
            },
            policy: T::POLICY.as_ptr().cast(),
            maxattr: max_attr(T::POLICY) as u32,
            cmd: T::CMD,
            internal_flags: 0,
            flags: T::PERMISSION.flags() | bindings::GENL_CMD_CAP_DUMP as u8,
            validate: 0,
        })
    }
}

/// The highest attribute type of a level.
const fn max_attr(policy: &[Policy]) -> usize {
    policy.len().saturating_sub(1)
}

/// A multicast group of a family.
#[repr(transparent)]
pub struct Group(bindings::genl_multicast_group);

impl Group {
    /// A group that those may join who have `CAP_NET_ADMIN` in the user namespace that owns their
    /// network namespace.
    ///
    /// For the initialiser of a static: a name longer than 15 bytes fails to compile there.
    pub const fn for_admins(name: &'static CStr) -> Self {
        let mut group = bindings::genl_multicast_group {
            name: [0; bindings::GENL_NAMSIZ as usize],
            flags: bindings::GENL_MCAST_CAP_NET_ADMIN,
        };
        let bytes = name.to_bytes_with_nul();
        let mut i = 0;
        while i < bytes.len() {
            group.name[i] = bytes[i] as c_char;
            i += 1;
        }
        Self(group)
    }
}

/// A generic netlink family, available in every network namespace.
///
/// To be a static: the core keeps pointers to it while a dump is in progress, even after the end of
/// the registration; the dump also holds the module, and with it the static.
#[repr(transparent)]
pub struct Family(Opaque<bindings::genl_family>);

// SAFETY: After its construction only the core reads and writes the family, under its own locks.
unsafe impl Sync for Family {}

impl Family {
    /// Describes a family.
    ///
    /// For the initialiser of a static: a name longer than 15 bytes, or more commands than the
    /// core can count, fails to compile there. `commands` are sorted by number.
    #[inline] // So that no code is made for calls at run time, which could panic.
    pub const fn new(
        module: &'static ThisModule,
        name: &'static CStr,
        version: u8,
        commands: &'static [Command],
        groups: &'static [Group],
    ) -> Self {
        assert!(commands.len() <= u8::MAX as usize && groups.len() <= u8::MAX as usize);
        // SAFETY: A C struct of numbers, pointers and `Option`s of functions may be all zeros.
        let mut family: bindings::genl_family = unsafe { core::mem::zeroed() };
        let bytes = name.to_bytes_with_nul();
        let mut i = 0;
        while i < bytes.len() {
            family.name[i] = bytes[i] as c_char;
            i += 1;
        }
        family.version = version as u32;
        // `netnsok`, the first of the bit field; not `parallel_ops`, the second.
        family._bitfield_1 = bindings::__BindgenBitfieldUnit::new([1u8.to_le()]);
        family.split_ops = commands.as_ptr().cast();
        family.n_split_ops = commands.len() as u8;
        family.mcgrps = groups.as_ptr().cast();
        family.n_mcgrps = groups.len() as u8;
        family.module = module.as_ptr().cast();
        Self(Opaque::new(family))
    }

    /// Registers the family.
    ///
    /// [`EEXIST`] if there is a family of this name already.
    pub fn register(&'static self) -> Result<Registration> {
        // SAFETY: The family is static and complete. One that is registered already is refused
        // because of its name, before the core changes anything in it.
        to_result(unsafe { bindings::genl_register_family(self.0.get()) })?;
        // INVARIANT: Just registered.
        Ok(Registration { family: self })
    }
}

/// A registered family. Dropping it waits for running commands and unregisters the family.
///
/// # Invariants
///
/// `family` is registered, and this is its only registration.
pub struct Registration {
    family: &'static Family,
}

/// Bytes that an event has room for.
const EVENT_LEN: usize = 512;

impl Registration {
    /// Whether anybody listens to a group, in whatever namespace.
    #[inline]
    pub fn has_listeners(&self, net: &Net, group: u8) -> bool {
        // SAFETY: The family is registered by the invariant, the namespace is valid.
        unsafe { bindings::wg_genl_has_listeners(self.family.0.get(), net.as_raw(), group.into()) }
    }

    /// Sends a message, written by `fill`, to those who listen to a group in a namespace. Any
    /// context but hard interrupts.
    ///
    /// It waits for nobody: a listener without room misses the message, and its next read fails
    /// with `ENOBUFS`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EMSGSIZE`; `ESRCH` if nobody listens.
    pub fn notify(
        &self,
        net: &Net,
        group: u8,
        cmd: u8,
        fill: impl FnOnce(&mut AttrWriter<'_>) -> Result,
    ) -> Result {
        let family = self.family.0.get();
        // SAFETY: No requirements.
        let skb = unsafe { bindings::wg_genlmsg_new(EVENT_LEN, bindings::GFP_ATOMIC) };
        let skb = NonNull::new(skb).ok_or(ENOMEM)?;
        // SAFETY: The buffer is new, linear and only ours; the family is registered.
        let message = unsafe { Message::unrequested(skb, family, cmd) };
        let written = message.and_then(|mut message| {
            fill(&mut message)?;
            message.end();
            Ok(())
        });
        if let Err(error) = written {
            // SAFETY: The buffer is ours.
            unsafe { bindings::wg_nlmsg_free(skb.as_ptr()) };
            return Err(error);
        }
        // SAFETY: The family is registered, the namespace is valid; the buffer is ours, and the
        // callee takes it.
        to_result(unsafe {
            bindings::wg_genlmsg_multicast_netns(
                family,
                net.as_raw(),
                skb.as_ptr(),
                group.into(),
                bindings::GFP_ATOMIC,
            )
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: By the invariant the family is registered, and nobody else unregisters it. The
        // core can only fail for a family that is not.
        unsafe { bindings::genl_unregister_family(self.family.0.get()) };
    }
}

/// A request, its attributes validated by the core.
///
/// # Invariants
///
/// For `'a`, `info` and the message that it describes are valid, only this thread uses the message
/// and the extended acknowledgement, and `info.attrs` has `max_attr` + 1 entries, each null or an
/// attribute in the message.
pub struct Request<'a> {
    info: &'a bindings::genl_info,
    max_attr: usize,
}

impl<'a> Request<'a> {
    /// The attribute of that type, if the request has it: the last one if there are several.
    pub fn attr(&self, attr_type: u16) -> Option<Attr<'a>> {
        let attr_type = usize::from(attr_type);
        if attr_type > self.max_attr || self.info.attrs.is_null() {
            return None;
        }
        // SAFETY: By the invariant there is an entry of this index.
        let attr = unsafe { *self.info.attrs.add(attr_type) };
        if attr.is_null() {
            return None;
        }
        // SAFETY: By the invariant the entry is an attribute in the message, which is only ours.
        // The core has validated that the attribute lies within the message.
        Some(unsafe { Attr::from_raw(attr) })
    }

    /// All attributes of that type, in the order of the request.
    pub fn attrs(&self, attr_type: u16) -> impl Iterator<Item = Attr<'a>> {
        let (start, len) = self.payload();
        // SAFETY: By the invariant the message is valid, and only ours.
        let elements = unsafe { Elements::from_raw(start, len) };
        elements.filter(move |attr| attr.attr_type() == attr_type)
    }

    /// Where the attributes are, and how many bytes they have.
    fn payload(&self) -> (*mut u8, usize) {
        let header = size_of::<bindings::genlmsghdr>();
        // SAFETY: By the invariant the message is valid.
        let all = unsafe { (*self.info.nlhdr).nlmsg_len } as usize;
        let before = size_of::<bindings::nlmsghdr>().wrapping_add(header);
        let start = self.info.genlhdr.cast::<u8>().wrapping_add(header);
        (start, all.saturating_sub(before))
    }

    /// Says why the request is refused, and which attribute is to blame, in the extended
    /// acknowledgement. The text is cut after 79 bytes.
    pub fn explain(&self, attr: Option<&Attr<'_>>, why: fmt::Arguments<'_>) {
        let mut text = ExtackText {
            buffer: [0; bindings::NETLINK_MAX_FMTMSG_LEN as usize],
            len: 0,
        };
        // What does not fit is cut.
        let _ = fmt::Write::write_fmt(&mut text, why);
        let attr = attr.map_or(core::ptr::null(), |attr| attr.as_raw());
        // SAFETY: By the invariant `info` and the attribute are valid, and so is the text, which is
        // copied.
        unsafe {
            bindings::wg_genl_explain(self.info, attr, text.buffer.as_ptr().cast(), text.len);
        }
    }

    /// The network namespace of the sender's socket.
    pub fn net(&self) -> &'a Net {
        net_of(self.info)
    }
}

/// The text of an extended acknowledgement in the making.
struct ExtackText {
    buffer: [u8; bindings::NETLINK_MAX_FMTMSG_LEN as usize],
    len: usize,
}

impl fmt::Write for ExtackText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.buffer.get_mut(self.len).ok_or(fmt::Error)? = byte;
            self.len = self.len.wrapping_add(1);
        }
        Ok(())
    }

    fn write_char(&mut self, c: char) -> fmt::Result {
        let ascii = u8::try_from(c).unwrap_or(b'?');
        *self.buffer.get_mut(self.len).ok_or(fmt::Error)? = ascii;
        self.len = self.len.wrapping_add(1);
        Ok(())
    }
}

/// The network namespace of a request's socket.
fn net_of(info: &bindings::genl_info) -> &Net {
    // SAFETY: The core fills in the namespace of the sender's socket, which holds it. A request is
    // served, and a dump continued, only while the socket exists.
    unsafe { Net::from_raw(info._net.net.cast()) }
}

/// The buffer for the next messages of a dump.
///
/// # Invariants
///
/// For `'a`, `skb` is a valid, linear buffer that nobody else uses, and `info` and `cb` are those
/// of the dump.
pub struct DumpBuffer<'a> {
    skb: NonNull<bindings::sk_buff>,
    cb: NonNull<bindings::netlink_callback>,
    info: &'a bindings::genl_info,
    _buffer: PhantomData<&'a mut bindings::sk_buff>,
}

impl DumpBuffer<'_> {
    /// The network namespace of the receiver's socket.
    pub fn net(&self) -> &Net {
        net_of(self.info)
    }

    /// Opens a message, or fails with [`EMSGSIZE`].
    ///
    /// `generation` is a number that changes, never to zero, with the data that is being dumped.
    /// If it has changed since the last message of the dump, this one tells the receiver
    /// (`NLM_F_DUMP_INTR`), which should restart the dump.
    pub fn message(&mut self, cmd: u8, generation: u32) -> Result<Message<'_>> {
        // SAFETY: The buffer and `info` are valid by the type invariant; the message borrows
        // `self`, so that nobody else uses the buffer.
        let mut message =
            unsafe { Message::reply(self.skb, self.info, bindings::NLM_F_MULTI as u16, cmd)? };
        let cb = self.cb.as_ptr();
        // SAFETY: By the invariant the dump is valid, and the core leaves these two fields to us.
        let previous = unsafe { addr_of_mut!((*cb).prev_seq).replace(generation) };
        // SAFETY: The dump is valid by the invariant, and the core leaves the field to us.
        unsafe { addr_of_mut!((*cb).seq).write(generation) };
        if previous != 0 && previous != generation {
            message.add_flags(bindings::NLM_F_DUMP_INTR as u16);
        }
        Ok(message)
    }
}

/// Where a dump keeps its state: `netlink_callback.ctx`, aligned as a `long`.
type CursorSpace = [usize; 6];

/// The cursor of a dump.
///
/// # Safety
///
/// `cb` must be valid.
unsafe fn cursor_of<C>(cb: *mut bindings::netlink_callback) -> *mut C {
    // SAFETY: `cb` is valid by the requirement of this function. `Command::new_dump` has checked
    // that the cursor fits.
    unsafe { addr_of_mut!((*cb).__bindgen_anon_1) }.cast()
}

/// The request that a dump answers.
///
/// # Safety
///
/// `cb` must be valid, and of a generic netlink dump that has been started.
unsafe fn info_of(cb: *mut bindings::netlink_callback) -> *const bindings::genl_info {
    // SAFETY: `data` points to this in all dumps of generic netlink, see `genl_dumpit_info()`.
    unsafe { addr_of!((*(*cb).data.cast::<bindings::genl_dumpit_info>()).info) }
}

/// The `doit` callback.
///
/// # Safety
///
/// Called by the core only, for a command whose policy is `T::POLICY`.
unsafe extern "C" fn doit_thunk<T: Do>(
    _skb: *mut bindings::sk_buff,
    info: *mut bindings::genl_info,
) -> c_int {
    let request = Request {
        // INVARIANT: The core calls with a valid `info`, parsed by `T::POLICY`, and leaves the
        // message to the command until that returns.
        // SAFETY: The core calls with a valid `info`, which nobody changes during the call.
        info: unsafe { &*info },
        max_attr: max_attr(T::POLICY),
    };
    match T::run(&request) {
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}

/// The `start` callback.
///
/// # Safety
///
/// Called by the core only, for a command whose policy is `T::POLICY`.
unsafe extern "C" fn start_thunk<T: Dump>(cb: *mut bindings::netlink_callback) -> c_int {
    let request = Request {
        // INVARIANT: The core calls with a valid `info`, parsed by `T::POLICY`. The dump holds a
        // reference to the message, which nobody else uses.
        // SAFETY: The core calls with a valid `cb` of a dump that is being started, so with its
        // `info`.
        info: unsafe { &*info_of(cb) },
        max_attr: max_attr(T::POLICY),
    };
    match T::start(&request) {
        Ok(cursor) => {
            // SAFETY: The core calls with a valid `cb`, whose `ctx` is the command's own.
            unsafe { cursor_of::<T::Cursor>(cb).write(cursor) };
            0
        }
        Err(error) => error.to_errno(),
    }
}

/// The `dumpit` callback.
///
/// # Safety
///
/// Called by the core only, for a dump that `start_thunk` of the same `T` began.
unsafe extern "C" fn dumpit_thunk<T: Dump>(
    skb: *mut bindings::sk_buff,
    cb: *mut bindings::netlink_callback,
) -> c_int {
    let (Some(skb), Some(cb)) = (NonNull::new(skb), NonNull::new(cb)) else {
        return EINVAL.to_errno();
    };
    let mut buffer = DumpBuffer {
        // INVARIANT: The core calls with a valid `cb` and a linear skb that it has just allocated.
        skb,
        cb,
        // SAFETY: The core calls with a valid `cb` of a dump that has been started, so with its
        // `info`.
        info: unsafe { &*info_of(cb.as_ptr()) },
        _buffer: PhantomData,
    };
    // SAFETY: `start_thunk` has put a cursor there, which only `done_thunk` removes. The core makes
    // one call at a time for a dump.
    let cursor = unsafe { &mut *cursor_of::<T::Cursor>(cb.as_ptr()) };
    match T::fill(cursor, &mut buffer) {
        Ok(Progress::Done) => 0,
        // SAFETY: The buffer is still valid.
        Ok(Progress::More) => match unsafe { (*skb.as_ptr()).len } {
            // Zero would mean that the dump is complete.
            0 => EMSGSIZE.to_errno(),
            len => c_int::try_from(len).unwrap_or(c_int::MAX),
        },
        Err(error) => error.to_errno(),
    }
}

/// The `done` callback.
///
/// # Safety
///
/// Called by the core only, once, for a dump that `start_thunk` of the same `T` began.
unsafe extern "C" fn done_thunk<T: Dump>(cb: *mut bindings::netlink_callback) -> c_int {
    // SAFETY: `start_thunk` has put a cursor there, and nobody uses it after this.
    unsafe { cursor_of::<T::Cursor>(cb).drop_in_place() };
    0
}
