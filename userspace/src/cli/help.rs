// SPDX-License-Identifier: GPL-2.0-only
//! What --help and the man pages say beside the arguments.

/// More about `show`.
pub const SHOW: &str = "\
JSON:
With --json, all interfaces, or the one that is named, are one object: a member for each \
interface, with the members ifindex, hasPrivateKey, publicKey, listenPort, fwmark and peers. The \
latter has a member for each peer, called by its public key, with hasPresharedKey, endpoint, \
latestHandshake (seconds since 1970), transferRx, transferTx (bytes), persistentKeepalive \
(seconds) and allowedIps, a list. What there is none of is null. WG_HIDE_KEYS=never adds \
privateKey and presharedKey. `show interfaces --json' is a list of the names.

Stats:
`show wg0 stats' shows what the module wireguard_rs counts: messages accepted and sent, \
handshakes, and what was refused or lost, each time with the reason. Those of an interface include \
those of its peers. With --json, an object with a member for each interface; reasons have the \
names of docs/netlink/wireguard_rs.yaml. The in-tree driver does not count them.

Examples:
  wg-rs show
  wg-rs show wg0 latest-handshakes
  wg-rs show wg0 stats
  wg-rs show --json | jq '.wg0.peers | length'
";

/// More about `set`.
pub const SET: &str = "\
Keys:
Keys are read from files, /dev/stdin among them, so that no secret stands on a command line. An \
empty file removes the key.

Allowed IPs:
A list replaces the peer's allowed IPs; entries that begin with + or - are added to them or \
removed. An empty list removes all.

Examples:
  wg-rs set wg0 listen-port 51820 private-key /etc/wireguard/key
  wg-rs set wg0 peer KEY allowed-ips 10.0.0.2/32 endpoint 192.0.2.2:51820
  wg-rs set wg0 peer KEY persistent-keepalive 25
  wg-rs set wg0 peer KEY remove
";

/// More about `up`.
pub const UP: &str = "\
Configuration:
A file of sections and of KEY = VALUE lines; # begins a comment, except in hooks, which the shell \
reads. [Interface] stands once, [Peer] once for each peer.

Interface:
  PrivateKey    the interface's key, as genkey makes it
  ListenPort    UDP port; without it the kernel chooses one
  FwMark        mark of the encrypted packets; off, or a number
  Address       addresses with prefix lengths, separated by commas
  DNS           name servers and search domains, separated by commas
  MTU           without it, what fits all the routes to the endpoints
  Table         routing table for the peers' networks; off, auto (the
                default), a number or a name
  PreUp, PostUp, PreDown, PostDown
                hooks: commands for bash, %i stands for the interface
  SaveConfig    true: down writes the interface's state to the file

Peer:
  PublicKey     the peer's key; the only line that must be there
  PresharedKey  a secret that both sides share in addition, as genpsk
                makes it
  AllowedIPs    networks that are the peer's, separated by commas
  Endpoint      HOST:PORT; without it, the peer has to begin
  PersistentKeepalive
                seconds between packets that keep a NAT open; off, or a
                number

Options:
A comment such as #wg-rs: copy-dscp = on below [Interface], or #wg-rs: silence = 60 below [Peer], \
sets an option of wg-rs-options(8) with the module wireguard_rs; other programs pass over it.

Hooks:
They find INTERFACE, CONFIG_FILE, PROGRAM, MTU, TABLE, DNS and DNS_SEARCH in the environment, the \
functions cmd and die of wg-quick, and a wg even if none is installed. A file with a hook that the \
shell cannot read is refused.

With 0.0.0.0/0 or ::/0 among the allowed IPs (and Table = auto) all traffic goes through the \
tunnel, but for its own packets. A step that fails is undone together with those before it.

Without WireGuard in the kernel:
The program that WG_QUICK_USERSPACE_IMPLEMENTATION names, wireguard-go by default, is started to \
drive the interface, if it is installed.

Examples:
  wg-rs up wg0
  wg-rs up ./office.conf
  systemctl enable --now wg-rs@wg0
";

/// More about the commands that take a file for `wg`.
pub const CONF: &str = "\
Format:
The sections and keys of wg-rs-up(8) but for Address, DNS, MTU, Table, the hooks and SaveConfig: \
strip removes those.
";

/// More about `status`.
pub const STATUS: &str = "\
Lines:
driver: wireguard_rs or in-tree, with its version, or none yet if none is loaded: then that which \
is loaded on demand. kernel: its release. why: if the in-tree driver serves, why wireguard_rs does \
not: it is not installed for this kernel, the kernel refused it, or the in-tree driver was loaded \
before. hint: what to do about that.

The kernel log, which tells whether the kernel refused the module, is read by root only. The exit \
status is 1 if there is no driver.
";

