// SPDX-License-Identifier: GPL-2.0-only
//! Applications that send files through the tunnel without copying them.

use super::super::{drop_in, Test};
use super::APP;
use anyhow::{ensure, Context, Result};
use harness::pace::slow;
use harness::runner::Ctx;
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::{pattern, ping_all, set_option, udp};
use nix::sys::sendfile::sendfile;
use std::fs::{self, File};
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Of several packets of 64 KiB.
const SIZE: usize = 300_000;
const LIMIT: Duration = Duration::from_secs(10);

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "gso-sendfile", 60, whole_files);
}

/// Sends `file` to `socket` from its start, in steps of `step` bytes.
fn send(socket: &impl AsFd, file: &File, step: usize) -> Result<()> {
    let mut at = 0;
    while at < SIZE as i64 {
        let left = step.min(SIZE - at as usize);
        let sent = sendfile(socket.as_fd(), file.as_fd(), Some(&mut at), left)?;
        ensure!(sent > 0, "nothing sent");
    }
    Ok(())
}

/// A file that is sent from the page cache, over TCP, in datagrams that are sent together and in
/// single ones, arrives as it was and stays as it was: it is not encrypted in place.
fn whole_files(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let data = pattern(7, SIZE);
    let path = format!("/tmp/gso-sendfile-{}", std::process::id());
    fs::write(&path, &data)?;
    let file = File::open(&path)?;
    fs::remove_file(&path)?;
    let is_unchanged = |what: &str| -> Result<()> {
        let mut now = vec![0; SIZE];
        file.read_exact_at(&mut now, 0)?;
        let at = now.iter().zip(&data).position(|(now, was)| now != was);
        ensure!(at.is_none(), "{what}: the file has changed at {at:?}");
        Ok(())
    };
    for v6 in [false, true] {
        let to = SocketAddr::new(inner(v6, 1), APP);
        let listener = tunnel.ns(1).run(|| Ok(TcpListener::bind(to)?))?;
        let reader = tunnel.ns(1).spawn(move || {
            let (mut stream, _) = listener.accept()?;
            let mut all = Vec::new();
            stream.read_to_end(&mut all)?;
            Ok(all)
        })?;
        let stream = tunnel.ns(0).run(|| Ok(TcpStream::connect(to)?))?;
        send(&stream, &file, SIZE)?;
        stream.shutdown(Shutdown::Write)?;
        let all = reader.join().expect("reader panicked")?;
        ensure!(all == data, "over TCP came {} other bytes", all.len());
        is_unchanged("TCP")?;

        let sink = udp(tunnel.ns(1), to)?;
        sink.set_read_timeout(Some(slow(LIMIT)))?;
        let socket = udp(tunnel.ns(0), SocketAddr::new(inner(v6, 0), APP))?;
        socket.connect(to)?;
        for (together, len) in [(40, 1000), (1, 1000), (1, 1)] {
            set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, len as i32)?;
            let mut buf = [0; 2000];
            for n in 0..80 / together {
                let from = n * together * len;
                let mut at = from as i64;
                let count = together * len;
                let sent = sendfile(socket.as_fd(), file.as_fd(), Some(&mut at), count)?;
                ensure!(sent == count, "{sent} of {count} bytes");
                for wanted in data[from..from + count].chunks(len) {
                    let got = sink.recv(&mut buf).context("a datagram")?;
                    ensure!(&buf[..got] == wanted, "datagrams of {len}: others came");
                }
            }
            is_unchanged("UDP")?;
        }
    }
    Ok(())
}
