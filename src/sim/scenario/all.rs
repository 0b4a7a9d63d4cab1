//! All scenarios: what the others differ from, and the others.

use std::time::Duration;

use crate::sim::link::Faults;
use crate::sim::population::{ASYMMETRIC, CHURN, HOMES, LAN, LOSS, MOBILE, POOR, STRICT};
use crate::sim::scenario::{Act, FOR_EVER, Limits, Scenario};
use crate::swarm::settings::{Mode, Strategy};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const LIMITS: Limits = Limits {
    stalls_per_hour: 0.1,
    excused_per_hour: 0.05,
    stall_max: ms(500),
    startup_p95: ms(2_000),
    delay_p99: ms(3_000),
    recovery: None,
    offload: 85.0,
    overhead: 5.0,
    egress: 100.0,
};

/// Where much is done to the world, not every stall is a defect, and the recovery counts.
const ENDURED: Limits = Limits { stalls_per_hour: 60.0, stall_max: ms(3_000), ..LIMITS };

/// What a tenth of the peers does must not trouble the others.
const ATTACKED: Limits = Limits { stalls_per_hour: 0.3, offload: 70.0, ..LIMITS };

/// All stall who are cut off from the stream, and that explains it: once or twice in a minute.
const CUT_OFF: Limits = Limits { excused_per_hour: 130.0, offload: 0.0, ..LIMITS };

const USUAL: Faults = Faults { loss: LOSS, burst: 0, burst_goes_on: 0, twice: 100, late: 1_000 };

/// Five in a hundred lost, and now and then dozens in a row.
const BAD: Faults =
    Faults { loss: 50_000, burst: 100, burst_goes_on: 950_000, twice: 5_000, late: 20_000 };

/// Two in a hundred, and every quarter of a minute twenty in a row.
const RADIO: Faults =
    Faults { loss: 20_000, burst: 300, burst_goes_on: 950_000, twice: 1_000, late: 5_000 };

/// A network of one machine, which loses two datagrams in a hundred.
const LOSSY_LAN: Faults = Faults { loss: 20_000, burst: 0, burst_goes_on: 0, twice: 0, late: 0 };

/// What the others differ from.
const STEADY: Scenario = Scenario {
    name: "steady",
    about: "1 % loss, 0.2 % of the peers leave each second and as many come",
    folk: HOMES,
    mode: Mode::Auto,
    strategy: Strategy::Trees,
    faults: USUAL,
    arrival: ms(2_000),
    churn: CHURN,
    blocked: 0,
    liars: 0,
    riders: 0,
    boasters: 0,
    besiegers: 0,
    swings: 0,
    drift: 0,
    gop: None,
    egress: None,
    chaos: false,
    acts: &[],
    limits: LIMITS,
};

