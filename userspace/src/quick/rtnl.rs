// SPDX-License-Identifier: GPL-2.0-only
//! What is asked of rtnetlink: links, addresses, routes and rules as they are.

use super::step::{request, Family, TABLE_MAIN};
use crate::model::AllowedIp;
use crate::netlink::{
    attribute, attribute_u32, attributes, read_link, Error, Link, Request, Socket,
};
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc::{self, IFA_ADDRESS, IFA_LOCAL, RTA_DST, RTA_METRICS, RTA_OIF, RTA_TABLE};
use std::net::IpAddr;

// Lengths of the headers in front of the attributes.
const ADDRESS: usize = 8;
const ROUTE: usize = 12;
const RULE: usize = 12;

// The attributes read here that libc has no names of.
const RTAX_MTU: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FIB_RULE_INVERT: u32 = 2;

/// Where a route leads, as far as its MTU goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Way {
    /// The route's own MTU, or that found out on the way.
    pub mtu: Option<u32>,
    /// The interface.
    pub link: Option<u32>,
}

/// A policy rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    pub priority: u32,
    pub table: u32,
    pub mark: Option<u32>,
    pub inverted: bool,
    pub suppressed: Option<u32>,
    /// Nothing but the table, the mark and what is suppressed make it up.
    pub plain: bool,
}

/// rtnetlink.
pub struct Rtnl(Socket);

impl Rtnl {
    pub fn open() -> Result<Self, Error> {
        Ok(Rtnl(Socket::open(NETLINK_ROUTE)?.strict()))
    }

    /// Does a step.
    pub fn call(&mut self, request: &Request) -> Result<(), Error> {
        self.0.call(request).map(|_| ())
    }

    /// The interface of that name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.get_link(message)
    }

    /// The MTU of an interface.
    pub fn link_mtu(&mut self, index: u32) -> Result<Option<u32>, Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        Ok(self.get_link(message)?.map(|link| link.mtu))
    }

    fn get_link(&mut self, message: LinkMessage) -> Result<Option<Link>, Error> {
        match self
            .0
            .call(&request(&RouteNetlinkMessage::GetLink(message), 0))
        {
            Ok(replies) => Ok(replies.iter().find_map(|reply| read_link(reply))),
            Err(err) if err.errno == libc::ENODEV => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// The addresses of an interface with the lengths of their prefixes, IPv4 first.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<(IpAddr, u8)>, Error> {
        let mut found = Vec::new();
        for family in Family::BOTH {
            let mut message = AddressMessage::default();
            message.header.family = family.number();
            let replies = self.dump(&RouteNetlinkMessage::GetAddress(message))?;
            found.extend(
                replies
                    .iter()
                    .filter_map(|reply| address(reply, family, index)),
            );
        }
        Ok(found)
    }

    /// The routes of the main table through an interface.
    pub fn routes_through(&mut self, index: u32, family: Family) -> Result<Vec<AllowedIp>, Error> {
        let replies = self.routes(family, TABLE_MAIN)?;
        Ok(replies
            .iter()
            .filter(|reply| {
                let attributes = reply.get(ROUTE..).unwrap_or(&[]);
                attribute_u32(attributes, RTA_OIF) == Some(index)
            })
            .filter_map(|reply| destination(reply, family))
            .collect())
    }

    /// Nothing is in that table.
    pub fn table_is_empty(&mut self, table: u32) -> Result<bool, Error> {
        for family in Family::BOTH {
            if !self.routes(family, table)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first default route of IPv4.
    pub fn default_route(&mut self) -> Result<Option<Way>, Error> {
        let replies = self.routes(Family::V4, TABLE_MAIN)?;
        Ok(replies
            .iter()
            .find(|reply| destination(reply, Family::V4).is_some_and(|to| to.cidr == 0))
            .map(|reply| way(reply)))
    }

    /// The route a packet to `address` takes; none, if it takes none.
    pub fn route_to(&mut self, address: IpAddr) -> Option<Way> {
        let mut message = RouteMessage::default();
        message.header.address_family = Family::of(address).number();
        message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
        message
            .attributes
            .push(RouteAttribute::Destination(address.into()));
        let replies = self
            .0
            .call(&request(&RouteNetlinkMessage::GetRoute(message), 0))
            .ok()?;
        replies.first().map(|reply| way(reply))
    }

    /// The policy rules, in the order in which they are asked.
    pub fn rules(&mut self, family: Family) -> Result<Vec<PolicyRule>, Error> {
        let mut message = RuleMessage::default();
        message.header.family = family.number();
        let replies = self.dump(&RouteNetlinkMessage::GetRule(message))?;
        Ok(replies
            .iter()
            .filter(|reply| of_family(reply, family))
            .filter_map(|reply| rule(reply))
            .collect())
    }

    fn routes(&mut self, family: Family, table: u32) -> Result<Vec<Vec<u8>>, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family.number();
        message.attributes.push(RouteAttribute::Table(table));
        let mut replies = self.dump(&RouteNetlinkMessage::GetRoute(message))?;
        // Of all tables and families, if the kernel is too old to choose.
        replies.retain(|reply| of_family(reply, family) && route_table(reply) == Some(table));
        Ok(replies)
    }

    /// All of a kind. What the kernel was built without, or has no table of, there is none of.
    fn dump(&mut self, message: &RouteNetlinkMessage) -> Result<Vec<Vec<u8>>, Error> {
        match self.0.call(&request(message, NLM_F_DUMP)) {
            Err(err) if is_nothing(err.errno) => Ok(Vec::new()),
            other => other,
        }
    }
}

fn is_nothing(errno: i32) -> bool {
    [libc::ENOENT, libc::EAFNOSUPPORT, libc::EOPNOTSUPP].contains(&errno)
}

fn of_family(payload: &[u8], family: Family) -> bool {
    payload.first() == Some(&u8::from(family.number()))
}

fn ip(bytes: &[u8], family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        Family::V6 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
    }
}

