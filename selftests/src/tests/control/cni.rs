// SPDX-License-Identifier: GPL-2.0-only
//! Container networks: Debian's CNI plugins on each of three nodes, WireGuard between them.

use super::{bash, eventually, no_ping, ping, switch, Keys};
use anyhow::{ensure, Context, Result};
use harness::cmd;
use harness::netns::Netns;
use harness::runner::Ctx;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const DIR: &str = "/run/wireguard/cni";
const PLUGINS: &str = "/usr/lib/cni";
/// The port of a node that is mapped to its pod's web server.
const MAPPED: u16 = 8080;

/// One machine of the cluster.
struct Node {
    number: usize,
    ns: Netns,
    keys: Keys,
    outside: String,
}

impl Node {
    /// The prefix of the node's pods, without the host part.
    fn prefix(&self) -> String {
        format!("10.244.{}", self.number)
    }

    fn pods(&self) -> String {
        format!("{}.0/24,fd44:{}::/64", self.prefix(), self.number)
    }

    /// The folder where `host-local` notes the addresses in use.
    fn leases(&self) -> String {
        format!("{DIR}/{}", self.number)
    }

    /// Makes the node's device.
    fn device(&self) -> Result<()> {
        bash(
            &self.ns,
            &format!(
                "ip link add wg0 type wireguard
                 wg set wg0 listen-port 51820 private-key <(echo {})
                 ip link set wg0 up",
                self.keys.private
            ),
        )
        .map(drop)
    }

    /// Makes another node known, or unknown.
    fn knows(&self, other: &Node, whether: bool) -> Result<()> {
        let key = &other.keys.public;
        let (verb, peer) = if whether {
            let (pods, outside) = (other.pods(), &other.outside);
            (
                "add",
                format!("allowed-ips {pods} endpoint {outside}:51820"),
            )
        } else {
            ("del", "remove".to_owned())
        };
        bash(
            &self.ns,
            &format!(
                "wg set wg0 peer {key} {peer}
                 ip route {verb} {}.0/24 dev wg0
                 ip route {verb} fd44:{}::/64 dev wg0",
                other.prefix(),
                other.number
            ),
        )
        .map(drop)
    }

    /// The chain of plugins with their settings.
    fn chain(&self) -> [(&'static str, String); 3] {
        let (leases, prefix, number) = (self.leases(), self.prefix(), self.number);
        [
            (
                "bridge",
                format!(
                    r#""bridge": "cni0", "isGateway": true, "mtu": 1420,
                    "ipam": {{"type": "host-local", "dataDir": "{leases}",
                        "ranges": [[{{"subnet": "{prefix}.0/24"}}],
                            [{{"subnet": "fd44:{number}::/64"}}]],
                        "routes": [{{"dst": "0.0.0.0/0"}}, {{"dst": "::/0"}}]}}"#
                ),
            ),
            (
                "tuning",
                r#""sysctl": {"net.ipv4.tcp_mtu_probing": "1"}"#.to_owned(),
            ),
            (
                "portmap",
                format!(
                    r#""runtimeConfig": {{"portMappings":
                        [{{"hostPort": {MAPPED}, "containerPort": 80, "protocol": "tcp"}}]}}"#
                ),
            ),
        ]
    }

    /// Calls a plugin for a pod, as a container runtime does. `previous` is the result of the one
    /// before it in the chain.
    fn plugin(
        &self,
        (name, settings): &(&str, String),
        command: &str,
        pod: &Netns,
        previous: &str,
    ) -> Result<String> {
        let previous = if previous.is_empty() {
            String::new()
        } else {
            format!(", \"prevResult\": {previous}")
        };
        let conf = format!(
            r#"{{"cniVersion": "1.0.0", "name": "pods", "type": "{name}", {settings}{previous}}}"#
        );
        let pod = pod.name();
        let done = self.ns.run(|| {
            cmd::try_run(
                &[
                    "env",
                    &format!("CNI_COMMAND={command}"),
                    &format!("CNI_CONTAINERID={pod}"),
                    &format!("CNI_NETNS=/run/netns/{pod}"),
                    "CNI_IFNAME=eth0",
                    &format!("CNI_PATH={PLUGINS}"),
                    &format!("{PLUGINS}/{name}"),
                ],
                &conf,
            )
        })?;
        ensure!(
            done.ok,
            "{name} {command} {pod}: {}{}",
            done.stdout,
            done.stderr
        );
        Ok(done.stdout)
    }
}

/// A pod on a node, with a web server; its page is the pod's name.
struct Pod {
    ns: Netns,
    server: Child,
    /// The result of the chain.
    result: String,
    address: String,
}