/// All scenarios.
pub const ALL: [Scenario; 31] = [
    STEADY,
    Scenario {
        name: "poor",
        about: "uplinks of 0.6 times the bitrate in the mean: the relay carries the rest",
        folk: POOR,
        limits: Limits { stalls_per_hour: 0.2, offload: 25.0, ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "lossy",
        about: "5 % loss, bursts, duplicates and reordering on every peer's line",
        faults: BAD,
        limits: Limits { startup_p95: ms(3_000), offload: 0.0, ..ENDURED },
        ..STEADY
    },
    Scenario {
        name: "flash",
        about: "everybody comes within one second",
        arrival: ms(1_000),
        churn: 0,
        limits: Limits { startup_p95: ms(2_500), ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "leave",
        about: "80 % of the peers leave within a second, half of those without a word",
        churn: 0,
        acts: &[
            (500, Act::Leave { thousandths: 400, politely: true }),
            (500, Act::Leave { thousandths: 667, politely: false }),
        ],
        limits: Limits { recovery: Some(ms(3_000)), offload: 0.0, ..ENDURED },
        ..STEADY
    },
    Scenario {
        name: "frozen",
        about: "5 % of the peers do nothing any more, and stay",
        churn: 0,
        acts: &[(500, Act::Freeze(50))],
        limits: Limits { recovery: Some(ms(3_000)), ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "corrupt",
        about: "5 % of the peers change every fiftieth chunk that they pass on",
        liars: 50_000,
        ..STEADY
    },
    Scenario {
        name: "spoof",
        about: "somebody floods relay and peers under the addresses of others",
        acts: &[(100, Act::Spoof(FOR_EVER))],
        ..STEADY
    },
    Scenario {
        name: "restart",
        about: "the relay is killed and started again one second later",
        churn: 0,
        acts: &[(500, Act::RelayDies(ms(1_000)))],
        limits: Limits {
            excused_per_hour: 3_600.0,
            stall_max: ms(10_000),
            delay_p99: ms(5_500),
            recovery: Some(ms(2_000)),
            ..ENDURED
        },
        ..STEADY
    },
    Scenario {
        name: "cut",
        about: "no datagram passes the relay for three seconds, HTTP does",
        churn: 0,
        acts: &[(400, Act::SwarmCut(ms(3_000)))],
        limits: Limits { recovery: Some(ms(3_000)), offload: 0.0, ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "blocked",
        about: "a third of the peers cannot use UDP at all",
        churn: 0,
        blocked: 333_000,
        limits: Limits { startup_p95: ms(3_000), ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "direct",
        about: "as steady, and the relay sends everything to everybody",
        mode: Mode::Direct,
        limits: Limits { offload: 0.0, ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "namespaces",
        about: "the world of tests/swarm_hybrid.rs: one machine, 2 % loss, shaped uplinks",
        folk: LAN,
        mode: Mode::Hybrid,
        faults: LOSSY_LAN,
        arrival: ms(6_000),
        churn: 0,
        limits: Limits { offload: 80.0, ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "churn",
        about: "1 % of the peers leave each second and as many come",
        churn: 10_000,
        limits: Limits { offload: 70.0, ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "crowd",
        about: "from nobody to everybody within ten seconds",
        arrival: ms(10_000),
        churn: 0,
        limits: Limits { startup_p95: ms(3_000), ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "asymmetric",
        about: "half of the peers cannot upload at all, the others 3 times the bitrate in the mean",
        folk: ASYMMETRIC,
        limits: Limits { offload: 70.0, ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "nats",
        about: "80 % of the peers are behind symmetric translators, and only 5 % behind none",
        folk: STRICT,
        // Who is behind a symmetric one is fed by the relay and by the fifth that is not: these
        // have uploads for less than a third of it.
        limits: Limits { offload: 25.0, ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "mobile",
        about: "by radio: small uplinks, losses in rows, lines that get narrow for seconds",
        folk: MOBILE,
        faults: RADIO,
        swings: 50_000,
        limits: Limits {
            stalls_per_hour: 0.2,
            excused_per_hour: 2.0,
            startup_p95: ms(3_000),
            offload: 25.0,
            ..LIMITS
        },
        ..STEADY
    },
    Scenario {
        name: "region",
        about: "a third of the viewers is cut off from all others and the relay for four seconds",
        churn: 0,
        acts: &[(500, Act::RegionCut(ms(4_000)))],
        limits: Limits { recovery: Some(ms(3_000)), delay_p99: ms(5_000), ..CUT_OFF },
        ..STEADY
    },
    Scenario {
        name: "egress",
        about: "the relay may send what 35 % of the peers get: newcomers may be refused",
        egress: Some(35),
        limits: Limits { stalls_per_hour: 0.2, offload: 65.0, ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "overload",
        about: "the relay does nothing for 100 of each 200 ms, in a third of the time",
        acts: &[(333, Act::RelaySlow { time: ms(20_000), busy: ms(100), period: ms(200) })],
        limits: Limits { recovery: Some(ms(3_000)), offload: 70.0, ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "corrupt10",
        about: "10 % of the peers change every fiftieth chunk that they pass on",
        liars: 100_000,
        limits: ATTACKED,
        ..STEADY
    },
    Scenario {
        name: "frozen10",
        about: "10 % of the peers do nothing any more, and stay",
        churn: 0,
        acts: &[(500, Act::Freeze(100))],
        limits: Limits { recovery: Some(ms(3_000)), ..ATTACKED },
        ..STEADY
    },
    Scenario {
        name: "riders",
        about: "10 % of the peers say what they have and pass nothing on",
        riders: 100_000,
        limits: ATTACKED,
        ..STEADY
    },
    Scenario {
        name: "boasters",
        about: "10 % of the peers say that they have what they have not, and can send without end",
        boasters: 100_000,
        limits: ATTACKED,
        ..STEADY
    },
    Scenario {
        name: "eclipse",
        about: "10 % of the peers boast, open links to everybody, and pass nothing on",
        besiegers: 100_000,
        acts: &[(50, Act::Besiege(FOR_EVER))],
        limits: ATTACKED,
        ..STEADY
    },
    Scenario {
        name: "hiccup",
        about: "the publisher's line stands still for two seconds, then all comes at once",
        churn: 0,
        acts: &[(500, Act::Pause { time: ms(2_000), burst: true })],
        limits: Limits { recovery: Some(ms(2_000)), ..CUT_OFF },
        ..STEADY
    },
    Scenario {
        name: "standstill",
        about: "the publisher itself stands still for two seconds, and goes on where it was",
        churn: 0,
        acts: &[(500, Act::Pause { time: ms(2_000), burst: false })],
        limits: Limits { recovery: Some(ms(2_000)), delay_p99: ms(3_500), ..CUT_OFF },
        ..STEADY
    },
    Scenario {
        name: "longgop",
        about: "a key frame every ten seconds: whoever comes begins five seconds behind or waits",
        gop: Some(ms(10_000)),
        // A key frame that is five seconds old is too old, and the next one comes in five. Until
        // the first bytes of one that is just young enough are there, half a second passes, and
        // where the relay is far away, more than one.
        limits: Limits { startup_p95: ms(7_000), delay_p99: ms(6_000), ..LIMITS },
        ..STEADY
    },
    Scenario {
        name: "skew",
        about: "clocks gain or lose up to 200 millionths, and the time of day is off by days",
        drift: 200,
        ..STEADY
    },
    Scenario {
        name: "chaos",
        about: "people, lines, attackers and what is done to them, all drawn from the seed",
        chaos: true,
        // One viewer on the worst of lines may hiccup each second: in a world of 40 for 20 s that
        // is a hundred.
        limits: Limits {
            stalls_per_hour: 200.0,
            excused_per_hour: f64::INFINITY,
            // Who skips goes on at a key frame, the next of which is ten seconds away.
            stall_max: ms(12_000),
            // A key frame that is ten seconds away and comes while the relay does not run, the next
            // one, and four seconds for which nothing comes.
            startup_p95: ms(24_000),
            delay_p99: ms(10_000),
            offload: 0.0,
            overhead: 100.0,
            // Whoever falls back to the relay is fed, and many do; see `registry/budget.rs`.
            egress: f64::INFINITY,
            ..LIMITS
        },
        ..STEADY
    },
];