fn address(payload: &[u8], family: Family, index: u32) -> Option<(IpAddr, u8)> {
    let of = u32::from_ne_bytes(*payload.get(4..8)?.first_chunk()?);
    if of != index || !of_family(payload, family) {
        return None;
    }
    let attributes = payload.get(ADDRESS..)?;
    // The peer's is IFA_ADDRESS on a point-to-point link; IPv6 often has no IFA_LOCAL.
    let bytes = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
    Some((ip(bytes, family)?, *payload.get(1)?))
}

fn destination(payload: &[u8], family: Family) -> Option<AllowedIp> {
    let addr = match attribute(payload.get(ROUTE..)?, RTA_DST) {
        Some(bytes) => ip(bytes, family)?,
        None => ip(&[0; 16], family)?,
    };
    Some(AllowedIp {
        addr,
        cidr: *payload.get(1)?,
    })
}

fn route_table(payload: &[u8]) -> Option<u32> {
    let header = payload.get(4).copied().map(u32::from);
    attribute_u32(payload.get(ROUTE..)?, RTA_TABLE).or(header)
}

fn way(payload: &[u8]) -> Way {
    let attributes = payload.get(ROUTE..).unwrap_or(&[]);
    Way {
        mtu: attribute(attributes, RTA_METRICS)
            .and_then(|metrics| attribute_u32(metrics, RTAX_MTU)),
        link: attribute_u32(attributes, RTA_OIF),
    }
}

fn rule(payload: &[u8]) -> Option<PolicyRule> {
    let header = payload.get(..RULE)?;
    let rest = payload.get(RULE..)?;
    let flags = u32::from_ne_bytes(*header.get(8..12)?.first_chunk()?);
    let known = [
        FRA_PRIORITY,
        FRA_FWMARK,
        FRA_SUPPRESS_PREFIXLEN,
        FRA_TABLE,
        FRA_FWMASK,
        FRA_PROTOCOL,
    ];
    Some(PolicyRule {
        priority: attribute_u32(rest, FRA_PRIORITY).unwrap_or(0),
        table: attribute_u32(rest, FRA_TABLE).unwrap_or_else(|| u32::from(header[4])),
        mark: attribute_u32(rest, FRA_FWMARK),
        inverted: flags & FIB_RULE_INVERT != 0,
        // All ones: nothing is suppressed.
        suppressed: attribute_u32(rest, FRA_SUPPRESS_PREFIXLEN).filter(|len| *len != u32::MAX),
        // Lengths of source and destination, TOS.
        plain: header[1..4] == [0; 3] && attributes(rest).all(|(kind, _)| known.contains(&kind)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::step::{Command, Rule, Step};
    use super::*;
    use netlink_packet_route::route::RouteMetric;

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        request(&message, 0).payload
    }

    #[test]
    fn routes() {
        let mut message = RouteMessage::default();
        message.header.address_family = Family::V4.number();
        message.header.destination_prefix_length = 8;
        message.header.table = 254;
        message.attributes = vec![
            RouteAttribute::Destination(IpAddr::from([10, 0, 0, 0]).into()),
            RouteAttribute::Oif(3),
            RouteAttribute::Metrics(vec![RouteMetric::Advmss(9), RouteMetric::Mtu(1300)]),
        ];
        let payload = bytes(RouteNetlinkMessage::NewRoute(message.clone()));
        assert_eq!(route_table(&payload), Some(254));
        assert_eq!(
            destination(&payload, Family::V4).unwrap().to_string(),
            "10.0.0.0/8"
        );
        let wanted = Way {
            mtu: Some(1300),
            link: Some(3),
        };
        assert_eq!(way(&payload), wanted);

        message.header.destination_prefix_length = 0;
        message.attributes = vec![RouteAttribute::Table(51820)];
        let payload = bytes(RouteNetlinkMessage::NewRoute(message));
        assert_eq!(route_table(&payload), Some(51820));
        assert_eq!(
            destination(&payload, Family::V4).unwrap().to_string(),
            "0.0.0.0/0"
        );
        assert_eq!(way(&payload), Way::default());
        assert_eq!(way(&[]), Way::default());
    }

    #[test]
    fn rules() {
        let step = |rule| {
            let step = Step::RuleAdd(Family::V6, rule);
            Command { step, name: "wg0" }.request(0).payload
        };
        let unmarked = rule(&step(Rule::Unmarked(51820))).unwrap();
        let wanted = PolicyRule {
            priority: 0,
            table: 51820,
            mark: Some(51820),
            inverted: true,
            suppressed: None,
            plain: true,
        };
        assert_eq!(unmarked, wanted);
        let main = rule(&step(Rule::MainButDefault)).unwrap();
        let wanted = PolicyRule {
            priority: 0,
            table: 254,
            mark: None,
            inverted: false,
            suppressed: Some(0),
            plain: true,
        };
        assert_eq!(main, wanted);
    }
}
