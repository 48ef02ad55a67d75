// SPDX-License-Identifier: GPL-2.0-only
//! pyroute2, a netlink library for Python.

use super::{canonical, Scene};
use anyhow::{ensure, Context, Result};
use harness::cmd;
use harness::netns::Netns;
use harness::runner::Ctx;

/// The arguments of this one and the next: private key, the public key of the peer, their preshared
/// key, the public key of the absent peer.
const CREATE: &str = "
import sys
from pyroute2 import IPRoute, WireGuard
private, public, psk, absent = sys.argv[1:]
with IPRoute() as ip:
    ip.link('add', ifname='wg0', kind='wireguard')
    index = ip.link_lookup(ifname='wg0')[0]
    ip.addr('add', index=index, address='10.9.0.1', prefixlen=16)
    ip.addr('add', index=index, address='fd09::1', prefixlen=64)
    ip.link('set', index=index, state='up')
with WireGuard() as wg:
    wg.set('wg0', private_key=private, listen_port=51821, fwmark=0x77, peer={
        'public_key': public, 'preshared_key': psk, 'endpoint_addr': '192.0.2.2',
        'endpoint_port': 51820, 'persistent_keepalive': 25,
        'allowed_ips': ['10.9.0.2/32', 'fd09::2/128']})
    wg.set('wg0', peer={'public_key': absent, 'allowed_ips': ['10.9.0.3/32']})
";

const CHANGE: &str = "
import sys
from pyroute2 import WireGuard
_, public, _, absent = sys.argv[1:]
with WireGuard() as wg:
    wg.set('wg0', listen_port=51822, fwmark=0x78, peer={
        'public_key': public, 'persistent_keepalive': 0,
        'allowed_ips': ['10.9.0.2/32', '10.9.1.2/32']})
    wg.set('wg0', peer={'public_key': absent, 'remove': True})
";

/// Prints what pyroute2 reads, as `wg showconf` would.
const READ: &str = "
from pyroute2 import WireGuard
with WireGuard() as wg:
    device = wg.info('wg0')[0]
def key(attrs, name):
    return attrs.get_attr(name).decode()
print('[Interface]')
print('ListenPort =', device.get_attr('WGDEVICE_A_LISTEN_PORT'))
print('FwMark =', hex(device.get_attr('WGDEVICE_A_FWMARK')))
print('PrivateKey =', key(device, 'WGDEVICE_A_PRIVATE_KEY'))
for peer in device.get_attr('WGDEVICE_A_PEERS'):
    print('[Peer]')
    print('PublicKey =', key(peer, 'WGPEER_A_PUBLIC_KEY'))
    psk = key(peer, 'WGPEER_A_PRESHARED_KEY')
    if psk.strip('A') != '=':
        print('PresharedKey =', psk)
    print('AllowedIPs =', ', '.join(ip['addr'] for ip in peer.get_attr('WGPEER_A_ALLOWEDIPS')))
    endpoint = peer.get_attr('WGPEER_A_ENDPOINT')
    if endpoint:
        print('Endpoint = {addr}:{port}'.format(**endpoint))
    keepalive = peer.get_attr('WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL')
    if keepalive:
        print('PersistentKeepalive =', keepalive)
";

const REMOVE: &str = "
from pyroute2 import IPRoute
with IPRoute() as ip:
    ip.link('del', index=ip.link_lookup(ifname='wg0')[0])
";

fn python(ns: &Netns, script: &str, args: &[&str]) -> Result<String> {
    let line = [&["python3", "-c", script], args].concat();
    ns.run(|| cmd::run(&line))
}

/// A device that its public API makes, reads, changes and removes.
pub(super) fn device(_: &Ctx) -> Result<()> {
    let scene = Scene::new()?;
    let ns = &scene.near;
    let args = [
        scene.keys[0].private.as_str(),
        scene.keys[1].public.as_str(),
        scene.psk.as_str(),
        scene.absent.as_str(),
    ];
    let run = |script: &str, wanted: &str| -> Result<()> {
        let found = python(ns, &[script, READ].concat(), &args)?;
        ensure!(
            canonical(&found) == canonical(wanted),
            "pyroute2 reads\n{found}and not\n{wanted}"
        );
        Ok(())
    };
    run(CREATE, &scene.first()).context("create")?;
    scene.is_first().context("created")?;
    run(CHANGE, &scene.second()).context("change")?;
    scene.is_second().context("changed")?;
    python(ns, REMOVE, &[]).context("remove")?;
    scene.is_gone().context("removed")
}
