// SPDX-License-Identifier: GPL-2.0-only
//! The page and the picture.

use super::data::{Curve, Data};
use super::svg::{bars, bars_height, curves, escaped, grouped, picture as drawn, Bar, Line};
use std::fmt::Write;

/// The contenders: their key, their name, and how they are coloured.
const CONTENDERS: [(&str, &str, &str); 8] = [
    ("rs", "wireguard_rs", "ours"),
    ("c", "in-tree WireGuard", "tree"),
    ("esp-gcm", "IPsec, AES-GCM", "other"),
    ("esp", "IPsec, ChaCha20", "other"),
    ("gotatun", "gotatun", "other"),
    ("boringtun", "boringtun", "other"),
    ("go", "wireguard-go", "other"),
    ("openvpn", "OpenVPN", "other"),
];

/// What is shown as bars: the metric, the title, whether it is in the picture for the README.
const BARS: [(&str, &str, bool); 6] = [
    ("tcp_mbit", "TCP, one flow, Mbit/s", true),
    ("tcp_8_flows_mbit", "TCP, eight flows, Mbit/s", false),
    (
        "forwarded_mbit",
        "TCP, forwarded by both ends, Mbit/s",
        false,
    ),
    (
        "pps_delivered",
        "UDP datagrams of 64 bytes, delivered per second",
        true,
    ),
    (
        "quic_mbit",
        "UDP, 1,350 bytes, several per call, Mbit/s",
        false,
    ),
    (
        "rtt_us_median",
        "Round trip of a ping, µs (less is better)",
        true,
    ),
];

/// What is shown against the number of peers.
const PEERS: [(&str, &str); 8] = [
    ("create_ms", "Create the peers, ms"),
    ("dump_ms", "Dump all, ms"),
    (
        "counters_ms",
        "Dump the counters, ms (the in-tree driver cannot)",
    ),
    (
        "changed_ms",
        "Dump what has changed, one peer, ms (the in-tree driver cannot)",
    ),
    ("change_ms", "Change one peer, ms"),
    ("remove_ms", "Remove all, ms"),
    ("delete_ms", "Delete the link, ms"),
    ("memory_bytes", "Memory per peer, bytes"),
];

/// Metrics and their titles.
type Titled = &'static [(&'static str, &'static str)];

/// The curves: a heading, against what, how that is called, what.
const CURVES: [(&str, &str, &str, Titled); 3] = [
    (
        "More flows",
        "flows",
        "flows",
        &[("tcp_mbit", "TCP, Mbit/s")],
    ),
    (
        "Larger packets",
        "bytes",
        "bytes of payload",
        &[("udp_mbit", "UDP, one datagram per call, Mbit/s")],
    ),
    ("More peers on one device", "peers", "peers", &PEERS),
];

/// A bar for each contender, beside it how it compares with the in-tree driver.
fn bars_of(data: &Data, metric: &str) -> Vec<Bar> {
    let c = data.figure(metric, "c").map(|figure| figure.median);
    let bar = |(key, label, class): &(&str, &'static str, &'static str)| {
        let figure = data.figure(metric, key)?;
        let note = match c {
            Some(c) if *key != "c" && c > 0.0 => format!("{:.2} × in-tree", figure.median / c),
            _ => String::new(),
        };
        Some(Bar {
            label,
            class,
            value: figure.median,
            note,
        })
    };
    CONTENDERS.iter().filter_map(bar).collect()
}

/// The title of bars, with what the link between the two ends does without a tunnel.
fn titled(data: &Data, metric: &str, title: &str) -> String {
    match data.figure(metric, "veth") {
        Some(bare) => format!("{title}; bare link: {}", grouped(bare.median)),
        None => title.to_owned(),
    }
}

/// The picture for the README.
pub fn picture(data: &Data) -> String {
    let (mut content, mut top) = (String::new(), 0.0);
    for (metric, title, shown) in BARS {
        let list = bars_of(data, metric);
        if shown && !list.is_empty() {
            content += &bars(&titled(data, metric, title), &list, top);
            top += bars_height(list.len());
        }
    }
    drawn(top, &content)
}

