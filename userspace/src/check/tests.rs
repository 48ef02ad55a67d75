// SPDX-License-Identifier: GPL-2.0-only
//! Tests of what is found.

use super::*;
use crate::key::SecretKey;
use proptest::prelude::*;

const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const OWN: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

/// A public key that is nobody's own.
fn key(byte: u8) -> String {
    crate::key::PublicKey::new([byte; 32]).to_string()
}

/// LINE:COLUMN-LENGTH SEVERITY MESSAGE of all that is found.
fn found(text: &str) -> Vec<String> {
    let show = |f: Finding| {
        let place = f.place.map_or(String::new(), |p| {
            format!("{}:{}+{} ", p.line, p.column, p.len)
        });
        format!(
            "{place}{}{}",
            if f.severity == Severity::Error {
                "E "
            } else {
                "W "
            },
            f.message
        )
    };
    all(text.as_bytes()).into_iter().map(show).collect()
}

/// All that is found in this text alone.
fn all(text: &[u8]) -> Vec<Finding> {
    let lines: Vec<_> = text.split(|c| *c == b'\n').collect();
    findings(&Judged::new(Settings::parse(text), true), &lines)
}

fn good() -> String {
    format!(
        "[Interface]\nPrivateKey = {PRIVATE}\nAddress = 10.0.0.1/24, fd00::1/64\n\
         DNS = 10.0.0.53, example.org\nMTU = 1420\nTable = auto\nPostUp = echo %i\n\
         SaveConfig = false\nListenPort = 51820\n\n[Peer]\nPublicKey = {}\n\
         AllowedIPs = 10.0.0.2/32, 0.0.0.0/0\nEndpoint = 192.0.2.1:51820\n\n\
         [Peer] # nested prefixes are fine\nPublicKey = {}\nAllowedIPs = 10.0.0.0/24,\n",
        key(1),
        key(2)
    )
    .replace("/24,\n", "/24\n")
}

#[test]
fn nothing_to_say_about_a_good_file() {
    assert_eq!(found(&good()), [""; 0]);
    assert_eq!(found(&good().replace('\n', "\r\n")), [""; 0]);
    assert_eq!(found(""), [""; 0]);
}

#[test]
fn every_fault_with_its_place() {
    let long = "x".repeat(70);
    let text = format!(
        "PrivateKey = {PRIVATE}\nhello\n[Interfaces]\n[Interface]\nPrivatKey = {PRIVATE}\n\
         ListenPort = 70000\nFwMark = x\nPublicKey = {OWN}\n\
         Address = 10.0.0.1/24, 10.0.0.300/24 x\nMTU = big\nTable = nowhere\nSaveConfig = maybe\n\
         MTU =\n{long} = 1\n[Peer]\nAllowedIPs = 10.0.0.0/33, x\nAllowedIPs = 1.2.3.4/8 , y\n\
         Endpoint = 192.0.2.1\nEndpoint = [::1\nPersistentKeepalive = 1d\nPresharedKey = abc\n\
         ListenPort = 5\n[Peer]\nPublicKey = {}\nAllowedIPs = ::/0\n[Interface]\n",
        &OWN[1..]
    );
    let wanted = [
        "1:1+10 E PrivateKey stands before any section",
        "2:1+5 E neither a section nor a key with a value",
        "3:1+12 E no such section",
        "5:1+9 E unknown key `PrivatKey'",
        "6:14+5 E `70000' is not a port",
        "7:10+1 E `x' is not a firewall mark",
        "8:1+9 E PublicKey does not belong in [Interface]",
        "9:24+13 E `10.0.0.300/24' is not an IP address",
        "9:38+1 E `x' is not an IP address",
        "11:9+7 W no routing table is called `nowhere' now",
        "12:14+5 E `maybe' is neither true nor false",
        "13:6+1 W this overrides line 10",
        "14:1+70 E unknown key",
        "15:1+6 E this peer has no PublicKey",
        "16:14+11 E `10.0.0.0/33' is not an address with a prefix length",
        "16:27+1 E `x' is not an IP address",
        "17:26+1 E `y' is not an IP address",
        "17:14+9 W `1.2.3.4/8' is an address, not a network",
        "18:12+9 E `192.0.2.1' has no port",
        "19:12+4 E `[::1' has a `[' without its `]'",
        "20:23+2 E `1d' is not an interval",
        "21:16+3 E not a key: 3 characters instead of 44",
        "22:1+10 E ListenPort does not belong in [Peer]",
        "24:13+43 E not a key: 43 characters instead of 44",
        "26:1+11 W another [Interface] section",
    ];
    assert_eq!(found(&text), wanted);
    let suggestion = all(text.as_bytes())
        .into_iter()
        .find(|f| f.message.contains("PrivatKey"))
        .and_then(|f| f.help);
    assert_eq!(suggestion.as_deref(), Some("did you mean PrivateKey?"));
}

