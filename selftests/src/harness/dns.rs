// SPDX-License-Identifier: GPL-2.0-only
//! A name server for a namespace: the first label of a name chooses the answer.
//!
//! `four.`, `six.`, `both.`: 192.0.2.N, 2001:db8::N, or each, N being the label's length; `none.`:
//! the name exists without addresses; `gone.`: NXDOMAIN; anything else: SERVFAIL.

use super::netns::Netns;
use anyhow::Result;
use std::net::UdpSocket;

/// Answers on 127.0.0.1:53 in `ns` until the test's process ends. Clients need `nameserver
/// 127.0.0.1` in `/etc/resolv.conf`.
pub fn serve(ns: &Netns) -> Result<()> {
    let socket = ns.run(|| Ok(UdpSocket::bind("127.0.0.1:53")?))?;
    std::thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut query) {
            if let Some(answer) = query.get(..len).and_then(answer) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    Ok(())
}

const A: u16 = 1;
const AAAA: u16 = 28;

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = query.split_first_chunk::<12>()?;
    let name_len = rest.iter().position(|byte| *byte == 0)? + 1;
    let question = rest.get(..name_len + 4)?;
    let label = question
        .get(1..=usize::from(*question.first()?))?
        .to_ascii_lowercase();
    let kind = u16::from_be_bytes(question.get(name_len..name_len + 2)?.try_into().ok()?);
    let last = label.len() as u8;
    let (v4, v6) = (
        vec![192, 0, 2, last],
        [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[last]].concat(),
    );
    let (code, data) = match (label.as_slice(), kind) {
        (b"four" | b"both", A) => (0, Some(v4)),
        (b"six" | b"both", AAAA) => (0, Some(v6)),
        (b"four" | b"six" | b"both" | b"none", _) => (0, None),
        (b"gone", _) => (3, None),
        _ => (2, None),
    };
    let mut out = header.get(..2)?.to_vec();
    // A response, recursion available.
    out.extend_from_slice(&[
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::from(data.is_some()),
        0,
        0,
        0,
        0,
    ]);
    out.extend_from_slice(question);
    if let Some(data) = data {
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
        out.extend_from_slice(&data);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, kind: u16) -> Vec<u8> {
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend_from_slice(label.as_bytes());
        }
        query.push(0);
        query.extend_from_slice(&kind.to_be_bytes());
        query.extend_from_slice(&[0, 1]);
        answer(&query).unwrap()
    }

    #[test]
    fn answers() {
        let four = ask("four.example", A);
        assert_eq!((four[3] & 15, four[7]), (0, 1));
        assert!(four.ends_with(&[0, 4, 192, 0, 2, 4]));
        assert!(ask("BOTH.example", AAAA).ends_with(&[0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4]));
        assert_eq!(ask("four.example", AAAA)[7], 0);
        assert_eq!(ask("gone.example", A)[3] & 15, 3);
        assert_eq!(ask("other", A)[3] & 15, 2);
        assert_eq!(answer(&[0; 11]), None);
    }
}
