// SPDX-License-Identifier: GPL-2.0-only
//! What `show` prints for people.

use super::{Context, Out};
use crate::key::SecretKey;
use crate::model::{Device, Peer, ShownEndpoint, ShownIp, Timestamp};
use std::env::var_os;
use std::fmt::{self, Display};
use std::time::{SystemTime, UNIX_EPOCH};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// The escape sequences of a terminal, or nothing.
#[derive(Clone, Copy)]
struct Colours(bool);

impl Colours {
    fn code(self, code: &'static str) -> &'static str {
        if self.0 {
            code
        } else {
            ""
        }
    }

    fn reset(self) -> &'static str {
        self.code("\x1b[0m")
    }
    fn bold(self) -> &'static str {
        self.code("\x1b[1m")
    }
    fn red(self) -> &'static str {
        self.code("\x1b[31m")
    }
    fn green(self) -> &'static str {
        self.code("\x1b[32m")
    }
    fn yellow(self) -> &'static str {
        self.code("\x1b[33m")
    }
    fn cyan(self) -> &'static str {
        self.code("\x1b[36m")
    }
}

/// Prints a device, the peers with the latest handshake first.
pub fn print(context: &Context, device: &mut Device, out: &mut Out) {
    let colours = Colours(context.colour());
    let show_keys = var_os("WG_HIDE_KEYS").is_some_and(|mode| mode == "never");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs() as i64);
    Printer {
        colours,
        show_keys,
        now,
    }
    .device(device, out);
}

struct Printer {
    colours: Colours,
    show_keys: bool,
    now: i64,
}

impl Printer {
    fn device(&self, device: &mut Device, out: &mut Out) {
        let (reset, bold, green) = (
            self.colours.reset(),
            self.colours.bold(),
            self.colours.green(),
        );
        out.put(format_args!(
            "{reset}{green}{bold}interface{reset}: {green}{}{reset}\n",
            device.name
        ));
        if let Some(key) = device.public_key {
            self.field("public key", key, out);
        }
        if let Some(key) = &device.private_key {
            self.secret("private key", key, out);
        }
        if device.listen_port != 0 {
            self.field("listening port", device.listen_port, out);
        }
        if device.fwmark != 0 {
            self.field("fwmark", format_args!("{:#x}", device.fwmark), out);
        }
        device
            .peers
            .sort_by_key(|peer| std::cmp::Reverse(peer.last_handshake));
        for peer in &device.peers {
            out.put(format_args!("\n"));
            self.peer(peer, out);
        }
    }

    fn peer(&self, peer: &Peer, out: &mut Out) {
        let colours = self.colours;
        let (reset, bold, yellow, cyan) = (
            colours.reset(),
            colours.bold(),
            colours.yellow(),
            colours.cyan(),
        );
        out.put(format_args!(
            "{yellow}{bold}peer{reset}: {yellow}{}{reset}\n",
            peer.public_key
        ));
        if let Some(key) = &peer.preshared_key {
            self.secret("preshared key", key, out);
        }
        if let Some(endpoint) = peer.endpoint {
            self.field("endpoint", ShownEndpoint(endpoint), out);
        }
        out.put(format_args!("  {bold}allowed ips{reset}: "));
        for (index, ip) in peer.allowed_ips.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            out.put(format_args!(
                "{comma}{}{cyan}/{reset}{}",
                ShownIp(ip.addr),
                ip.cidr
            ));
        }
        out.put(format_args!(
            "{}\n",
            if peer.allowed_ips.is_empty() {
                "(none)"
            } else {
                ""
            }
        ));
        if peer.last_handshake.sec != 0 {
            self.field(
                "latest handshake",
                Ago {
                    then: peer.last_handshake,
                    now: self.now,
                    colours,
                },
                out,
            );
        }
        if peer.rx_bytes != 0 || peer.tx_bytes != 0 {
            let (rx, tx) = (Bytes(peer.rx_bytes, colours), Bytes(peer.tx_bytes, colours));
            self.field("transfer", format_args!("{rx} received, {tx} sent"), out);
        }
        if peer.persistent_keepalive != 0 {
            let every = Duration(peer.persistent_keepalive.into(), colours);
            self.field("persistent keepalive", format_args!("every {every}"), out);
        }
    }

    fn field(&self, name: &str, value: impl Display, out: &mut Out) {
        out.put(format_args!(
            "  {}{name}{}: {value}\n",
            self.colours.bold(),
            self.colours.reset()
        ));
    }

    fn secret(&self, name: &str, key: &SecretKey, out: &mut Out) {
        if self.show_keys {
            self.field(name, &*key.to_base64(), out);
        } else {
            self.field(name, "(hidden)", out);
        }
    }
}

