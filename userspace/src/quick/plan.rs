// SPDX-License-Identifier: GPL-2.0-only
//! Decisions: in which order routes are made and which are needed, the MTU, the table.

use super::rtnl::{PolicyRule, Way};
use super::step::{Rule, TABLE_MAIN};
use crate::model::{AllowedIp, ShownIp};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The first table, and mark, taken for default routes.
const FIRST_TABLE: u32 = 51820;
/// What the outer packet's headers take of a packet: 40 for IPv6, 8 for UDP, 32 for WireGuard.
const OVERHEAD: u32 = 80;
/// The MTU of nearly every network.
const ETHERNET: u32 = 1500;

/// The destinations in the order in which wg-quick makes their routes: longest prefix first; among
/// equals, the one whose text is greater.
pub fn ordered(allowed: impl IntoIterator<Item = AllowedIp>) -> Vec<AllowedIp> {
    let mut routes: Vec<_> = allowed
        .into_iter()
        .map(|ip| (ip.cidr, format!("{}/{}", ShownIp(ip.addr), ip.cidr), ip))
        .collect();
    routes.sort_unstable_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
    routes.into_iter().map(|(_, _, ip)| ip).collect()
}

/// Destinations that are routed already.
#[derive(Debug, Default)]
pub struct Routed(HashSet<AllowedIp>);

impl Routed {
    /// Notes a route.
    pub fn add(&mut self, to: AllowedIp) {
        self.0.insert(masked(to.addr, to.cidr));
    }

    /// A route to this, or to more than this, is there.
    pub fn covers(&self, to: AllowedIp) -> bool {
        (0..=to.cidr).any(|cidr| self.0.contains(&masked(to.addr, cidr)))
    }
}

fn masked(addr: IpAddr, cidr: u8) -> AllowedIp {
    let addr = match addr {
        IpAddr::V4(ip) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(cidr.min(32)))
                .unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(cidr.min(128)))
                .unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    };
    AllowedIp { addr, cidr }
}

/// The tunnel's MTU: the smallest on the ways to the endpoints; if there is none, that of the
/// default route; if that is unknown as well, 1500: less what the tunnel adds to a packet.
pub fn mtu(
    endpoints: impl IntoIterator<Item = Option<Way>>,
    default: impl FnOnce() -> Option<Way>,
    mut link_mtu: impl FnMut(u32) -> Option<u32>,
) -> u32 {
    let mut of = |way: Option<Way>| {
        let way = way?;
        way.mtu.or_else(|| link_mtu(way.link?))
    };
    let outer = endpoints
        .into_iter()
        .filter_map(&mut of)
        .min()
        .or_else(|| of(default()))
        .filter(|mtu| *mtu > 0)
        .unwrap_or(ETHERNET);
    outer.saturating_sub(OVERHEAD)
}

/// The first table from 51820 on with nothing in it.
pub fn free_table<E>(mut is_empty: impl FnMut(u32) -> Result<bool, E>) -> Result<u32, E> {
    let mut table = FIRST_TABLE;
    while !is_empty(table)? {
        table += 1;
    }
    Ok(table)
}

