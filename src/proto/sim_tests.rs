// SPDX-License-Identifier: GPL-2.0-only

//! Scenarios for two peers in virtual time: every timer and limit of the protocol, as an
//! outside observer would measure it. Times are in milliseconds. Peer 0 is the one that starts.

use super::messages::MessageType::{CookieReply, Initiation, Response};
use super::noise::Role;
use super::sim::{good_link, Link, Record, World};
use super::timers::{Event, Timer, TimerState};
use super::Rejection;

const SECOND: u64 = 1000;
/// Jitter stays below this.
const JITTER: u64 = 334;

fn world() -> World {
    World::new([0; 32])
}

/// A link that loses everything that peer `from` sends from `start` on.
fn one_way_from(lost: usize, start: u64) -> Link {
    Box::new(move |from, now, _| {
        if from == lost && now >= start {
            vec![]
        } else {
            vec![20]
        }
    })
}

fn is_initiation(bytes: &[u8]) -> bool {
    bytes[0] == 1
}

/// Asserts that each time is later than the expected one by at most the jitter.
#[track_caller]
fn assert_jittered(times: &[u64], expected: &[u64]) {
    assert_eq!(times.len(), expected.len(), "{times:?} for {expected:?}");
    for (time, expected) in times.iter().zip(expected) {
        assert!(
            (*expected..*expected + JITTER).contains(time),
            "{times:?} for {expected:?}"
        );
    }
}

#[test]
fn a_packet_makes_a_session_and_goes() {
    for psk in [[0; 32], [5; 32]] {
        let mut world = World::new(psk);
        world.send_at(0, 0, b"hello");
        world.send_at(1, 0, b"again");
        world.run_until(100);
        let [a, b] = &world.nodes;
        assert_eq!(a.sent(Initiation), [0]);
        assert_eq!(b.sent(Response), [20]);
        assert_eq!(b.received(), [b"hello", b"again"]);
        // The staged packet confirms the session: no keepalive is needed.
        assert!(a.keepalives().is_empty());
        assert!(b.keypairs.next.is_none() && b.keypairs.current.is_some());
    }
}

#[test]
fn the_responder_waits_for_confirmation() {
    let mut world = world();
    world.at(0, 0, |node, now| node.send_keepalive(now));
    // Its packet waits for the session and then for the keepalive that confirms it.
    world.send_at(25, 1, b"early");
    world.run_until(20);
    assert!(world.nodes[1].keypairs.current.is_none());
    assert!(world.nodes[1].keypairs.next.is_some());
    world.run_until(1000);
    let [a, b] = &world.nodes;
    assert_eq!(a.received(), [b"early"]);
    assert_eq!(b.times(|record| *record == Record::SentData(5)), [60]);
    assert!(b.sent(Initiation).is_empty());
}

#[test]
fn passive_keepalive_after_ten_seconds_and_no_ping_pong() {
    let mut world = world();
    world.send_at(0, 0, b"one way");
    world.run_until(119 * SECOND);
    let [a, b] = &world.nodes;
    assert_eq!(b.keepalives(), [60 + 10 * SECOND]);
    assert!(a.keepalives().is_empty());
    // It was received, so neither side starts a new handshake.
    assert_eq!(a.sent(Initiation), [0]);
    assert!(b.sent(Initiation).is_empty());
}

#[test]
fn an_answer_makes_the_keepalive_needless() {
    let mut world = world();
    world.send_at(0, 0, b"question");
    world.send_at(9 * SECOND, 1, b"answer");
    world.run_until(100 * SECOND);
    let [a, b] = &world.nodes;
    assert!(b.keepalives().is_empty());
    assert_eq!(a.keepalives(), [9 * SECOND + 20 + 10 * SECOND]);
}

#[test]
fn steady_one_way_traffic_gets_keepalives() {
    let mut world = world();
    for second in 0..=60 {
        world.send_at(second * SECOND, 0, b"stream");
    }
    world.run_until(60 * SECOND);
    let [a, b] = &world.nodes;
    // Ten seconds after the first packet received since the previous keepalive.
    let expected = [10_060, 21_020, 32_020, 43_020, 54_020];
    assert_eq!(b.keepalives(), expected);
    assert_eq!(a.sent(Initiation), [0]);
}

