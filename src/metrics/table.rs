//! The table: every series that a shard can move, with its family, help and labels.
//!
//! Names follow the Prometheus conventions: one prefix, base units, counters end in `_total`
//! (which the encoder adds). A series that cannot move is not in here.

/// Whether a series only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; exposed with `_total`.
    Counter,
    /// A counter whose cell holds nanoseconds; exposed in seconds with `_total`.
    Seconds,
    /// Goes up and down.
    Gauge,
    /// A gauge whose cell holds nanoseconds; exposed in seconds.
    GaugeSeconds,
}

/// One series.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// Its cell in a shard's block.
    pub cell: Cell,
    /// The family's name, without `_total`.
    pub family: &'static str,
    /// One line for the reader of a dashboard.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Fixed labels.
    pub labels: &'static [(&'static str, &'static str)],
    /// Whether each shard's value is shown with a `shard` label, or only their sum.
    pub per_shard: bool,
}

macro_rules! table {
    ($( $cell:ident: $kind:ident $family:literal { $($label:ident = $value:literal),* } $(@ $scope:ident)? $help:literal; )*) => {
        /// A cell of a shard's block: the name of a series in code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        #[allow(missing_docs, reason = "the help text of each series is in the table")]
        pub enum Cell { $( $cell ),* }

        /// Every series, families together.
        pub const TABLE: &[Series] = &[ $( Series {
            cell: Cell::$cell,
            family: $family,
            help: $help,
            kind: Kind::$kind,
            labels: &[ $( (stringify!($label), $value) ),* ],
            per_shard: table!(@scope $($scope)?),
        } ),* ];

        /// Cells in a block.
        pub const CELLS: usize = TABLE.len();
    };
    (@scope shard) => { true };
    (@scope) => { false };
}