/// How long ago a handshake was.
struct Ago {
    then: Timestamp,
    now: i64,
    colours: Colours,
}

impl Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colours = self.colours;
        match u64::try_from(self.now.saturating_sub(self.then.sec)) {
            Ok(0) => f.write_str("Now"),
            Ok(seconds) => write!(f, "{} ago", Duration(seconds, colours)),
            Err(_) => {
                let text = "System clock wound backward; connection problems may ensue.";
                write!(f, "({}{text}{})", colours.red(), colours.reset())
            }
        }
    }
}

/// Seconds as years, days, hours, minutes and seconds.
struct Duration(u64, Colours);

impl Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(mut left, colours) = *self;
        let mut comma = "";
        for (seconds, one, many) in [
            (365 * 86400, "year", "years"),
            (86400, "day", "days"),
            (3600, "hour", "hours"),
            (60, "minute", "minutes"),
            (1, "second", "seconds"),
        ] {
            let count = left / seconds;
            left %= seconds;
            if count != 0 {
                write!(
                    f,
                    "{comma}{count} {}",
                    Unit(if count == 1 { one } else { many }, colours)
                )?;
                comma = ", ";
            }
        }
        Ok(())
    }
}

/// A number of bytes in the unit that fits.
struct Bytes(u64, Colours);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes, colours) = *self;
        let (unit, name) = match bytes {
            0..KIB => return write!(f, "{bytes} {}", Unit("B", colours)),
            KIB..MIB => (KIB, "KiB"),
            MIB..GIB => (MIB, "MiB"),
            GIB..TIB => (GIB, "GiB"),
            TIB.. => (TIB, "TiB"),
        };
        write!(
            f,
            "{:.2} {}",
            bytes as f64 / unit as f64,
            Unit(name, colours)
        )
    }
}

/// The name of a unit, coloured.
struct Unit(&'static str, Colours);

impl Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.1.cyan(), self.0, self.1.reset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Colours = Colours(false);

    #[test]
    fn durations() {
        for (seconds, text) in [
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (3661, "1 hour, 1 minute, 1 second"),
            (2 * 365 * 86400 + 86400 + 2, "2 years, 1 day, 2 seconds"),
        ] {
            assert_eq!(Duration(seconds, PLAIN).to_string(), text);
        }
        assert_eq!(
            Duration(60, Colours(true)).to_string(),
            "1 \x1b[36mminute\x1b[0m"
        );
    }

    #[test]
    fn times() {
        let ago = |sec, now| {
            Ago {
                then: Timestamp { sec, nsec: 0 },
                now,
                colours: PLAIN,
            }
            .to_string()
        };
        assert_eq!(ago(5, 5), "Now");
        assert_eq!(ago(5, 7), "2 seconds ago");
        assert!(ago(7, 5).starts_with("(System clock"));
        assert!(ago(i64::MIN, i64::MAX).ends_with(" ago"));
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1024 * 1024 - 1, "1024.00 KiB"),
            (5 * 1024 * 1024 / 2, "2.50 MiB"),
            (3 << 30, "3.00 GiB"),
            (u64::MAX, "16777216.00 TiB"),
        ] {
            assert_eq!(Bytes(bytes, PLAIN).to_string(), text);
        }
    }
}