impl Pod {
    fn start(node: &Node) -> Result<Self> {
        let name = format!("pod{}", node.number);
        let ns = Netns::new(&name)?;
        let mut result = String::new();
        for step in &node.chain() {
            result = node.plugin(step, "ADD", &ns, &result)?;
        }
        let page = format!("{DIR}/{name}");
        fs::create_dir_all(&page)?;
        fs::write(format!("{page}/index.html"), &name)?;
        let server = ns.run(|| {
            let mut command = Command::new("busybox");
            command.args(["httpd", "-f", "-p", "[::]:80", "-h", &page]);
            Ok(command.stdin(Stdio::null()).spawn()?)
        })?;
        let shown = ns.sh("ip -o -4 addr show dev eth0")?;
        let address = shown.split_whitespace().nth(3).context("no address")?;
        let address = address.split('/').next().unwrap_or_default().to_owned();
        ensure!(
            address.starts_with(&node.prefix()),
            "{name} has the address {address}"
        );
        Ok(Pod {
            ns,
            server,
            result,
            address,
        })
    }

    fn stop(mut self, node: &Node) -> Result<()> {
        self.server.kill()?;
        self.server.wait()?;
        let network = format!("{}/pods", node.leases());
        let lease = format!("{network}/{}", self.address);
        ensure!(Path::new(&lease).exists(), "{lease} is not there");
        for step in node.chain().iter().rev() {
            node.plugin(step, "DEL", &self.ns, &self.result)?;
        }
        ensure!(!Path::new(&lease).exists(), "{lease} is still there");
        let links = self.ns.sh("ip -o link")?;
        ensure!(!links.contains("eth0"), "the pod still has eth0: {links}");
        Ok(())
    }

    fn get(&self, url: &str) -> Result<String> {
        self.ns
            .sh(&format!("busybox wget -q -T 10 -O - http://{url}/"))
    }

    /// Pings another pod and fetches its page, from its own address and from the port of its node.
    fn reaches(&self, other: &Pod, node: &Node) -> Result<()> {
        let six = other.ns.sh("ip -o -6 addr show dev eth0 scope global")?;
        let six = six.split_whitespace().nth(3).context("no IPv6 address")?;
        let six = six.split('/').next().unwrap_or_default();
        eventually(|| ping(&self.ns, &other.address))?;
        eventually(|| ping(&self.ns, six))?;
        let mapped = format!("{}.1:{MAPPED}", node.prefix());
        for host in [other.address.clone(), format!("[{six}]"), mapped] {
            let page = eventually(|| self.get(&host))?;
            ensure!(page == other.ns.name(), "{host} sent {page:?}");
        }
        Ok(())
    }
}

/// Each of these pods reaches each other.
fn all_reach(nodes: &[Node], pods: &[Pod]) -> Result<()> {
    for pod in pods {
        for (other, node) in pods.iter().zip(nodes) {
            if pod.address != other.address {
                let names = format!("{} to {}", pod.ns.name(), other.ns.name());
                pod.reaches(other, node).context(names)?;
            }
        }
    }
    for node in nodes {
        let shown = node.ns.sh("wg show wg0 transfer")?;
        let idle = shown.lines().find(|line| line.contains("\t0"));
        ensure!(
            idle.is_none() && shown.lines().count() == nodes.len() - 1,
            "node {}: {shown}",
            node.number
        );
    }
    Ok(())
}

/// Three nodes with a pod each; one of them leaves, and returns with another key and address.
pub(super) fn nodes(_: &Ctx) -> Result<()> {
    let names = ["node1", "node2", "node3"].map(Netns::new);
    let [Ok(one), Ok(two), Ok(three)] = names else {
        anyhow::bail!("no namespaces for the nodes")
    };
    let hub = switch(&[&one, &two, &three])?;
    let mut nodes = Vec::new();
    for (number, ns) in (1..).zip([one, two, three]) {
        let keys = Keys::new(&ns)?;
        let outside = format!("192.0.2.{number}");
        let node = Node {
            number,
            ns,
            keys,
            outside,
        };
        node.device()?;
        nodes.push(node);
    }
    for node in &nodes {
        for other in nodes.iter().filter(|other| other.number != node.number) {
            node.knows(other, true)?;
        }
    }
    let mut pods = nodes.iter().map(Pod::start).collect::<Result<Vec<_>>>()?;
    all_reach(&nodes, &pods)?;

    let (Some(pod), Some(mut node)) = (pods.pop(), nodes.pop()) else {
        anyhow::bail!("no third node")
    };
    let address = pod.address.clone();
    pod.stop(&node)?;
    node.ns.sh("ip link del wg0")?;
    for other in &nodes {
        other.knows(&node, false)?;
    }
    all_reach(&nodes, &pods).context("without the third node")?;
    for pod in &pods {
        no_ping(&pod.ns, &address)?;
    }

    node.keys = Keys::new(&node.ns)?;
    node.outside = "192.0.2.13".to_owned();
    node.ns.sh("ip addr flush dev eth0")?;
    node.ns.sh("ip addr add 192.0.2.13/24 dev eth0")?;
    node.device()?;
    for other in &nodes {
        other.knows(&node, true)?;
        node.knows(other, true)?;
    }
    pods.push(Pod::start(&node)?);
    nodes.push(node);
    all_reach(&nodes, &pods).context("after its return")?;
    for (pod, node) in pods.into_iter().zip(&nodes) {
        pod.stop(node)?;
    }
    drop(hub);
    Ok(())
}