/// The rules to delete with a tunnel whose mark and table this is, by their priorities.
///
/// wg-quick deletes every rule that asks the main table without its default routes, also those that
/// other tunnels live on. Here one goes if there is another such tunnel: that which precedes ours.
pub fn rules_to_delete(rules: &[PolicyRule], table: u32) -> Vec<(Rule, u32)> {
    let leads_to = |rule: &&PolicyRule, table| {
        rule.table == table && rule.inverted && rule.mark == Some(table)
    };
    // The tables that every machine has are not given away because of a mark of that number.
    let is_ours = |rule: &&PolicyRule| {
        leads_to(rule, table) || (rule.table == table && !(253..=255).contains(&table))
    };
    let is_main = |rule: &&PolicyRule| {
        let (main, mark) = (TABLE_MAIN, None);
        let plain = rule.plain && !rule.inverted;
        plain && (rule.table, rule.mark, rule.suppressed) == (main, mark, Some(0))
    };
    let unmarked = Rule::Unmarked(table);
    let mut found: Vec<_> = rules
        .iter()
        .filter(is_ours)
        .map(|rule| (unmarked, rule.priority))
        .collect();
    let mut others = rules.iter().filter(|rule| !is_ours(rule));
    let mains = rules.iter().filter(is_main).map(|rule| rule.priority);
    if others.any(|rule| leads_to(&rule, rule.table)) {
        let before = found.iter().map(|(_, priority)| *priority).max();
        let nearest = mains.filter(|priority| Some(*priority) < before).max();
        found.extend(nearest.map(|priority| (Rule::MainButDefault, priority)));
    } else {
        found.extend(mains.map(|priority| (Rule::MainButDefault, priority)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> AllowedIp {
        let (addr, cidr) = text.split_once('/').unwrap();
        AllowedIp {
            addr: addr.parse().unwrap(),
            cidr: cidr.parse().unwrap(),
        }
    }

    #[test]
    fn order() {
        let given = [
            "0.0.0.0/0",
            "10.10.10.10/32",
            "10.7.0.0/16",
            "::/0",
            "10.8.0.0/24",
            "fd08::/64",
            "10.70.0.0/16",
            "fd09::/64",
            "192.168.0.0/16",
        ];
        let texts: Vec<_> = ordered(given.map(ip))
            .iter()
            .map(|ip| ip.to_string())
            .collect();
        // What `sort -nr -k 2 -t /` makes of them, in the C locale.
        let wanted = [
            "fd09::/64",
            "fd08::/64",
            "10.10.10.10/32",
            "10.8.0.0/24",
            "192.168.0.0/16",
            "10.70.0.0/16",
            "10.7.0.0/16",
            "::/0",
            "0.0.0.0/0",
        ];
        assert_eq!(texts, wanted);
    }

    #[test]
    fn routed_already() {
        let mut routed = Routed::default();
        routed.add(ip("10.8.0.0/24"));
        routed.add(ip("fd08::/64"));
        for covered in [
            "10.8.0.0/24",
            "10.8.0.128/25",
            "10.8.0.7/32",
            "fd08::/64",
            "fd08::1/128",
        ] {
            assert!(routed.covers(ip(covered)), "{covered}");
        }
        for other in [
            "10.8.0.0/23",
            "10.8.1.0/24",
            "0.0.0.0/0",
            "fd08::/63",
            "fd08:0:0:1::/64",
        ] {
            assert!(!routed.covers(ip(other)), "{other}");
        }
        routed.add(ip("0.0.0.0/0"));
        assert!(routed.covers(ip("192.0.2.0/24")) && !routed.covers(ip("2001:db8::/32")));
    }

    #[test]
    fn mtus() {
        let way = |mtu, link| Some(Way { mtu, link });
        let links = |index| (index == 1).then_some(9000);
        let none = || None;
        assert_eq!(mtu([], none, links), 1420);
        assert_eq!(mtu([way(None, Some(1))], none, links), 8920);
        assert_eq!(mtu([way(Some(1400), Some(1))], none, links), 1320);
        let two = [way(Some(1400), None), way(Some(1492), None), None];
        assert_eq!(mtu(two, none, links), 1320);
        // No endpoint has a route, or is known.
        let default = || way(None, Some(1));
        assert_eq!(mtu([None], default, links), 8920);
        assert_eq!(mtu([way(None, Some(2))], default, links), 8920);
        assert_eq!(mtu([], || way(None, None), links), 1420);
        assert_eq!(mtu([way(Some(10), None)], none, links), 0);
    }

    #[test]
    fn tables() {
        assert_eq!(free_table(|_| Ok::<_, ()>(true)), Ok(51820));
        assert_eq!(free_table(|table| Ok::<_, ()>(table > 51821)), Ok(51822));
        assert_eq!(free_table(|_| Err(())), Err(()));
    }
    #[test]
    fn rules_of_other_tunnels_stay() {
        let rule = |priority, table, mark: Option<u32>, suppressed| PolicyRule {
            priority,
            table,
            mark,
            inverted: mark.is_some(),
            suppressed,
            plain: true,
        };
        let main = |priority| rule(priority, 254, None, Some(0));
        let last = rule(32766, 254, None, None);
        let one = [
            main(32764),
            rule(32765, 51820, Some(51820), None),
            last.clone(),
        ];
        let of_51820 = (Rule::Unmarked(51820), 32765);
        let wanted = [of_51820, (Rule::MainButDefault, 32764)];
        assert_eq!(rules_to_delete(&one, 51820), wanted);
        // A rule of the user's to that table goes as well; leftovers, too.
        let more = [&[main(5), rule(6, 51820, None, None)], &one[..]].concat();
        let wanted = [
            (Rule::Unmarked(51820), 6),
            of_51820,
            (Rule::MainButDefault, 5),
            (Rule::MainButDefault, 32764),
        ];
        assert_eq!(rules_to_delete(&more, 51820), wanted);
        // With another tunnel, that one's rule stays.
        let two = [
            &[main(32762), rule(32763, 51821, Some(51821), None)],
            &one[..],
        ]
        .concat();
        let wanted = [of_51820, (Rule::MainButDefault, 32764)];
        assert_eq!(rules_to_delete(&two, 51820), wanted);
        let wanted = [
            (Rule::Unmarked(51821), 32763),
            (Rule::MainButDefault, 32762),
        ];
        assert_eq!(rules_to_delete(&two, 51821), wanted);
        // A mark of 254 does not cost the machine its main table.
        let main_mark = [main(1), rule(2, 254, Some(254), None), last];
        let wanted = [(Rule::Unmarked(254), 2), (Rule::MainButDefault, 1)];
        assert_eq!(rules_to_delete(&main_mark, 254), wanted);
    }
}
