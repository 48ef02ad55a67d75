// SPDX-License-Identifier: GPL-2.0-only
//! What can be wrong with a value or a line, and where.

/// Where in a file: 1-based line, 1-based column in characters, and how many characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// Length, at least 1.
    pub len: usize,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Neither a section nor a known key of this section.
    Line,
    /// A public key that is none.
    PublicKey,
    /// A private or preshared key that is none. Its text is never shown.
    SecretKey,
    /// No port where one is needed.
    EmptyPort,
    /// A number above 65535.
    PortRange,
    /// Not a firewall mark.
    FwMark,
    /// Not an interval of 0 to 65535 s.
    Keepalive,
    /// Not an IP address.
    Ip,
    /// Something after the address that is no prefix length.
    AllowedIp,
    /// No endpoint where one is needed.
    EmptyEndpoint,
    /// `[` without `]`.
    EndpointBrace,
    /// No port at the end of an endpoint.
    EndpointPort,
    /// What stands before the port can be neither an address nor a name.
    Host,
    /// Neither a port number nor the name of a service that this machine knows.
    Service,
    /// The name did not resolve; in the resolver's words.
    Unresolved(String),
    /// A `[Peer]` section ends without a public key.
    NoPublicKey,
    /// A NUL, which is in no text file.
    Nul,
    /// The file begins with a byte order mark.
    ByteOrderMark,
    /// Not an address for the interface.
    Address,
    /// Not an MTU.
    Mtu,
    /// Neither `true` nor `false`.
    SaveConfig,
    /// A hook that the shell cannot read; in the shell's words.
    Hook(String),
}

/// A problem with a value or a line, not yet placed in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub kind: Kind,
    /// The offending text, as offsets into what was parsed.
    pub at: std::ops::Range<usize>,
}

/// A problem placed in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// Where.
    pub place: Place,
    /// The offending text without its spaces; `(hidden)` where it might be a secret.
    pub text: Vec<u8>,
}

/// Something to warn about that is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where.
    pub place: Place,
    /// The allowed IP with host bits, as written.
    pub text: Vec<u8>,
}

/// What is shown in place of a secret.
pub const HIDDEN: &[u8] = b"(hidden)";

impl Kind {
    /// Whether it is about the form of an endpoint.
    pub fn of_endpoint(&self) -> bool {
        matches!(
            self,
            Self::EmptyEndpoint | Self::EndpointBrace | Self::EndpointPort
        )
    }

    /// The line that `wg` prints for this problem, without the line's end. `text` is the offending
    /// text.
    pub fn wg_message(&self, text: &[u8]) -> Vec<u8> {
        let what = match self {
            Self::Line => "Line unrecognized",
            Self::PublicKey | Self::SecretKey => "Key is not the correct length or format",
            Self::EmptyPort => return b"Unable to parse empty port".to_vec(),
            Self::PortRange => "Port is not within 0-65535",
            Self::FwMark => "Fwmark is neither 0/off nor 0-0xffffffff",
            Self::Keepalive => "Persistent keepalive interval is neither 0/off nor 1-65535",
            Self::Ip => "Unable to parse IP address",
            Self::AllowedIp => "AllowedIP is not in the correct format",
            Self::EmptyEndpoint => return b"Unable to parse empty endpoint".to_vec(),
            Self::EndpointBrace => "Unable to find matching brace of endpoint",
            Self::EndpointPort => "Unable to find port of endpoint",
            Self::Host => "Neither an address nor a host name",
            Self::Service => "Neither a port number nor a known service",
            Self::Unresolved(reason) => reason,
            Self::NoPublicKey => return b"A peer is missing a public key".to_vec(),
            Self::Nul => "Not a text file: it has a NUL",
            Self::ByteOrderMark => "The file begins with a byte order mark",
            Self::Address => "Not an IP address with or without a prefix length",
            Self::Mtu => "MTU is not a number of bytes",
            // The only one of wg-quick's own.
            Self::SaveConfig => return [b"`", text, b"' is neither true nor false"].concat(),
            Self::Hook(reason) => reason,
        };
        let text = if *self == Self::SecretKey {
            HIDDEN
        } else {
            text
        };
        [what.as_bytes(), b": `", text, b"'"].concat()
    }

    /// What to do about it, where the message alone does not say.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::PublicKey | Self::SecretKey => "a key is 44 characters of base64 and ends in `='",
            Self::EmptyPort | Self::PortRange => "ports go from 0 (any) to 65535",
            Self::FwMark => "write off, or a number up to 0xffffffff",
            Self::Keepalive => "write off, or 1 to 65535 seconds",
            Self::AllowedIp => {
                "write ADDRESS/LENGTH, with a length of at most 32 (IPv4) or 128 (IPv6)"
            }
            Self::Ip => {
                "names are not allowed here; write ADDRESS/LENGTH, several separated by commas"
            }
            Self::Address => "write ADDRESS/LENGTH, several separated by commas",
            Self::EndpointBrace | Self::EndpointPort | Self::EmptyEndpoint | Self::Host => {
                "write HOST:PORT, with an IPv6 address in brackets: [2001:db8::1]:51820"
            }
            Self::Service => "write a port number, 51820 for example",
            Self::NoPublicKey => "each [Peer] section needs a PublicKey",
            Self::Nul => "is this a text file?",
            Self::ByteOrderMark => "save the file as UTF-8 without one",
            Self::Mtu => "write a number of bytes, or remove the line to have one that fits",
            Self::SaveConfig => "write true or false",
            Self::Line | Self::Unresolved(_) | Self::Hook(_) => return None,
        })
    }
}

impl Fault {
    /// The line that `wg` prints for this fault, without the line's end.
    pub fn wg_message(&self) -> Vec<u8> {
        self.kind.wg_message(&self.text)
    }
}

impl Warning {
    /// The line that `wg` prints, without the line's end.
    pub fn wg_message(&self) -> Vec<u8> {
        host_part_warning(&self.text)
    }
}

/// What `wg` prints about an allowed IP with host bits.
pub fn host_part_warning(text: &[u8]) -> Vec<u8> {
    [b"Warning: AllowedIP has nonzero host part: ", text].concat()
}
