// SPDX-License-Identifier: GPL-2.0-only

//! Policies: how the netlink core validates a request before a command sees it.
//!
//! C header: [`include/net/netlink.h`](srctree/include/net/netlink.h)

use crate::bindings;

/// What an attribute of one type must be.
///
/// A level of attributes has a static table of them, indexed by attribute type (see
/// [`Policy::table`]). Attributes that have no policy or lie beyond the table are refused with
/// `EINVAL`.
///
/// # Invariants
///
/// A pointer in the policy is to a static table of as many policies as `len` says, plus one.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Policy(bindings::nla_policy);

// SAFETY: A policy is never written to; by the invariant what it points to is static and `Sync`.
unsafe impl Sync for Policy {}

// SAFETY: A policy is plain data, and what it points to is static and `Sync` by the invariant.
unsafe impl Send for Policy {}

impl Policy {
    /// No attribute of this type is valid. Also at index 0, which is not a type.
    const UNSPEC: Self = Self::plain(bindings::NLA_UNSPEC, 0);

    /// Exactly 8 bits, else `EINVAL`.
    pub const U8: Self = Self::plain(bindings::NLA_U8, 0);

    /// Exactly 16 bits, else `EINVAL`.
    pub const U16: Self = Self::plain(bindings::NLA_U16, 0);

    /// Exactly 32 bits, else `EINVAL`.
    pub const U32: Self = Self::plain(bindings::NLA_U32, 0);

    /// Exactly 64 bits, else `EINVAL`.
    pub const U64: Self = Self::plain(bindings::NLA_U64, 0);

    /// Exactly 32 bits, of which only those in `mask` may be set, else `EINVAL`.
    pub const fn flags32(mask: u32) -> Self {
        // INVARIANT: No pointer.
        Self(bindings::nla_policy {
            type_: bindings::NLA_U32 as u8,
            validation_type: bindings::nla_policy_validation_NLA_VALIDATE_MASK as u8,
            len: 0,
            __bindgen_anon_1: bindings::nla_policy__bindgen_ty_1 { mask },
        })
    }

    /// Exactly `len` bytes, else `ERANGE`.
    pub const fn exact_len(len: i16) -> Self {
        Self::binary(
            bindings::nla_policy_validation_NLA_VALIDATE_RANGE as u8,
            len,
            len,
        )
    }

    /// At least `len` bytes, else `ERANGE`.
    pub const fn min_len(len: i16) -> Self {
        Self::binary(
            bindings::nla_policy_validation_NLA_VALIDATE_MIN as u8,
            len,
            0,
        )
    }

    /// A string of at most `len` bytes and a terminating zero, else `EINVAL`.
    pub const fn nul_string(len: u16) -> Self {
        Self::plain(bindings::NLA_NUL_STRING, len)
    }

    /// An array of nests; `elements` is the table for each of them.
    ///
    /// The core does not check that the elements are marked as nests;
    /// [`Attr::nested`](super::Attr::nested) does.
    pub const fn nested_array<const N: usize>(elements: &'static [Policy; N]) -> Self {
        const { assert!(N > 0 && N <= u16::MAX as usize) };
        // INVARIANT: `elements` is static and has `len` + 1 policies; `Policy` is transparent.
        Self(bindings::nla_policy {
            type_: bindings::NLA_NESTED_ARRAY as u8,
            validation_type: bindings::nla_policy_validation_NLA_VALIDATE_NONE as u8,
            len: (N - 1) as u16,
            __bindgen_anon_1: bindings::nla_policy__bindgen_ty_1 {
                nested_policy: elements.as_ptr().cast(),
            },
        })
    }

    /// Makes the table of one level out of pairs of an attribute's type and its policy.
    ///
    /// For the initialiser of a static: a type that is not less than `N` fails to compile there.
    pub const fn table<const N: usize>(policies: &[(u16, Self)]) -> [Self; N] {
        let mut table = [Self::UNSPEC; N];
        let mut i = 0;
        while i < policies.len() {
            let (attr_type, policy) = policies[i];
            table[attr_type as usize] = policy;
            i += 1;
        }
        table
    }

    const fn plain(attr_type: u32, len: u16) -> Self {
        // INVARIANT: No pointer.
        Self(bindings::nla_policy {
            type_: attr_type as u8,
            validation_type: bindings::nla_policy_validation_NLA_VALIDATE_NONE as u8,
            len,
            __bindgen_anon_1: bindings::nla_policy__bindgen_ty_1 { mask: 0 },
        })
    }

    const fn binary(validation_type: u8, min: i16, max: i16) -> Self {
        // INVARIANT: No pointer.
        Self(bindings::nla_policy {
            type_: bindings::NLA_BINARY as u8,
            validation_type,
            len: 0,
            __bindgen_anon_1: bindings::nla_policy__bindgen_ty_1 {
                __bindgen_anon_1: bindings::nla_policy__bindgen_ty_1__bindgen_ty_1 { min, max },
            },
        })
    }
}
