// SPDX-License-Identifier: GPL-2.0-only
use super::*;
use crate::key::{PublicKey, SecretKey};
use crate::model::{AllowedIp, Peer, SetAllowedIp, SetPeer, Timestamp};
use proptest::prelude::*;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;

/// A folder of the test's own, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wg-rs-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.sock"))
    }

    /// A program that gives each of `answers` once, and then ends; the handle gives what it was
    /// asked.
    fn program(&self, name: &str, answers: Vec<Vec<u8>>) -> thread::JoinHandle<Vec<Vec<u8>>> {
        let listener = UnixListener::bind(self.socket(name)).unwrap();
        thread::spawn(move || {
            let serve = |answer: Vec<u8>| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = Vec::new();
                let mut byte = [0];
                while !asked.ends_with(b"\n\n") {
                    match stream.read(&mut byte).unwrap() {
                        0 => break,
                        _ => asked.push(byte[0]),
                    }
                }
                stream.write_all(&answer).unwrap();
                asked
            };
            answers.into_iter().map(serve).collect()
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

#[test]
fn reads_a_device() {
    let folder = Folder::new("get");
    let text = format!(
        "private_key={}\nlisten_port=51820\nfwmark=7\nprotocol_version=1\npublic_key={}\n\
         preshared_key={}\nendpoint=[fe80::1%lo]:5\nlast_handshake_time_sec=9\n\
         last_handshake_time_nsec=8\ntx_bytes=7\nrx_bytes=6\npersistent_keepalive_interval=25\n\
         allowed_ip=10.0.0.0/8\nallowed_ip=fd00::/64\nnews=1\npublic_key={}\npreshared_key={}\n\
         endpoint=192.0.2.1:51821\nerrno=0\n\n",
        hex(0x11),
        hex(0x22),
        hex(0x33),
        hex(0x44),
        hex(0)
    );
    let program = folder.program("tun0", vec![text.into_bytes()]);
    let device = get(&folder.0, "tun0").unwrap();
    assert_eq!(program.join().unwrap(), [b"get=1\n\n"]);
    let secret = SecretKey::new(&[0x11; 32]);
    let ip = |addr: &str, cidr| AllowedIp {
        addr: addr.parse().unwrap(),
        cidr,
    };
    let expected = Device {
        name: "tun0".into(),
        public_key: Some(secret.public_key()),
        private_key: Some(secret),
        listen_port: 51820,
        fwmark: 7,
        peers: vec![
            Peer {
                public_key: PublicKey::new([0x22; 32]),
                preshared_key: Some(SecretKey::new(&[0x33; 32])),
                endpoint: Some("[fe80::1%1]:5".parse().unwrap()),
                persistent_keepalive: 25,
                last_handshake: Timestamp { sec: 9, nsec: 8 },
                rx_bytes: 6,
                tx_bytes: 7,
                allowed_ips: vec![ip("10.0.0.0", 8), ip("fd00::", 64)],
            },
            Peer {
                public_key: PublicKey::new([0x44; 32]),
                endpoint: Some("192.0.2.1:51821".parse().unwrap()),
                ..Peer::default()
            },
        ],
        ..Device::default()
    };
    assert_eq!(device, expected);
}

#[test]
fn changes_a_device() {
    let folder = Folder::new("set");
    let answers = [&b"errno=0\n\n"[..], b"errno=-22\n\n", b"errno=13\n\n"].map(<[u8]>::to_vec);
    let program = folder.program("tun0", answers.to_vec());
    let set_ip = |addr: &str, cidr, remove| SetAllowedIp {
        ip: AllowedIp {
            addr: addr.parse().unwrap(),
            cidr,
        },
        remove,
    };
    let change = SetDevice {
        private_key: Some(SecretKey::new(&[0x11; 32])),
        listen_port: Some(1),
        fwmark: Some(0xffff_ffff),
        replace_peers: true,
        peers: vec![
            SetPeer {
                public_key: PublicKey::new([0x22; 32]),
                update_only: true,
                preshared_key: Some(SecretKey::default()),
                endpoint: Some("[2001:db8::1]:2".parse().unwrap()),
                persistent_keepalive: Some(0),
                replace_allowed_ips: true,
                allowed_ips: vec![set_ip("10.0.0.1", 32, false), set_ip("fd00::", 8, true)],
                ..SetPeer::default()
            },
            SetPeer {
                public_key: PublicKey::new([0x33; 32]),
                remove: true,
                ..SetPeer::default()
            },
        ],
    };
    set(&folder.0, "tun0", &change).unwrap();
    let failed = || {
        let change = SetDevice::default();
        set(&folder.0, "tun0", &change).unwrap_err().raw_os_error()
    };
    assert_eq!(failed(), Some(22));
    assert_eq!(failed(), Some(13));
    let asked = program.join().unwrap();
    let expected = format!(
        "set=1\nprivate_key={}\nlisten_port=1\nfwmark=4294967295\nreplace_peers=true\n\
         public_key={}\nupdate_only=true\npreshared_key={}\nendpoint=[2001:db8::1]:2\n\
         persistent_keepalive_interval=0\nreplace_allowed_ips=true\nallowed_ip=10.0.0.1/32\n\
         allowed_ip=-fd00::/8\npublic_key={}\nremove=true\n\n",
        hex(0x11),
        hex(0x22),
        hex(0),
        hex(0x33)
    );
    assert_eq!(asked, [expected.as_bytes(), b"set=1\n\n", b"set=1\n\n"]);
}

#[test]
fn finds_and_tidies_up() {
    let folder = Folder::new("names");
    assert_eq!(names(&folder.0.join("nowhere")).unwrap(), [""; 0]);
    let program = folder.program("tun0", vec![Vec::new()]);
    fs::write(folder.socket("file"), "").unwrap();
    drop(UnixListener::bind(folder.socket("ended")).unwrap());
    assert!(!has(&folder.0, "ended") && !folder.socket("ended").exists());
    assert!(!has(&folder.0, "file") && folder.socket("file").exists());
    assert!(!has(&folder.0, "../x"));
    // Also answers the question for the name, and then ends.
    assert_eq!(names(&folder.0).unwrap(), ["tun0"]);
    program.join().unwrap();
    assert_eq!(
        get(&folder.0, "tun0").unwrap_err().raw_os_error(),
        Some(Errno::ENODEV as i32)
    );
}

#[test]
fn nonsense_is_an_error() {
    for answer in [
        "",
        "errno=0\n",
        "\n\n",
        "listen_port=1\n\n",
        "errno\n\n",
        "errno=x\n\n",
        "listen_port=65536\nerrno=0\n\n",
        "private_key=12\nerrno=0\n\n",
        "public_key=\nerrno=0\n\n",
    ] {
        let folder = Folder::new("nonsense");
        let program = folder.program("tun0", vec![answer.as_bytes().to_vec()]);
        let error = get(&folder.0, "tun0").unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(Errno::EPROTO as i32),
            "{answer:?}"
        );
        program.join().unwrap();
    }
    for ip in ["10.0.0.0", "10.0.0.0/33", "x/8", "fd00::/129", "10.0.0.0/"] {
        let answer = format!("public_key={}\nallowed_ip={ip}\nerrno=0\n\n", hex(1));
        assert!(read_reply(answer.as_bytes()).is_err(), "{ip}");
    }
}

#[test]
fn long_answers_arrive() {
    let folder = Folder::new("long");
    let peer = |n: u32| format!("public_key={n:064x}\nallowed_ip=10.0.0.0/8\n");
    let text = (0..5000).map(peer).collect::<Vec<_>>().concat() + "errno=0\n\n";
    let program = folder.program("tun0", vec![text.into_bytes()]);
    assert_eq!(get(&folder.0, "tun0").unwrap().peers.len(), 5000);
    program.join().unwrap();
}

proptest! {
    #[test]
    fn any_bytes(answer: Vec<u8>) {
        let _ = read_reply(&answer);
    }

    #[test]
    fn any_values(
        name in "[a-z_]{1,20}|public_key|endpoint|allowed_ip|errno",
        value in "[-0-9a-f:./\\[\\]%]{0,70}",
    ) {
        let reply = format!("public_key={}\n{name}={value}\nerrno=0\n\n", hex(1));
        let _ = read_reply(reply.as_bytes());
    }
}