#[test]
fn bytes_that_are_no_text() {
    assert_eq!(
        found("\u{feff}[Interface]\nMTU = 1280"),
        ["1:1+1 E the file begins with a byte order mark",]
    );
    assert_eq!(found("[Interface]\nMTU = 12\080\n"), ["2:9+1 E a NUL byte"]);
    assert!(all(b"[Interface]\nPostUp = echo \xff\xfe\n").is_empty());
}

#[test]
fn few_and_true_warnings() {
    let text = format!(
        "[Interface]\nPrivateKey = {PRIVATE}\nMTU = 1280\nMTU = 1300\n[Peer]\nPublicKey = {OWN}\n\
         [Peer]\nPublicKey = {one}\nAllowedIPs = 10.0.0.1/24, 10.1.0.0/16, 10.1.0.0/16\n\
         Endpoint = vpn.example.org:51820\n[Peer]\nPublicKey = {two}\n\
         AllowedIPs = 10.0.0.0/24, ::/0\n[Peer]\nPublicKey = {one}\n\
         AllowedIPs = 10.1.0.0/16, ::/0\n",
        one = key(1),
        two = key(2),
    );
    let wanted = [
        "4:7+4 W this overrides line 3",
        "5:1+6 W this peer has no AllowedIPs",
        "6:13+44 W this is the interface's own key",
        "9:14+11 W `10.0.0.1/24' is an address, not a network",
        "13:14+17 W 10.0.0.0/24 belongs to the peer of line 9, too",
        "15:13+44 W the same peer as in line 8",
        "16:14+17 W ::/0 belongs to the peer of line 13, too",
    ];
    assert_eq!(found(&text), wanted);
    let no_key = format!(
        "[Interface]\n[Peer]\nPublicKey = {}\nAllowedIPs = ::/0\n",
        key(1)
    );
    assert_eq!(
        found(&no_key),
        ["W there is no PrivateKey: the interface will not send or accept anything"]
    );
    assert_eq!(
        found(&no_key.replace("e]\n", "e]\nPostUp = wg set %i private-key /key\n")),
        [""; 0]
    );
}