#[test]
fn silence_after_data_starts_a_handshake_at_fifteen_seconds() {
    let mut world = world();
    world.send_at(0, 0, b"hello");
    // From here on the other side is silent.
    world.link = one_way_from(1, 30 * SECOND);
    world.send_at(40 * SECOND, 0, b"anybody?");
    world.run_until(56 * SECOND);
    let a = &world.nodes[0];
    assert_jittered(&a.sent(Initiation), &[0, 55 * SECOND]);
    let cleared = a.times(|record| *record == Record::ClearedSource);
    assert_jittered(&cleared, &[55 * SECOND]);
}

#[test]
fn twenty_initiations_then_the_peer_is_given_up() {
    let mut world = world();
    world.link = one_way_from(0, 0);
    for _ in 0..3 {
        world.send_at(0, 0, b"into the void");
    }
    world.run_until(600 * SECOND);
    let a = &world.nodes[0];
    let tries = a.sent(Initiation);
    assert_eq!(tries.len(), 20);
    for pair in tries.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(
            (5 * SECOND..5 * SECOND + JITTER).contains(&gap),
            "{tries:?}"
        );
    }
    // Each with its own jitter.
    let gaps: std::collections::BTreeSet<u64> = tries.windows(2).map(|p| p[1] - p[0]).collect();
    assert!(gaps.len() > 10);
    assert_eq!(a.times(|record| *record == Record::ClearedSource).len(), 19);
    let purged = a.times(|record| *record == Record::Purged(3));
    assert_jittered(&purged, &[tries[19] + 5 * SECOND]);
    // The ephemeral keys of the last attempt are erased as session keys are.
    let zeroed = a.times(|record| *record == Record::Zeroed);
    assert!(zeroed.is_empty());
    world.run_until(700 * SECOND);
    let zeroed = world.nodes[0].times(|record| *record == Record::Zeroed);
    assert_eq!(zeroed, [purged[0] + 540 * SECOND]);
}

#[test]
fn after_giving_up_a_packet_starts_again() {
    let mut world = world();
    world.link = one_way_from(0, 0);
    world.send_at(0, 0, b"lost");
    world.run_until(150 * SECOND);
    assert_eq!(world.nodes[0].sent(Initiation).len(), 20);
    world.link = good_link();
    world.send_at(150 * SECOND, 0, b"found");
    world.run_until(151 * SECOND);
    assert_eq!(world.nodes[1].received(), [b"found"]);
    assert_eq!(world.nodes[0].timers.attempts(), 0);
}

#[test]
fn a_lost_response_costs_one_retry() {
    let mut world = world();
    let mut lost = 0;
    world.link = Box::new(move |from, _, bytes| {
        if from == 1 && bytes[0] == 2 && lost < 1 {
            lost += 1;
            return vec![];
        }
        vec![20]
    });
    world.send_at(0, 0, b"patience");
    world.run_until(6 * SECOND);
    let [a, b] = &world.nodes;
    assert_jittered(&a.sent(Initiation), &[0, 5 * SECOND]);
    assert_eq!(b.received(), [b"patience"]);
    // The session of the lost response was dropped.
    assert!(b.keypairs.next.is_none() && b.keypairs.previous.is_none());
}

#[test]
fn the_initiator_renews_when_it_sends_at_120_seconds() {
    let mut world = world();
    for tick in 0..2400 {
        world.send_at(tick * 100, 0, &tick.to_le_bytes());
        world.send_at(tick * 100 + 50, 1, &tick.to_le_bytes());
    }
    world.run_until(241 * SECOND);
    let [a, b] = &world.nodes;
    // The first session began at 40 ms, the second one 40 ms after its initiation.
    assert_eq!(a.sent(Initiation), [0, 120_100]);
    assert!(b.sent(Initiation).is_empty());
    // Nothing was lost on the way from one session to the next.
    assert_eq!(b.received().len(), 2400);
    assert_eq!(a.received().len(), 2400);
    assert_eq!(
        a.times(|r| matches!(r, Record::Session(Role::Initiator)))
            .len(),
        2
    );
    assert_eq!(
        b.times(|r| matches!(r, Record::Session(Role::Responder)))
            .len(),
        2
    );
    assert!(a.times(|r| matches!(r, Record::Dropped(_))).is_empty());
    assert!(b.times(|r| matches!(r, Record::Dropped(_))).is_empty());
}

