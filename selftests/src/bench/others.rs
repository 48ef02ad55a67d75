// SPDX-License-Identifier: GPL-2.0-only
//! Contenders that are no WireGuard device of the kernel: IPsec in the kernel, WireGuard and
//! OpenVPN in user space. Each joins the two namespaces of a [`Pair`](super::pair::Pair) as a
//! tunnel does.

use anyhow::{bail, Context, Result};
use harness::cmd;
use harness::netns::Netns;
use harness::topo::{inner, names, outer, port};
use harness::userspace::Program;
use harness::wgdev::base64;
use std::fs;
use std::time::{Duration, Instant};
use x25519_dalek::{PublicKey, StaticSecret};

/// A cipher of ESP, as `ip xfrm` calls it; both get a key of 256 bits and a salt of 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Esp {
    /// As WireGuard's.
    ChaChaPoly,
    /// AES in Galois/Counter Mode, for which processors have instructions.
    AesGcm,
}

impl Esp {
    fn algorithm(self) -> &'static str {
        match self {
            Esp::ChaChaPoly => "rfc7539esp(chacha20,poly1305)",
            Esp::AesGcm => "rfc4106(gcm(aes))",
        }
    }

    /// Joins the two ends by ESP in tunnel mode: all traffic between their inside addresses.
    pub fn join(self, ns: &[Netns; 2]) -> Result<()> {
        for module in ["esp4", "xfrm_user"] {
            cmd::run(&["modprobe", module])?;
        }
        // For the processor's AES instructions; elsewhere udev has loaded it.
        cmd::try_run(&["modprobe", "aesni_intel"], "")?;
        let keys: [String; 2] = [0, 1].map(|_| {
            let bytes: [u8; 36] = rand::random();
            harness::gnl::hex(&bytes)
        });
        for (n, end) in (0u8..).zip(ns) {
            let other = 1 - n;
            let (_, wire) = names(n);
            end.sh(&format!("ip address add {}/32 dev {wire}", inner(false, n)))?;
            end.sh(&format!(
                "ip route add {}/32 dev {wire} src {}",
                inner(false, other),
                inner(false, n)
            ))?;
            for (from, to) in [(n, other), (other, n)] {
                let (key, spi) = (&keys[usize::from(from)], 0x1000 + u32::from(from));
                end.sh(&format!(
                    "ip xfrm state add src {} dst {} proto esp spi {spi} reqid 1 mode tunnel \
                     replay-window 32 aead {} 0x{key} 128",
                    outer(false, from),
                    outer(false, to),
                    self.algorithm()
                ))?;
                let direction = if from == n { "out" } else { "in" };
                end.sh(&format!(
                    "ip xfrm policy add src {} dst {} dir {direction} tmpl src {} dst {} \
                     proto esp reqid 1 mode tunnel",
                    inner(false, from),
                    inner(false, to),
                    outer(false, from),
                    outer(false, to)
                ))?;
            }
        }
        Ok(())
    }
}

/// Joins the two ends by devices of a program, whose name begins with `prefix`.
pub fn join_by(program: Program, prefix: &str, ns: &[Netns; 2]) -> Result<()> {
    let secrets: [[u8; 32]; 2] = rand::random();
    let publics = secrets.map(|secret| PublicKey::from(&StaticSecret::from(secret)).to_bytes());
    fs::create_dir_all("/run/wireguard")?;
    for (n, end) in (0u8..).zip(ns) {
        let (at, other) = (usize::from(n), 1 - n);
        let name = format!("{prefix}{n}");
        program.start(end, &name)?;
        let line = format!(
            "wg set {name} private-key /dev/stdin listen-port {} peer {} endpoint {}:{} \
             allowed-ips {}/32",
            port(n),
            base64(&publics[1 - at]),
            outer(false, other),
            port(other),
            inner(false, other)
        );
        end.sh_in(&line, &base64(&secrets[at]))
            .with_context(|| format!("configure {name}"))?;
        end.sh(&format!("ip link set {name} mtu 1420 up"))?;
        end.sh(&format!("ip address add {}/24 dev {name}", inner(false, n)))?;
    }
    Ok(())
}

/// Joins the two ends by OpenVPN in user space, with the cipher of WireGuard.
pub fn join_by_openvpn(ns: &[Netns; 2]) -> Result<()> {
    cmd::run(&["modprobe", "tun"])?;
    let folder = "/run/openvpn-bench";
    fs::create_dir_all(folder)?;
    let file = |n: u8, kind: &str| format!("{folder}/{n}.{kind}");
    for n in 0..2 {
        let (key, cert) = (file(n, "key"), file(n, "crt"));
        let common = format!("/CN=end{n}");
        cmd::run(&[
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &cert,
            "-subj",
            &common,
            "-days",
            "10000",
        ])?;
    }
    let fingerprint = |n: u8| -> Result<String> {
        let cert = file(n, "crt");
        let args = [
            "openssl",
            "x509",
            "-in",
            &cert,
            "-noout",
            "-fingerprint",
            "-sha256",
        ];
        let out = cmd::run(&args)?;
        let (_, value) = out.trim().split_once('=').context("no fingerprint")?;
        Ok(value.to_owned())
    };
    for (n, end) in (0u8..).zip(ns) {
        let other = 1 - n;
        let role = if n == 0 {
            "--tls-server --dh none".to_owned()
        } else {
            format!("--tls-client --remote {}", outer(false, other))
        };
        end.sh(&format!(
            "openvpn --daemon --log {} --dev openvpn{n} --dev-type tun --proto udp --local {} \
             --port 1194 {role} --cert {} --key {} --peer-fingerprint {} --ifconfig {} {} \
             --data-ciphers CHACHA20-POLY1305 --disable-dco --tun-mtu 1420 --mssfix 0",
            file(n, "log"),
            outer(false, n),
            file(n, "crt"),
            file(n, "key"),
            fingerprint(other)?,
            inner(false, n),
            inner(false, other)
        ))?;
    }
    let begin = Instant::now();
    let ping = format!("ping -c 1 -W 1 {}", inner(false, 1));
    while ns[0].sh(&ping).is_err() {
        if begin.elapsed() > Duration::from_secs(30) {
            let log = fs::read_to_string(file(1, "log")).unwrap_or_default();
            bail!("OpenVPN does not connect: {log}");
        }
    }
    Ok(())
}