/// A file in a folder of the test's own, with this mode.
fn file(name: &str, text: &str, mode: u32) -> PathBuf {
    let path = std::env::temp_dir().join(format!("wg-rs-check-{}-{name}", std::process::id()));
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn checked(path: &Path) -> (bool, String) {
    let mut out = Vec::new();
    let good = run(&[path.to_owned()], false, &mut out).unwrap();
    let _ = fs::remove_file(path);
    (good, String::from_utf8(out).unwrap())
}

#[test]
fn verdicts() {
    let (ok, text) = checked(&file("good", &good(), 0o600));
    assert!(
        ok && text.ends_with("good: good\n") && text.lines().count() == 1,
        "{text}"
    );
    let (ok, text) = checked(&file("open", &good(), 0o644));
    assert!(
        ok && text.contains("anyone can read") && text.ends_with("good, 1 warning\n"),
        "{text}"
    );
    // Without a key there is nothing to hide.
    assert!(checked(&file("keyless", "[Interface]\n", 0o644))
        .1
        .ends_with(": good\n"));
    let (ok, text) = checked(&file("bad", "x\ny\n", 0o600));
    assert!(!ok && text.ends_with(": 2 errors\n"), "{text}");
    let (ok, text) = checked(Path::new("/nonexistent/wg0.conf"));
    assert!(
        !ok && text.starts_with("/nonexistent/wg0.conf: error: No such file"),
        "{text}"
    );
    let (ok, text) = checked(&file("sixteen__letters.conf", "", 0o600));
    assert!(
        !ok && text.contains("no interface can have the name"),
        "{text}"
    );
    let hook = "[Interface]\nPostUp = if\nListenPort = 5/udp\n";
    let (ok, text) = checked(&file("hook", hook, 0o600));
    assert!(!ok && text.ends_with(": 2 errors\n"), "{text}");
    let (ok, text) = checked(Path::new("/"));
    assert!(!ok && !text.contains("os error"), "{text}");
    let (ok, text) = checked(&file("many", &"x\n".repeat(5000), 0o600));
    assert!(
        !ok && text.ends_with("5000 errors (the first 100 are shown)\n")
            && text.lines().count() == 301,
        "{text}"
    );
}

/// What people have in their files, and what is said of it.
#[test]
fn files_in_the_wild() {
    let peer = format!("[Peer]\nPublicKey = {}\nAllowedIPs = 0.0.0.0/0\n", key(1));
    let file = |lines: &str| format!("[Interface]\nPrivateKey = {PRIVATE}\n{lines}\n{peer}");
    // Nothing to say.
    for good in [
        file("Address = 10.0.0.2/32\nDNS =\nMTU =\nTable ="),
        file("Address ="),
        file("PostUp = echo '#' # one"),
        file("") + "Endpoint = vpn.example.org:51820\n",
        file("") + "Endpoint = [fe80::1%eth0]:51820\n",
        file("") + "Endpoint = 127.1:51820\n",
    ] {
        assert_eq!(found(&good), [""; 0], "{good}");
    }
    for (text, wanted) in [
        (
            "[ Interface ]\nAddress = 10.0.0.2/32",
            vec!["2:1+7 E Address is not seen below a section written like this"],
        ),
        (
            "[Interface]\nJc = 4\nJmin = 8\nS1 = 5\nH1 = 1\nFoo = 1\nBar = 2",
            vec![
                "2:1+2 E `Jc' is a key of AmneziaWG, as are those of 3 more lines",
                "6:1+3 E unknown key `Foo'",
                "7:1+3 E unknown key `Bar'",
            ],
        ),
        (
            "[Interface]\n; home\n;MTU = 1280",
            vec!["2:1+6 E not a comment", "3:1+4 E not a comment"],
        ),
        (
            "[Interface]\nAddress = 10.0.0.2/24\n[Interface]\nAddress = fd00::2/64",
            vec!["3:1+11 W another [Interface] section"],
        ),
    ] {
        assert_eq!(found(text), wanted, "{text}");
    }
    let unknown = all(b"[Interface]\nFoo = 1\nBar = 2");
    let lists = unknown.iter().filter(|finding| finding.help.is_some());
    assert_eq!(lists.count(), 1);
}

proptest! {
    #[test]
    fn never_panics_and_stays_inside(
        text in "(\\[Interface\\]|\\[Peer\\]|\
                 [A-Za-z]{0,12} ?=? ?[-0-9a-zä./,:\t\\[\\]\u{0}]{0,20}\r?\n?){0,10}"
    ) {
        let lines: Vec<&str> = text.split('\n').collect();
        for finding in all(text.as_bytes()) {
            let source: Vec<_> = text.as_bytes().split(|c| *c == b'\n').collect();
            let shown = finding.show("f", &source, false);
            prop_assert!(shown.lines().count() <= 3);
            if let Some(place) = finding.place {
                let line = lines.get(place.line - 1).copied().unwrap_or_default();
                prop_assert!(place.column <= line.chars().count() + 1, "{place:?} in {line:?}");
            }
        }
    }

    #[test]
    fn any_bytes(source: Vec<u8>) {
        all(&source);
    }

    /// Whatever is done to the line of a key, no larger part of it comes out.
    #[test]
    fn no_key_comes_out(
        key: [u8; 32],
        at in 0usize..44,
        cut in 0usize..20,
        name in "(PrivateKey|PresharedKey|PrivateKy|Key|Endpoint|PostUp|)",
        psk: bool,
    ) {
        let base64 = SecretKey::new(&key).to_base64();
        let mut value = base64.as_str().to_owned();
        value.replace_range(at..(at + cut).min(44), "");
        let section = if psk { "[Peer]" } else { "[Interface]" };
        let text = format!("{section}\n{name} = {value}\n");
        let lines: Vec<&[u8]> = text.as_bytes().split(|c| *c == b'\n').collect();
        for finding in all(text.as_bytes()) {
            let shown = finding.show("f", &lines, false);
            for part in value.as_bytes().windows(31) {
                prop_assert!(!shown.contains(std::str::from_utf8(part).unwrap()), "{shown}");
            }
        }
    }
}