#[test]
fn the_initiator_renews_when_it_receives_at_165_seconds_once() {
    let mut world = world();
    world.at(0, 0, |node, now| node.send_keepalive(now));
    for tick in 0..8 {
        world.send_at(164_000 + tick * 500, 1, b"late");
    }
    world.link = Box::new(|from, now, bytes| {
        // The rekey is not answered, so that a second attempt on receipt would be seen.
        if from == 0 && now > 1000 && is_initiation(bytes) {
            vec![]
        } else {
            vec![20]
        }
    });
    world.run_until(170 * SECOND);
    let a = &world.nodes[0];
    // The session starts at 40 ms; a packet that arrives at 165,020 ms is still too early.
    assert_eq!(a.sent(Initiation)[..2], [0, 165_520]);
    assert_eq!(a.sent(Initiation).len(), 2);
    assert!(world.nodes[1].sent(Initiation).is_empty());
}

#[test]
fn the_responder_does_not_renew_by_age_alone() {
    let mut world = world();
    world.at(0, 0, |node, now| node.send_keepalive(now));
    // The initiator says nothing more, and the responder only sends.
    world.link = Box::new(|from, now, _| {
        if from == 0 && now > 1000 {
            vec![]
        } else {
            vec![20]
        }
    });
    world.send_at(119 * SECOND, 1, b"x");
    world.send_at(125 * SECOND, 1, b"x");
    world.run_until(133 * SECOND);
    assert!(world.nodes[1].sent(Initiation).is_empty());
    // It starts one because of its own silence timer, not because of the session's age.
    world.run_until(135 * SECOND);
    assert_jittered(&world.nodes[1].sent(Initiation), &[134 * SECOND]);
}

#[test]
fn a_session_dies_at_180_seconds() {
    // A packet can be sent only until the session is 180 s old.
    for (time, arrives) in [(179_900, true), (180_100, false)] {
        let mut world = world();
        world.at(0, 0, |node, now| node.send_keepalive(now));
        world.run_until(100);
        world.link = Box::new(|_, now, bytes| {
            if now > 1000 && is_initiation(bytes) {
                vec![]
            } else {
                vec![20]
            }
        });
        world.send_at(time, 1, b"x");
        world.run_until(time + 1000);
        let [a, b] = &world.nodes;
        assert_eq!(!a.received().is_empty(), arrives);
        assert_eq!(
            b.times(|record| *record == Record::SentData(1)).len(),
            usize::from(arrives)
        );
        assert_eq!(b.sent(Initiation).is_empty(), arrives);
    }
    // A packet that arrives later than that is refused, even if it was sent in time.
    let mut world = world();
    world.at(0, 0, |node, now| node.send_keepalive(now));
    world.run_until(100);
    world.link = Box::new(|_, _, _| vec![200]);
    world.send_at(179_900, 1, b"x");
    world.run_until(181 * SECOND);
    assert_eq!(world.nodes[0].dropped(Rejection::KeyExpired), 1);
    assert!(world.nodes[0].received().is_empty());
}

#[test]
fn keys_are_erased_540_seconds_after_the_last_session() {
    let mut world = world();
    world.send_at(0, 0, b"x");
    world.send_at(130 * SECOND, 0, b"y");
    world.run_until(2000 * SECOND);
    for (node, session) in [(0, 130_040), (1, 130_020)] {
        let node = &world.nodes[node];
        let zeroed = node.times(|record| *record == Record::Zeroed);
        assert_eq!(zeroed, [session + 540 * SECOND]);
        assert!(node.keypairs.current.is_none() && node.keypairs.previous.is_none());
    }
    // A packet after that makes a new session.
    world.send_at(2001 * SECOND, 1, b"z");
    world.run_until(2002 * SECOND);
    assert_eq!(world.nodes[0].received().last().unwrap(), b"z");
}

#[test]
fn persistent_keepalive_goes_on_and_packets_push_it_back() {
    let mut world = world();
    world.at(0, 0, |node, now| {
        assert!(node.timers.set_persistent_keepalive_interval(25));
        assert!(!node.timers.set_persistent_keepalive_interval(25));
        node.send_keepalive(now);
    });
    world.send_at(60 * SECOND, 0, b"push");
    world.run_until(110 * SECOND);
    let [a, b] = &world.nodes;
    // Sent at once, then 25 s after the last packet in either direction: the passive keepalive
    // with which the peer answers the data at 60 s counts, too.
    let answered = 60_020 + 10 * SECOND + 20;
    assert_eq!(a.keepalives(), [40, 25_040, 50_040, answered + 25 * SECOND]);
    assert_eq!(b.keepalives(), [60_020 + 10 * SECOND]);
    // Turned off, it stops.
    world.at(111 * SECOND, 0, |node, _| {
        assert!(!node.timers.set_persistent_keepalive_interval(0));
    });
    world.run_until(400 * SECOND);
    assert_eq!(world.nodes[0].keepalives().len(), 4);
}

