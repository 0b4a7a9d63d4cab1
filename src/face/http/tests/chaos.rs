//! Any bytes, in any order of events: no panic, bounded memory, and never two sends at once.

use proptest::prelude::*;

use super::*;
use crate::face::http::input::PENDING_BODY;

/// A request whose body nobody asked for, of unknown length.
const UNWANTED: &str = "GET /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";

#[derive(Clone, Debug)]
enum Step {
    Receive(Vec<u8>),
    Pump,
    Poll,
    Sent(usize),
    Blocked,
    Writable,
    Pass(u64),
    Publish,
    Refuse,
    HeadOk,
}

/// Pieces of requests, so that chance gets far.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known = proptest::sample::select(vec![
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "HEAD /live/a.ts?wait=1 HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /live/a.ts HTTP/1.1\r\nHost: h\r\n\r\n",
        "PUT /live/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        "PUT /live/a?key=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n",
        "PUT /live/a HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\nHost: h\r\n\r\n",
        "POST /live/a HTTP/1.0\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\n",
        UNWANTED,
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "GET ",
        "/live/%2e%zz?start=-1m&wait=9",
        " HTTP/1.1\r\n",
        "Host: h\r\n",
        "\r\n",
        "\n",
    ]);
    prop_oneof![
        6 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 1..40),
        1 => (1..100_000usize).prop_map(|n| vec![b'a'; n]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => fragment().prop_map(Step::Receive),
        4 => Just(Step::Pump),
        2 => Just(Step::Poll),
        2 => (1..2000usize).prop_map(Step::Sent),
        1 => Just(Step::Blocked),
        1 => Just(Step::Writable),
        1 => (0..12_000u64).prop_map(Step::Pass),
        1 => Just(Step::Publish),
        1 => Just(Step::Refuse),
        1 => Just(Step::HeadOk),
    ]
}

fn run(shard: Shard, steps: Vec<Step>) {
    let mut probe = Probe::new(shard);
    let mut outstanding = 0;
    for step in steps {
        match step {
            Step::Receive(data) => {
                let body = &mut probe.body;
                probe.conn.handle_received(probe.now, &data, &mut |b| body.extend_from_slice(b));
            }
            Step::Pump if outstanding == 0 => _ = probe.pump(),
            Step::Pump => {}
            Step::Poll => _ = probe.poll(),
            Step::Sent(n) if outstanding > 0 => {
                probe.conn.handle_sent(probe.now, n.min(outstanding));
                outstanding = 0;
            }
            Step::Sent(_) => {
                let parts = probe.conn.next_send();
                outstanding = parts.iter().flatten().map(|part| part.len()).sum();
            }
            Step::Blocked if outstanding > 0 => {
                probe.conn.handle_blocked();
                outstanding = 0;
            }
            Step::Blocked => {}
            Step::Writable => probe.conn.handle_writable(),
            Step::Pass(millis) => {
                probe.now = probe.now + Duration::from_millis(millis);
                probe.conn.handle_timer(probe.now);
            }
            Step::Publish => probe.publish(),
            Step::Refuse => probe.conn.refuse(probe.now, &Refusal::new(404, "no")),
            Step::HeadOk => probe.conn.head_ok(probe.now, None),
        }
        // One response of this site is far below 64 KiB.
        let bound = size_of::<Connection>() + HEAD_BYTES + PENDING_BODY + 64 * 1024;
        assert!(probe.conn.memory() <= bound, "{} bytes", probe.conn.memory());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_panics_and_memory_is_bounded(
        steps in proptest::collection::vec(step(), 1..40),
        admits in any::<bool>(),
        thinks in any::<bool>(),
    ) {
        let decided = if admits { Shard::Admits } else { Shard::Refuses };
        run(if thinks { Shard::Thinks } else { decided }, steps);
    }

    #[test]
    fn cuts_change_nothing(
        // Whether a fault in an unwanted body is seen before the response is sent depends on the
        // cuts, too.
        pieces in proptest::collection::vec(
            fragment().prop_filter("unwanted", |f| !f.starts_with(UNWANTED.as_bytes())),
            1..6,
        ),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 1..6),
        admits in any::<bool>(),
    ) {
        let mut data = pieces.concat();
        // Beyond the bound of a head, what is held does depend on what came at once.
        data.truncate(HEAD_BYTES);
        let shard = if admits { Shard::Admits } else { Shard::Refuses };
        let mut whole = Probe::new(shard);
        whole.receive(&data);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(data.len() + 1)).collect();
        ends.push(data.len());
        ends.sort_unstable();
        let mut cut = Probe::new(shard);
        let mut at = 0;
        for end in ends {
            if end > at {
                cut.receive(&data[at..end]);
            }
            at = end;
        }
        prop_assert_eq!(cut.outcome(), whole.outcome());
    }
}