/// The page: it needs no other file.
pub fn page(data: &Data) -> String {
    let mut out = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>wireguard_rs: measured</title>\n<style>\n\
         :root{color-scheme:light dark}\n\
         body{max-width:46rem;margin:2rem auto;padding:0 1rem;font:16px/1.5 system-ui,sans-serif}\n\
         svg{max-width:100%;height:auto;margin:.5rem 0;break-inside:avoid}\n\
         table{border-collapse:collapse;font-size:12px}.wide{overflow-x:auto}\n\
         td,th{padding:.15rem .4rem;text-align:right;border-bottom:1px solid #8884}\n\
         td:first-child,th:first-child{text-align:left}\n\
         dt{font-weight:600}dd{margin:0 0 .3rem}\n</style>\n<h1>wireguard_rs: measured</h1>\n\
         <p>Medians. All contenders are set up side by side in one guest, and take turns.</p>\n",
    );
    for (metric, title, _) in BARS {
        let list = bars_of(data, metric);
        if !list.is_empty() {
            let title = titled(data, metric, title);
            out += &drawn(bars_height(list.len()), &bars(&title, &list, 0.0));
        }
    }
    out += &table(data);
    if !data.scale.is_empty() {
        out += "<h2>More processors</h2>\n";
        out += &scale(data);
    }
    for (heading, axis, across, metrics) in CURVES {
        let drawn: String = metrics
            .iter()
            .map(|(metric, title)| {
                let of = |who| data.curve(axis, metric, who);
                two_curves(title, across, of("c"), of("rs"))
            })
            .collect();
        if !drawn.is_empty() {
            let _ = write!(out, "<h2>{heading}</h2>\n{drawn}");
        }
    }
    out += "<h2>Where this was measured</h2>\n";
    for facts in &data.facts {
        out += "<dl>";
        for (key, text) in facts {
            let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escaped(key), escaped(text));
        }
        out += "</dl>\n";
    }
    out + "</html>\n"
}

fn two_curves(title: &str, across: &str, c: Option<&Curve>, rs: Option<&Curve>) -> String {
    let line = |points, label, class| Line {
        label,
        class,
        points,
    };
    let lines: Vec<Line<'_>> = [
        c.map(|points| line(points, "in-tree", "tree")),
        rs.map(|points| line(points, "wireguard_rs", "ours")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if lines.is_empty() {
        return String::new();
    }
    curves(title, across, &lines)
}

fn scale(data: &Data) -> String {
    let mut out = String::new();
    for (metric, title) in [
        ("tcp_mbit", "TCP, Mbit/s"),
        (
            "pps_delivered",
            "UDP datagrams of 64 bytes, delivered per second",
        ),
        ("hs_handled", "Initiations handled per second"),
    ] {
        let mut flows: Vec<u32> = data
            .scale
            .keys()
            .filter(|k| k.0 == metric)
            .map(|k| k.1)
            .collect();
        flows.sort_unstable();
        flows.dedup();
        for flows in flows {
            let of = |who: &str| data.scale.get(&(metric.to_owned(), flows, who.to_owned()));
            let title = format!("{title}, peers: {flows}");
            out += &two_curves(&title, "processors", of("c"), of("rs"));
        }
    }
    out
}

/// All bars as a table, with their spread.
fn table(data: &Data) -> String {
    let mut out = String::from("<div class=\"wide\"><table>\n<tr><th></th>");
    let shown: Vec<_> = CONTENDERS
        .iter()
        .filter(|(key, ..)| data.bars.keys().any(|(_, who)| who == key))
        .collect();
    for (_, label, _) in &shown {
        let _ = write!(out, "<th>{}</th>", escaped(label));
    }
    let measured = |metric: &str| {
        shown
            .iter()
            .any(|(key, ..)| data.figure(metric, key).is_some())
    };
    for (metric, title, _) in BARS.into_iter().filter(|(metric, ..)| measured(metric)) {
        let _ = write!(out, "</tr>\n<tr><td>{}</td>", escaped(title));
        for (key, ..) in &shown {
            let cell = data.figure(metric, key).map_or("–".to_owned(), |figure| {
                let spread = (figure.max - figure.min) / figure.median.max(1e-9);
                format!("{:.0} ±{:.0} %", figure.median, spread * 50.0)
            });
            let _ = write!(out, "<td>{cell}</td>");
        }
    }
    out + "</tr>\n</table></div>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_on_the_page() {
        let mut data = Data::default();
        for (who, median) in [("veth", 9.0), ("rs", 6.0), ("c", 4.0)] {
            data.read(&format!(
                "{{\"type\":\"summary\",\"impl\":\"{who}\",\"metric\":\"tcp_mbit\",\
                 \"median\":{median},\"min\":{median},\"max\":{median}}}\n\
                 {{\"type\":\"sample\",\"peers\":100,\"impl\":\"{who}\",\"metric\":\"dump_ms\",\
                 \"value\":1}}\n"
            ));
        }
        let picture = picture(&data);
        assert!(picture.contains("1.50 × in-tree") && picture.contains("bare link: 9"));
        assert!(!picture.contains("ping"), "nothing was measured of it");
        let page = page(&data);
        assert!(
            page.contains("Dump all") && page.contains("<td>6 ±0 %</td>"),
            "{page}"
        );
    }
}