#[test]
fn a_shorter_interval_counts_from_the_next_packet() {
    let mut world = world();
    world.at(0, 0, |node, now| {
        node.timers.set_persistent_keepalive_interval(100);
        node.send_keepalive(now);
    });
    world.at(1000, 0, |node, _| {
        assert!(!node.timers.set_persistent_keepalive_interval(5));
    });
    world.at(2000, 0, |node, now| node.send_keepalive(now));
    world.run_until(18 * SECOND);
    assert_eq!(
        world.nodes[0].keepalives(),
        [40, 2000, 7000, 12_000, 17_000]
    );
}

#[test]
fn persistent_keepalive_keeps_trying_a_dead_peer() {
    let mut world = world();
    world.link = one_way_from(0, 0);
    world.at(0, 0, |node, now| {
        node.timers.set_persistent_keepalive_interval(25);
        node.send_keepalive(now);
    });
    world.run_until(1000 * SECOND);
    let tries = world.nodes[0].sent(Initiation);
    assert!(tries.len() > 60, "{}", tries.len());
    for pair in tries.windows(2) {
        assert!(pair[1] - pair[0] >= 5 * SECOND);
        assert!(pair[1] - pair[0] <= 26 * SECOND);
    }
}

#[test]
fn at_most_one_initiation_in_five_seconds() {
    let mut world = world();
    world.link = one_way_from(0, 0);
    for tick in 0..500 {
        world.send_at(tick * 97, 0, b"impatient");
    }
    world.run_until(60 * SECOND);
    let tries = world.nodes[0].sent(Initiation);
    for pair in tries.windows(2) {
        assert!(pair[1] - pair[0] >= 5 * SECOND, "{tries:?}");
    }
}

#[test]
fn simultaneous_initiations_end_in_one_session() {
    let mut world = world();
    world.send_at(0, 0, b"from a");
    world.send_at(0, 1, b"from b");
    world.run_until(30 * SECOND);
    let [a, b] = &world.nodes;
    // Each accepted the other's initiation, which replaced its own: neither response matches, and
    // neither session is confirmed.
    assert_eq!(a.sent(Response)[0], 20);
    assert_eq!(b.sent(Response)[0], 20);
    assert_eq!(a.dropped(Rejection::UnknownIndex), 1);
    assert_eq!(b.dropped(Rejection::UnknownIndex), 1);
    // Jitter makes one of them the first to retry, and then both packets get through.
    assert_eq!(a.received(), [b"from b"]);
    assert_eq!(b.received(), [b"from a"]);
    for node in [a, b] {
        assert_eq!(node.sent(Initiation).len() + node.sent(Response).len(), 3);
        assert!(node.keypairs.current.is_some() && node.keypairs.next.is_none());
    }
}

/// A response sent after our own initiation suppresses the retry and ends the attempts.
#[test]
fn a_retry_that_is_held_back_is_void() {
    let timers = TimerState::new();
    let ms = |ms: u64| (1_000_000 + ms) * 1_000_000;
    let no_jitter = |_| 0;
    assert!(timers.claim_initiation(ms(0)));
    let _ = timers.note(Event::InitiationSent, ms(0), no_jitter);
    let _ = timers.note(Event::ResponseSent, ms(3000), no_jitter);
    let actions = timers.expired(Timer::RetransmitHandshake, ms(5000));
    assert!(actions.send_initiation() && actions.clear_source());
    assert_eq!(actions.arm.iter().count(), 0);
    assert!(!timers.claim_initiation(ms(5000)));
    assert_eq!(timers.attempts(), 1);
    // No timer fires any more until there is something to send.
    assert!(timers.request_initiation(ms(8000)));
    assert_eq!(timers.attempts(), 0);
}