table! {
    EgressHttpBytes: Counter "headwater_egress_bytes" { face = "http" } "Stream bytes that the kernel accepted for viewers.";
    EgressHlsBytes: Counter "headwater_egress_bytes" { face = "hls" } "Stream bytes that the kernel accepted for viewers.";
    EgressSwarmBytes: Counter "headwater_egress_bytes" { face = "swarm" } "Stream bytes that the kernel accepted for viewers.";
    HttpViewers: Gauge "headwater_viewers" { face = "http" } "Viewers being served.";
    SwarmPeers: Gauge "headwater_viewers" { face = "swarm" } "Viewers being served.";
    HttpConnections: Gauge "headwater_connections" {} @shard "Open connections, viewers and publishers included.";
    HttpSkips: Counter "headwater_viewer_skips" { face = "http" } "Jumps of slow viewers to the newest access point.";
    ClosedEof: Counter "headwater_sessions_closed" { face = "http", reason = "left" } "Viewer sessions that ended, by reason.";
    ClosedReset: Counter "headwater_sessions_closed" { face = "http", reason = "reset" } "Viewer sessions that ended, by reason.";
    ClosedSlow: Counter "headwater_sessions_closed" { face = "http", reason = "slow" } "Viewer sessions that ended, by reason.";
    ClosedStalled: Counter "headwater_sessions_closed" { face = "http", reason = "stalled" } "Viewer sessions that ended, by reason.";
    ClosedStreamEnded: Counter "headwater_sessions_closed" { face = "http", reason = "stream_ended" } "Viewer sessions that ended, by reason.";
    ClosedDrain: Counter "headwater_sessions_closed" { face = "http", reason = "drain" } "Viewer sessions that ended, by reason.";
    PeersLeft: Counter "headwater_sessions_closed" { face = "swarm", reason = "left" } "Viewer sessions that ended, by reason.";
    PeersLeftDownlink: Counter "headwater_sessions_closed" { face = "swarm", reason = "left_downlink" } "Viewer sessions that ended, by reason.";
    PeersLeftMtu: Counter "headwater_sessions_closed" { face = "swarm", reason = "left_mtu" } "Viewer sessions that ended, by reason.";
    PeersDead: Counter "headwater_sessions_closed" { face = "swarm", reason = "dead" } "Viewer sessions that ended, by reason.";
    PeersDownlink: Counter "headwater_sessions_closed" { face = "swarm", reason = "downlink" } "Viewer sessions that ended, by reason.";
    PeersMtu: Counter "headwater_sessions_closed" { face = "swarm", reason = "mtu" } "Viewer sessions that ended, by reason.";
    PeersMisconduct: Counter "headwater_sessions_closed" { face = "swarm", reason = "misconduct" } "Viewer sessions that ended, by reason.";
    PeersStreamEnded: Counter "headwater_sessions_closed" { face = "swarm", reason = "stream_ended" } "Viewer sessions that ended, by reason.";
    PeersDrain: Counter "headwater_sessions_closed" { face = "swarm", reason = "drain" } "Viewer sessions that ended, by reason.";
    Http2xx: Counter "headwater_http_responses" { code = "2xx" } "HTTP responses begun, by class of status.";
    Http4xx: Counter "headwater_http_responses" { code = "4xx" } "HTTP responses begun, by class of status.";
    Http5xx: Counter "headwater_http_responses" { code = "5xx" } "HTTP responses begun, by class of status.";
    HttpBad: Counter "headwater_http_bad_requests" {} "Requests that were no HTTP, too large or too slow.";
    RejectedAddress: Counter "headwater_admission_rejected" { reason = "address" } "Sessions refused, by reason.";
    RejectedViewers: Counter "headwater_admission_rejected" { reason = "viewers" } "Sessions refused, by reason.";
    RejectedConnections: Counter "headwater_admission_rejected" { reason = "connections" } "Sessions refused, by reason.";
    RejectedMemory: Counter "headwater_admission_rejected" { reason = "memory" } "Sessions refused, by reason.";
    RejectedKey: Counter "headwater_admission_rejected" { reason = "key" } "Sessions refused, by reason.";
    RejectedBusy: Counter "headwater_admission_rejected" { reason = "publisher" } "Sessions refused, by reason.";
    RejectedState: Counter "headwater_admission_rejected" { reason = "state" } "Sessions refused, by reason.";
    RejectedPeers: Counter "headwater_admission_rejected" { reason = "peers" } "Sessions refused, by reason.";
    RejectedEgress: Counter "headwater_admission_rejected" { reason = "egress" } "Sessions refused, by reason.";
    RejectedLoad: Counter "headwater_admission_rejected" { reason = "load" } "Sessions refused, by reason.";
    RejectedToken: Counter "headwater_admission_rejected" { reason = "token" } "Sessions refused, by reason.";
    RejectedEnded: Counter "headwater_admission_rejected" { reason = "stream_ended" } "Sessions refused, by reason.";
    RejectedDraining: Counter "headwater_admission_rejected" { reason = "draining" } "Sessions refused, by reason.";
    SegmentsCut: Counter "headwater_hls_segments" {} "Segments cut from the streams of publishers of this process.";
    HlsPlaylists: Counter "headwater_hls_responses" { kind = "playlist" } "HLS responses begun with content, by kind.";
    HlsSegments: Counter "headwater_hls_responses" { kind = "segment" } "HLS responses begun with content, by kind.";
    SegmentsGone: Counter "headwater_hls_segments_gone" {} "Downloads cut off because their segment had left the window.";
    Publishers: Gauge "headwater_publishers" {} "Publishers connected.";
    Takeovers: Counter "headwater_publisher_takeovers" {} "Publishers that replaced a silent one with the same key.";
    PublishersVanished: Counter "headwater_publishers_vanished" {} "Publishers closed because nothing came from them.";
    DatagramsTaken: Counter "headwater_ingest_datagrams" { outcome = "taken" } "Datagrams for configured ingests, by what became of them.";
    DatagramsRefused: Counter "headwater_ingest_datagrams" { outcome = "refused" } "Datagrams for configured ingests, by what became of them.";
    DatagramsForeign: Counter "headwater_ingest_datagrams" { outcome = "foreign" } "Datagrams for configured ingests, by what became of them.";
    DatagramsMalformed: Counter "headwater_ingest_datagrams" { outcome = "malformed" } "Datagrams for configured ingests, by what became of them.";
    DatagramsBadRtp: Counter "headwater_ingest_datagrams" { outcome = "bad_rtp" } "Datagrams for configured ingests, by what became of them.";
    DatagramsLate: Counter "headwater_ingest_datagrams" { outcome = "late" } "Datagrams for configured ingests, by what became of them.";
    DatagramsNoSeat: Counter "headwater_ingest_datagrams" { outcome = "no_seat" } "Datagrams for configured ingests, by what became of them.";
    DatagramsTruncated: Counter "headwater_ingest_datagrams" { outcome = "truncated" } "Datagrams for configured ingests, by what became of them.";
    DatagramsKernelDropped: Counter "headwater_ingest_kernel_drops" {} @shard "Datagrams that the kernel dropped because a socket's buffer was full.";
    UdpSentBytes: Counter "headwater_udp_sent_bytes" {} @shard "Payload bytes of the datagrams that the kernel accepted.";
    UdpSentDatagrams: Counter "headwater_udp_sent_datagrams" {} @shard "Datagrams that the kernel accepted, those of trains included.";
    UdpSentTrains: Counter "headwater_udp_sent_trains" {} @shard "Trains of several datagrams that the kernel accepted as one and cut itself.";
    UdpSocketFull: Counter "headwater_udp_socket_full" {} @shard "Times that the kernel took no more datagrams and sending paused.";
    DatagramsCutHere: Counter "headwater_datagrams_gso_fallback" {} @shard "Datagrams of trains that the kernel could not cut and that were sent one by one.";
    DatagramSendErrors: Counter "headwater_datagram_send_errors" { reason = "kernel" } "Datagrams that were not sent, by reason: the kernel refused them, or they broke a rule (a bug).";
    DatagramsUnfit: Counter "headwater_datagram_send_errors" { reason = "unfit" } "Datagrams that were not sent, by reason: the kernel refused them, or they broke a rule (a bug).";
    RtpLost: Counter "headwater_ingest_rtp_lost" {} "RTP packets that never came, by their sequence numbers.";
    RtpReordered: Counter "headwater_ingest_rtp_reordered" {} "RTP packets that came out of order and were put right.";
    IngestRefusedAddress: Counter "headwater_ingest_connections_refused" { reason = "address" } "Connections to configured ingests that were closed, by reason.";
    IngestRefusedForeign: Counter "headwater_ingest_connections_refused" { reason = "foreign" } "Connections to configured ingests that were closed, by reason.";
    IngestRefusedNoSeat: Counter "headwater_ingest_connections_refused" { reason = "no_seat" } "Connections to configured ingests that were closed, by reason.";
    RingStarved: Counter "headwater_ring_starved" {} "Times that incoming data was dropped because no slab was free.";
    RingDroppedBytes: Counter "headwater_ring_dropped_bytes" {} "Incoming bytes dropped because no slab was free.";
    SubtreesSigned: Counter "headwater_subtrees_signed" {} "Subtrees of chunks that were signed for the swarm.";
    PaddingBytes: Counter "headwater_padding_bytes" {} "Bytes of null packets added to complete subtrees: at the end of a run, and of those open for too long.";
    SwarmOpeningsAnswered: Counter "headwater_swarm_openings" { outcome = "answered" } "Opening handshakes of peers, by what became of them; only the answered ones heard anything.";
    SwarmOpeningsMalformed: Counter "headwater_swarm_openings" { outcome = "malformed" } "Opening handshakes of peers, by what became of them; only the answered ones heard anything.";
    SwarmOpeningsUnknown: Counter "headwater_swarm_openings" { outcome = "unknown_swarm" } "Opening handshakes of peers, by what became of them; only the answered ones heard anything.";
    SwarmOpeningsUnfit: Counter "headwater_swarm_openings" { outcome = "unfit" } "Opening handshakes of peers, by what became of them; only the answered ones heard anything.";
    SwarmOpeningsBusy: Counter "headwater_swarm_openings" { outcome = "busy" } "Opening handshakes of peers, by what became of them; only the answered ones heard anything.";
    SwarmOpeningsEvicted: Counter "headwater_swarm_openings_evicted" {} "Openings that were forgotten before they were confirmed, because newer ones came.";
    SwarmHalfOpen: Gauge "headwater_swarm_half_open" {} "Openings that were answered and not yet confirmed.";
    SwarmDatagramsTaken: Counter "headwater_swarm_datagrams" { outcome = "taken" } "Datagrams from peers other than openings, by what became of them; forwarded ones came to the wrong shard.";
    SwarmDatagramsUnknown: Counter "headwater_swarm_datagrams" { outcome = "unknown_channel" } "Datagrams from peers other than openings, by what became of them; forwarded ones came to the wrong shard.";
    SwarmDatagramsForeign: Counter "headwater_swarm_datagrams" { outcome = "foreign_address" } "Datagrams from peers other than openings, by what became of them; forwarded ones came to the wrong shard.";
    SwarmDatagramsStray: Counter "headwater_swarm_datagrams" { outcome = "stray" } "Datagrams from peers other than openings, by what became of them; forwarded ones came to the wrong shard.";
    SwarmDatagramsForwarded: Counter "headwater_swarm_datagrams" { outcome = "forwarded" } "Datagrams from peers other than openings, by what became of them; forwarded ones came to the wrong shard.";
    SwarmForwardDropped: Counter "headwater_swarm_datagrams" { outcome = "forward_dropped" } "Datagrams from peers other than openings, by what became of them; forwarded ones came to the wrong shard.";
    SwarmTrainsPush: Counter "headwater_swarm_trains" { kind = "push" } "Trains sent to peers: pushed, probes of silent peers, answers to requests, newest hashes to newcomers.";
    SwarmTrainsProbe: Counter "headwater_swarm_trains" { kind = "probe" } "Trains sent to peers: pushed, probes of silent peers, answers to requests, newest hashes to newcomers.";
    SwarmTrainsAnswer: Counter "headwater_swarm_trains" { kind = "answer" } "Trains sent to peers: pushed, probes of silent peers, answers to requests, newest hashes to newcomers.";
    SwarmTrainsNewest: Counter "headwater_swarm_trains" { kind = "newest" } "Trains sent to peers: pushed, probes of silent peers, answers to requests, newest hashes to newcomers.";
    SwarmSentBytes: Counter "headwater_swarm_sent_bytes" {} "UDP payload sent to peers, control included.";
    Introductions: Counter "headwater_swarm_introductions" { outcome = "told" } "Addresses of other peers that peers were told, and wishes for them that were not answered, by reason.";
    IntroductionsTooSoon: Counter "headwater_swarm_introductions" { outcome = "too_soon" } "Addresses of other peers that peers were told, and wishes for them that were not answered, by reason.";
    IntroductionsNobody: Counter "headwater_swarm_introductions" { outcome = "nobody" } "Addresses of other peers that peers were told, and wishes for them that were not answered, by reason.";
    IntroductionsDropped: Counter "headwater_swarm_introductions" { outcome = "dropped" } "Addresses of other peers that peers were told, and wishes for them that were not answered, by reason.";
    SwarmOvertaken: Counter "headwater_swarm_overtaken" {} "Trains that were not sent because their bytes had left the window.";
    SwarmProbesAnswered: Counter "headwater_swarm_probes" { outcome = "answered" } "Trains by which peers measure their upload: those that were answered, and datagrams that came too soon or did not belong to one.";
    SwarmProbesDropped: Counter "headwater_swarm_probes" { outcome = "dropped" } "Trains by which peers measure their upload: those that were answered, and datagrams that came too soon or did not belong to one.";
    SwarmQuestionsDropped: Counter "headwater_swarm_questions_dropped" {} "Chunks that peers asked for and that were not answered because too many waited already.";
    SwarmLettersDropped: Counter "headwater_swarm_letters_dropped" {} "Answers to openings and closes that were not sent because the socket was full for long.";
    CrimeMalformed: Counter "headwater_swarm_crimes" { crime = "malformed" } "What peers did that no honest one does, by name.";
    CrimeUnknownMessage: Counter "headwater_swarm_crimes" { crime = "unknown_message" } "What peers did that no honest one does, by name.";
    CrimeSecondHandshake: Counter "headwater_swarm_crimes" { crime = "second_handshake" } "What peers did that no honest one does, by name.";
    CrimePrivateUnasked: Counter "headwater_swarm_crimes" { crime = "private_unasked" } "What peers did that no honest one does, by name.";
    CrimeDataToSource: Counter "headwater_swarm_crimes" { crime = "data_to_source" } "What peers did that no honest one does, by name.";
    CrimeAckOfNothing: Counter "headwater_swarm_crimes" { crime = "ack_of_nothing" } "What peers did that no honest one does, by name.";
    CrimeHaveOfNothing: Counter "headwater_swarm_crimes" { crime = "have_of_nothing" } "What peers did that no honest one does, by name.";
    CrimeRequestFlood: Counter "headwater_swarm_crimes" { crime = "request_flood" } "What peers did that no honest one does, by name.";
    CrimePexFromPeer: Counter "headwater_swarm_crimes" { crime = "pex_from_peer" } "What peers did that no honest one does, by name.";
    Overtaken: Counter "headwater_viewers_overtaken" {} "Times that a viewer's place had left the window.";
    FlushRounds: Counter "headwater_flush_rounds" {} @shard "Rounds in which a shard sent a stream's new bytes to its viewers.";
    FlushInterval: GaugeSeconds "headwater_flush_interval_seconds" {} @shard "How long a shard gathers bytes before it sends them; follows its load.";
    Sends: Counter "headwater_sends" {} @shard "Writes handed to the kernel for viewers.";
    SendsBlocked: Counter "headwater_sends_blocked" {} @shard "Writes of which the kernel took nothing.";
    Wakeups: Counter "headwater_shard_wakeups" {} @shard "Times that another thread woke a sleeping shard.";
    LoopRounds: Counter "headwater_shard_rounds" {} @shard "Rounds of a shard's loop; a stuck shard shows as a constant.";
    BusyNanos: Seconds "headwater_shard_busy_seconds" {} @shard "Time that a shard spent working, not waiting.";
    MailRetries: Counter "headwater_mail_retries" {} @shard "Times that another shard's mailbox was full and mail had to wait.";
    AcceptErrorsExhausted: Counter "headwater_accept_failures" { class = "exhausted" } "Accepts that failed, by class.";
    AcceptErrorsOther: Counter "headwater_accept_failures" { class = "other" } "Accepts that failed, by class.";
    IoEnters: Counter "headwater_io_enters" {} @shard "Waits and submissions: io_uring_enter or epoll_wait calls.";
    IoEvents: Counter "headwater_io_events" {} @shard "Completions or readiness events handled.";
    UringSubmissions: Counter "headwater_uring_submissions" {} @shard "Entries submitted to io_uring; zero under epoll.";
    UringTableSockets: Gauge "headwater_uring_table_sockets" {} @shard "Connections held by io_uring's own table instead of a file descriptor.";
    UringEnobufs: Counter "headwater_uring_enobufs" {} @shard "Receives that found no provided buffer.";
    UringOverflow: Counter "headwater_uring_cq_overflow" {} @shard "Times that the completion queue had overflowed.";
    UringRearms: Counter "headwater_uring_rearms" {} @shard "Multishot operations that ended and were armed again.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_together_and_agree() {
        let mut done: Vec<&str> = Vec::new();
        let mut last: Option<&Series> = None;
        for (index, series) in TABLE.iter().enumerate() {
            assert_eq!(series.cell as usize, index);
            assert!(!series.family.ends_with("_total"), "{}: the encoder adds it", series.family);
            match last {
                Some(l) if l.family == series.family => {
                    assert_eq!((l.help, l.kind), (series.help, series.kind), "{}", l.family);
                    assert_ne!(l.labels, series.labels, "{}: the same series twice", l.family);
                }
                _ => assert!(!done.contains(&series.family), "{} is scattered", series.family),
            }
            done.push(series.family);
            last = Some(series);
        }
    }
}