/// More about `monitor`.
pub const EVENTS: &str = "\
Lines:
Each has the time (UTC), the interface, the event, and what that has of: peer (its public key), \
endpoint, was (the endpoint before), role (who began the handshake: \"initiator\" if this end \
did), session (its number), attempts, changed (what a request has set), load.

Events:
handshake-completed: a session has begun. handshake-given-up: no response to several initiations. \
session-expired: the keys of all sessions are erased, as there was no new one in time. \
endpoint-changed: the peer has moved, or was told where it is. peer-added, peer-removed, \
peer-changed, device-changed: the configuration. unknown-initiator: somebody who knows our public \
key, but is no peer, began a handshake; at most one is told of in a second. load-changed: \
handshake messages need a cookie now (load on), or none any more; noticed when one comes. \
peer-silent: no data came from the peer for as long as `wg-rs options' has set, \
seconds. events-lost: nothing waits for those who listen, and this one was too slow.

Only the module wireguard_rs tells of events: of this network namespace, to whoever may configure \
interfaces in it.";

/// More about `reresolve`.
pub const RERESOLVE: &str = "\
Peers:
A peer whose last handshake was more than 135 seconds ago, or that never had one, and whose \
endpoint is a name in the file, gets the address that the name has now. Others are left alone. A \
name that does not resolve is told of, and tried again the next time.

Regularly:
  systemctl enable --now wg-rs-reresolve@wg0.timer
";

/// More about `metrics`.
pub const METRICS: &str = "\
Metrics:
Of every driver: wireguard_received_bytes_total, wireguard_sent_bytes_total and \
wireguard_latest_handshake_seconds (since 1970, 0 for never), with the labels interface and \
public_key. Of the module wireguard_rs also messages, handshakes, retries, changes of the \
endpoint, and wireguard_refused_packets_total (of an interface) and \
wireguard_peer_refused_packets_total (of a peer) with the label reason.

Collecting:
A file for the textfile collector of node_exporter:
  wg-rs metrics >/var/lib/prometheus/node-exporter/wireguard.prom.new &&
    mv /var/lib/prometheus/node-exporter/wireguard.prom{.new,}
Or by HTTP on 127.0.0.1:9586, from a socket unit that starts it for each request:
  systemctl enable --now wg-rs-metrics.socket
";

pub const OPTIONS: &str = "\
Options:
udp-gso: whether messages of the interface may be sent together, in one packet that the network \
card or the stack cuts (UDP segmentation offload). On unless the module was loaded with udp_gso=0. \
To be switched off where something on the way to the network card cannot cope with such packets.

copy-dscp: whether the DSCP (the class of service) of a packet is copied to the message that it \
travels in. Off at first: it tells everybody on the way what kind of traffic it is.

eager-handshake: whether a handshake begins as soon as a peer's endpoint is set, or the interface \
goes up, instead of with the first packet. Off at first.

bind-interface: messages come and go by this interface alone; or by those of a VRF. The name is \
looked up whenever the sockets are opened, that is when it is set and when the interface goes up. \
bind-address: messages are for and from this address of the host alone, one of each family at \
most; with one of one family only, the other is not used at all. Off stands for any.

Of a peer:
fixed-endpoint: whether the peer is only where it was said to be, wherever its messages come from. \
silence: after so many seconds without data from the peer (keepalives are none) the event \
peer-silent tells of it; 0 or off for never.

Options are lost with the interface. The in-tree driver has none.";

pub const MONITOR: &str = "\
Columns:
A line for each interface sums up its peers, whose lines follow, the busiest first. HANDSHAKE is \
the time since the last handshake: below three minutes a session is in use (green on a terminal), \
\"never\" means that the peer has not answered yet. RX/s and TX/s are bytes received and sent per \
second over the last interval, RX and TX since the peer was added. Keys are shortened, and some \
columns left out, where the terminal is narrow. No private or preshared key is ever shown.

On a terminal, a bar beside each rate of a peer compares it with the largest one. It is of blocks \
if the locale (LC_ALL, LC_CTYPE, LANG) has UTF-8, else of #.

Notes:
With the module wireguard_rs, a line below an interface or a peer tells what was refused or lost \
in the last interval, and how often: the reason, as `show NAME stats --json' calls it. Those of an \
interface include those of its peers. handshake-given-up and session-expired are the events of \
wg-rs-events(8), and stand until there is a handshake. If there is nothing to tell, there is no \
line.

Events:
The module wireguard_rs also tells of changes (of peers, endpoints, handshakes): these are shown \
when they happen, with the rates of the last interval, and between them only counters are read. \
With other drivers everything is read after each interval; the title then says \"no events\". New \
interfaces are shown at once with each of them.

Keys:
Arrows, page up, page down, home and end move through a long table; space reads at once; q ends.

Elsewhere than on a terminal:
Each table is printed as plain text, whole, after an interval, with an empty line between two of \
them. Notes are a last column, NOTES, of those tables that have any: names separated by commas, \
each reason followed by a colon and its count.

Examples:
  wg-rs monitor
  wg-rs top wg0 --interval 5
  wg-rs monitor --once | awk '$4 == \"never\" { print $2 }'
";

/// More about `check`.
pub const CHECK: &str = "\
Output:
FILE:LINE:COLUMN, what is wrong, and the line with a mark below the place; keys are never shown. \
All faults are found at once, hosts are not looked up, and nothing is changed. An error is what up \
would refuse before it does anything. Warnings are about what is valid but probably unintended: a \
network that two peers have, a peer twice or the interface itself as its peer, a peer without \
allowed IPs, a file with keys that anyone can read. They leave the exit status at 0.

Examples:
  wg-rs check wg0
  wg-rs check /etc/wireguard/*.conf
";