#[test]
fn under_load_a_cookie_is_fetched_and_used() {
    let mut world = world();
    world.nodes[1].under_load = true;
    world.send_at(0, 0, b"dear");
    world.run_until(7 * SECOND);
    let [a, b] = &world.nodes;
    assert_jittered(&a.sent(Initiation), &[0, 5 * SECOND]);
    assert_eq!(b.sent(CookieReply), [20]);
    assert_eq!(b.dropped(Rejection::CookieRequired), 1);
    assert_eq!(b.received(), [b"dear"]);

    // Both under load: the response needs a cookie, too. Its loss causes a retry.
    let mut world = self::world();
    world.nodes[0].under_load = true;
    world.nodes[1].under_load = true;
    world.send_at(0, 0, b"dearer");
    world.run_until(12 * SECOND);
    let [a, b] = &world.nodes;
    assert_eq!(a.sent(Initiation).len(), 3);
    assert_eq!(a.sent(CookieReply).len(), 1);
    assert_eq!(b.received(), [b"dearer"]);

    // A cookie is valid for 115 s, and the secret behind it for 120 s.
    let mut world = self::world();
    world.nodes[1].under_load = true;
    world.send_at(0, 0, b"1");
    world.send_at(126 * SECOND, 0, b"2");
    world.run_until(140 * SECOND);
    let b = &world.nodes[1];
    assert_eq!(b.sent(CookieReply).len(), 2);
    assert_eq!(b.received(), [b"1", b"2"]);
}

#[test]
fn duplicates_and_replays_do_nothing() {
    let mut world = world();
    world.link = Box::new(|_, _, _| vec![20, 21, 500]);
    for tick in 0..50 {
        world.send_at(tick * 100, 0, &[tick as u8]);
    }
    world.run_until(10 * SECOND);
    let [a, b] = &world.nodes;
    let expected: Vec<Vec<u8>> = (0..50).map(|tick| vec![tick]).collect();
    assert_eq!(b.received(), expected);
    assert_eq!(a.sent(Initiation), [0]);
    assert_eq!(b.sent(Response), [20]);
    assert_eq!(b.dropped(Rejection::ReplayedInitiation), 2);
    assert_eq!(b.dropped(Rejection::ReplayedData), 100);
}

#[test]
fn loss_and_reordering_lose_nothing_else() {
    let mut world = world();
    let mut state = 12345u64;
    world.link = Box::new(move |_, _, _| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        match (state >> 33) % 10 {
            0 | 1 => vec![],
            n => vec![5 + n * 37],
        }
    });
    for tick in 0..4000u32 {
        world.send_at(u64::from(tick) * 100, 0, &tick.to_le_bytes());
        world.send_at(u64::from(tick) * 100 + 31, 1, &tick.to_le_bytes());
    }
    world.run_until(410 * SECOND);
    for node in &world.nodes {
        let mut received = node.received();
        let count = received.len();
        received.sort_unstable();
        received.dedup();
        assert_eq!(received.len(), count, "duplicate delivery");
        // A fifth is lost on the link; lost handshake messages cost some more.
        assert!(count > 2600, "{count}");
        assert_eq!(node.dropped(Rejection::InvalidData), 0);
        assert_eq!(node.dropped(Rejection::ReplayedData), 0);
    }
}

#[test]
fn hours_of_two_way_traffic() {
    let mut world = world();
    let hours = 4 * 3600;
    for second in (0..hours).step_by(5) {
        world.send_at(second * SECOND, 0, &second.to_le_bytes());
        world.send_at(second * SECOND + 2500, 1, &second.to_le_bytes());
    }
    world.run_until((hours + 60) * SECOND);
    let packets = hours as usize / 5;
    for node in &world.nodes {
        assert_eq!(node.received().len(), packets);
        assert!(node.times(|r| matches!(r, Record::Dropped(_))).is_empty());
        assert!(node.times(|r| matches!(r, Record::Zeroed)).is_empty());
        // Timers are armed far less often than once per packet.
        assert!(node.armings < packets, "{} for {packets}", node.armings);
    }
    let renewals = world.nodes[0].sent(Initiation).len() as u64;
    assert_eq!(renewals, hours / 125 + 1);
}

#[test]
fn a_clock_set_back_refuses_only_its_own_initiations() {
    let mut world = world();
    world.send_at(0, 0, b"1");
    world.at(60 * SECOND, 0, |node, _| node.clock_skew = -3600);
    world.send_at(61 * SECOND, 0, b"2");
    world.send_at(130 * SECOND, 0, b"3");
    world.run_until(132 * SECOND);
    assert_eq!(world.nodes[1].received(), [b"1", b"2", b"3"]);
    assert_eq!(world.nodes[1].dropped(Rejection::ReplayedInitiation), 1);
    // The other side can still start one, and does when it has something to send.
    world.send_at(300 * SECOND, 1, b"4");
    world.run_until(301 * SECOND);
    assert_eq!(world.nodes[0].received(), [b"4"]);
}

