// SPDX-License-Identifier: GPL-2.0-only
//! `wg-rs show --json`: devices as JSON, in the form that wg-json (of wireguard-tools) made common:
//! an object with a member for each device, whose `peers` has a member for each public key. Here
//! every member is always there, `null` standing for "none". Secrets appear only when asked for;
//! whether there are any is always told.

use std::io::{self, Write};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::key::SecretKey;
use crate::model::{Device, Peer, ShownEndpoint};

/// Writes `devices` to `out`, followed by a line break. `secrets`: with private and preshared keys.
pub fn write(devices: &[Device], secrets: bool, mut out: impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, &Devices { devices, secrets })?;
    writeln!(out)
}

/// Writes names as a list.
pub fn write_names(names: &[String], mut out: impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, names)?;
    writeln!(out)
}

struct Devices<'a> {
    devices: &'a [Device],
    secrets: bool,
}

impl Serialize for Devices<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.devices.iter().map(|device| {
            (
                &device.name,
                DeviceJson {
                    device,
                    secrets: self.secrets,
                },
            )
        }))
    }
}

struct DeviceJson<'a> {
    device: &'a Device,
    secrets: bool,
}

impl Serialize for DeviceJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { device, secrets } = *self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ifindex", &device.ifindex)?;
        secret(
            &mut map,
            ["hasPrivateKey", "privateKey"],
            &device.private_key,
            secrets,
        )?;
        map.serialize_entry("publicKey", &device.public_key.map(|key| key.to_string()))?;
        map.serialize_entry("listenPort", &none_if_zero(device.listen_port))?;
        map.serialize_entry("fwmark", &none_if_zero(device.fwmark))?;
        map.serialize_entry(
            "peers",
            &Peers {
                peers: &device.peers,
                secrets,
            },
        )?;
        map.end()
    }
}

struct Peers<'a> {
    peers: &'a [Peer],
    secrets: bool,
}

impl Serialize for Peers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let peers = self.peers.iter();
        serializer.collect_map(peers.map(|peer| {
            (
                peer.public_key.to_string(),
                PeerJson {
                    peer,
                    secrets: self.secrets,
                },
            )
        }))
    }
}

struct PeerJson<'a> {
    peer: &'a Peer,
    secrets: bool,
}

impl Serialize for PeerJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let peer = self.peer;
        let mut map = serializer.serialize_map(None)?;
        secret(
            &mut map,
            ["hasPresharedKey", "presharedKey"],
            &peer.preshared_key,
            self.secrets,
        )?;
        map.serialize_entry(
            "endpoint",
            &peer
                .endpoint
                .map(|endpoint| ShownEndpoint(endpoint).to_string()),
        )?;
        map.serialize_entry("latestHandshake", &none_if_zero(peer.last_handshake.sec))?;
        map.serialize_entry("transferRx", &peer.rx_bytes)?;
        map.serialize_entry("transferTx", &peer.tx_bytes)?;
        map.serialize_entry(
            "persistentKeepalive",
            &none_if_zero(peer.persistent_keepalive),
        )?;
        let allowed_ips: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
        map.serialize_entry("allowedIps", &allowed_ips)?;
        map.end()
    }
}

/// Whether there is a key, and the key itself for those who ask for it.
fn secret<M: SerializeMap>(
    map: &mut M,
    names: [&'static str; 2],
    key: &Option<SecretKey>,
    shown: bool,
) -> Result<(), M::Error> {
    let [has, name] = names;
    let key = key.as_ref().filter(|key| !key.is_zero());
    map.serialize_entry(has, &key.is_some())?;
    if shown {
        map.serialize_entry(
            name,
            &key.map(|key| key.to_base64())
                .as_ref()
                .map(|text| text.as_str()),
        )?;
    }
    Ok(())
}

fn none_if_zero<T: Default + PartialEq>(value: T) -> Option<T> {
    Some(value).filter(|value| *value != T::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;
    use crate::model::{AllowedIp, Timestamp};
    use serde_json::{json, Value};

    fn devices() -> Vec<Device> {
        let full = Peer {
            public_key: PublicKey::new([1; 32]),
            preshared_key: Some(SecretKey::new(&[2; 32])),
            endpoint: Some("[2001:db8::1]:51820".parse().unwrap()),
            persistent_keepalive: 25,
            last_handshake: Timestamp {
                sec: 1_700_000_000,
                nsec: 5,
            },
            rx_bytes: u64::MAX,
            tx_bytes: 1,
            allowed_ips: vec![
                AllowedIp {
                    addr: "10.0.0.0".parse().unwrap(),
                    cidr: 8,
                },
                AllowedIp {
                    addr: "fd00::".parse().unwrap(),
                    cidr: 64,
                },
            ],
        };
        let bare = Peer {
            public_key: PublicKey::new([3; 32]),
            ..Peer::default()
        };
        let wg1 = Device {
            name: "wg1".into(),
            ifindex: 7,
            private_key: Some(SecretKey::new(&[9; 32])),
            public_key: Some(PublicKey::new([8; 32])),
            listen_port: 51820,
            fwmark: 0xca6c,
            peers: vec![full, bare],
        };
        vec![
            wg1,
            Device {
                name: "a\"b".into(),
                ifindex: 8,
                ..Device::default()
            },
        ]
    }

    fn json(secrets: bool) -> (String, Value) {
        let mut out = Vec::new();
        write(&devices(), secrets, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    }

    #[test]
    fn every_field_is_there() {
        let key = |byte| PublicKey::new([byte; 32]).to_string();
        let (text, value) = json(true);
        let bare = json!({
            "hasPresharedKey": false, "presharedKey": null, "endpoint": null,
            "latestHandshake": null, "transferRx": 0, "transferTx": 0,
            "persistentKeepalive": null, "allowedIps": []
        });
        let full = json!({
            "hasPresharedKey": true, "presharedKey": key(2), "endpoint": "[2001:db8::1]:51820",
            "latestHandshake": 1_700_000_000, "transferRx": u64::MAX, "transferTx": 1,
            "persistentKeepalive": 25, "allowedIps": ["10.0.0.0/8", "fd00::/64"]
        });
        let wanted = json!({
            "wg1": {
                "ifindex": 7, "hasPrivateKey": true, "privateKey": key(9), "publicKey": key(8),
                "listenPort": 51820, "fwmark": 0xca6c, "peers": { key(1): full, key(3): bare }
            },
            "a\"b": {
                "ifindex": 8, "hasPrivateKey": false, "privateKey": null, "publicKey": null,
                "listenPort": null, "fwmark": null, "peers": {}
            }
        });
        assert_eq!(value, wanted);
        assert!(text.ends_with("}\n"));
    }

    #[test]
    fn secrets_only_when_asked_for() {
        let (text, value) = json(false);
        for secret in [[2; 32], [9; 32]] {
            assert!(!text.contains(SecretKey::new(&secret).to_base64().as_str()));
        }
        assert_eq!(value["wg1"]["hasPrivateKey"], true);
        assert!(value["wg1"].get("privateKey").is_none());
        let (text, _) = json(true);
        assert!(text.contains(SecretKey::new(&[9; 32]).to_base64().as_str()));
    }
}