#[test]
fn down_and_up() {
    let mut world = world();
    world.at(0, 0, |node, now| {
        node.timers.set_persistent_keepalive_interval(30);
        node.send_keepalive(now);
    });
    world.send_at(100, 0, b"1");
    world.set_up_at(2000, 0, false);
    world.run_until(100 * SECOND);
    let quiet = world.nodes[0].log.len();
    assert_eq!(world.nodes[0].keepalives(), [40]);
    world.run_until(190 * SECOND);
    assert_eq!(world.nodes[0].log.len(), quiet);
    // Up again: the persistent keepalive is sent at once, and all timers work as before.
    world.set_up_at(200 * SECOND, 0, true);
    world.run_until(231 * SECOND);
    let a = &world.nodes[0];
    assert_eq!(a.sent(Initiation), [0, 200 * SECOND]);
    assert_eq!(a.keepalives(), [40, 200_040, 230_040]);
}

#[test]
fn silence_timer_is_put_off_by_any_answer() {
    let mut world = world();
    for tick in 0..10 {
        world.send_at(tick * 10_000, 0, b"ping");
        world.send_at(tick * 10_000 + 5000, 1, b"pong");
    }
    world.run_until(115 * SECOND);
    assert_eq!(world.nodes[0].sent(Initiation), [0]);
    assert!(world.nodes[1].sent(Initiation).is_empty());
}

/// The deadlines in isolation: the simulator never loses a timer and cannot test these cases.
#[test]
fn deadlines_and_wake_ups() {
    let timers = TimerState::new();
    let ms = |ms: u64| (1_000_000 + ms) * 1_000_000;
    let arms = |event, now| -> Vec<_> { timers.note(event, now, |max| max).iter().collect() };
    // The first packet arms, the second finds it armed, an answer clears the deadline only.
    assert_eq!(
        arms(Event::DataReceived, ms(0)),
        [(Timer::SendKeepalive, 10_000)]
    );
    assert_eq!(arms(Event::DataReceived, ms(10)), []);
    assert!(timers.note(Event::Sending, ms(20), |max| max).is_empty());
    // Set again, it relies on the pending wake-up, which then re-arms for the remaining time.
    assert_eq!(arms(Event::DataReceived, ms(4000)), []);
    let actions = timers.expired(Timer::SendKeepalive, ms(10_000));
    assert!(!actions.send_keepalive());
    assert_eq!(
        actions.arm.iter().collect::<Vec<_>>(),
        [(Timer::SendKeepalive, 4000)]
    );
    // Data arrived twice: another keepalive would be due if this one did not answer both.
    let actions = timers.expired(Timer::SendKeepalive, ms(14_000));
    assert!(actions.send_keepalive());
    assert_eq!(
        actions.arm.iter().collect::<Vec<_>>(),
        [(Timer::SendKeepalive, 10_000)]
    );
    assert!(timers
        .note(Event::Sending, ms(14_000), |max| max)
        .is_empty());
    // A wake-up that finds nothing due does nothing.
    assert!(timers.expired(Timer::SendKeepalive, ms(15_000)).is_empty());

    // A timer that the driver lost is armed again eventually.
    assert_eq!(
        arms(Event::DataReceived, ms(20_000)),
        [(Timer::SendKeepalive, 10_000)]
    );
    let _ = timers.note(Event::Sending, ms(20_001), |max| max);
    assert_eq!(
        arms(Event::DataReceived, ms(60_000)),
        [(Timer::SendKeepalive, 10_000)]
    );

    // Jitter is bounded whatever the random source returns, and fractions of a ms round up.
    let arm = timers.note(Event::InitiationSent, ms(0) + 1, |_| u32::MAX);
    assert_eq!(
        arm.iter().collect::<Vec<_>>(),
        [(Timer::RetransmitHandshake, 5333)]
    );

    // Rate limit of initiations.
    let timers = TimerState::new();
    assert!(timers.claim_initiation(ms(0)));
    assert!(!timers.claim_initiation(ms(4999)));
    assert!(!timers.request_initiation(ms(4999)));
    assert!(timers.may_initiate(ms(5000)));
    timers.note_handshake_sent(ms(5000));
    assert!(!timers.claim_initiation(ms(9999)));
    timers.forget_handshake_sent();
    assert!(timers.claim_initiation(ms(9999)));
}
