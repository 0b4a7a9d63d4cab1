"""A source: cuts a file into signed subtrees at the pace of its bitrate, pushes and answers.

It writes down by name whatever a peer must not do.
"""
import http.server, json, os, random, re
from types import SimpleNamespace as Record
from urllib.parse import parse_qs, urlsplit
from rfc.wire import *

KEPT, BURST = 20.0, 2                      # seconds served; trains sent at once to a REQUEST [5]
ENDED, SILENT = 6, 5.0                     # reason of BYE [5]; seconds: gone without a close


def access_points(ts):
    """Offsets of the PAT in front of each key frame: random access, PES of a video stream."""
    pat = None
    for at in range(0, len(ts) - 187, 188):
        packet = ts[at:at + 188]
        start, field = packet[1] & 0x40, packet[4] if packet[3] & 0x20 else 0
        if packet[1:3] == b"\x40\0":
            pat = at
        elif start and field and packet[5] & 0x40 and pat is not None:
            if packet[5 + field:9 + field][:3] == b"\0\0\1" and packet[8 + field] & 0xf0 == 0xe0:
                yield pat


class Seed(Side):
    """The only source of its swarm. `corrupt` K spoils every Kth chunk after hashing."""

    def __init__(self, ts, listen, http, bitrate, cam=4, n=16, base=1600, corrupt=0, uncles=False,
                 key=None, seconds=None):
        super().__init__(listen)
        self.socket.bind(self.address)
        self.wire, self.n, self.bitrate, self.base = Wire(cam), n, bitrate, base
        self.ts = ts + NULL_PACKET * (-len(ts) // 188 % (7 * n))    # whole subtrees [5]
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.id, self.corrupt, self.uncles = swarm_id(self.key), corrupt, uncles
        self.points, self.subs, self.sessions, self.left = list(access_points(ts)), [], {}, []
        self.ended = len(self.ts) * 8 / bitrate + 1.0
        self.seconds, self.began, self.utc = seconds or self.ended, time.monotonic(), time.time()
        self.web = self.serve(http)

    def now(self):
        """The signer's clock: UTC when it began, then monotonic [5]."""
        return self.utc + time.monotonic() - self.began

    def run(self):
        threading.Thread(target=self.web.serve_forever, daemon=True).start()
        while time.monotonic() < self.began + self.seconds and not self.stopping.is_set():
            for datagram, sender in self.receive(0.002):
                self.handle(datagram, sender)
            self.seal()
            for session in list(self.sessions.values()):
                self.answer(session)
        for session in list(self.sessions.values()):
            silent = time.monotonic() - session.heard
            if silent > SILENT:
                self.crime("gone without a close", f"{session.peer}: silent {silent:.1f} s")
            bye = [(BYE, bytes([ENDED]))] * session.private
            self.send(session, *bye, (HANDSHAKE, 0, {}))
            self.leave(session)
        self.web.shutdown()
        self.web.server_close()
        return self.report(subtrees=len(self.subs), sessions=self.left)

    # What is there to send

    def chunk(self, number):
        at = (number - self.base) * CHUNK
        return self.ts[at:at + CHUNK]

    def seal(self):
        """Signs the subtrees whose bytes have come [1.6] and tells everybody."""
        size = self.n * CHUNK
        bytes_due = int((time.monotonic() - self.began) * self.bitrate / 8)
        while len(self.subs) < min(len(self.ts), bytes_due) // size:
            first = self.base + len(self.subs) * self.n
            last = first + self.n - 1
            leaves = [digest(self.chunk(c)) for c in range(first, last + 1)]
            munro, stamp = merkle(leaves), ntp(self.now())
            signature = sign(self.key, self.wire.plaintext(first, last, stamp, munro))
            self.subs.append(Record(first=first, last=last, leaves=leaves, munro=munro, ntp=stamp,
                                    signature=signature, at=time.monotonic()))
            for session in self.sessions.values():
                if session.echoed:
                    self.spread(session, self.subs[-1])

    def sub(self, chunk):
        """The subtree of a chunk, if it is served [5]."""
        index = (chunk - self.base) // self.n
        there = 0 <= index < len(self.subs) and time.monotonic() - self.subs[index].at < KEPT
        return self.subs[index] if there else None

    def served(self):
        """The HAVE of everything served, or none."""
        fresh = [s for s in self.subs[-4096:] if time.monotonic() - s.at < KEPT]
        return [(HAVE, fresh[0].first, fresh[-1].last)] if fresh else []

    def spread(self, s, sub):
        """Hash datagram and chunks to the pushed, HAVE alone to the others [5]."""
        if s.private:
            wanted = sub.first >= s.start and s.stripes >> (sub.first // self.n % 8) & 1
        else:
            wanted = s.consent
        credit = len(s.sent - s.acked) + self.n <= s.credit
        s.told = sub.last
        if not wanted or s.choked or not credit:
            return self.send(s, (HAVE, sub.first, sub.last))
        self.counts["subtrees_pushed"] += 1
        self.send_hashes(s, sub)
        for chunk in range(sub.first, sub.last + 1):
            self.send_data(s, sub, chunk)

    # To one peer

    def send(self, s, *messages):
        self.socket.sendto(self.wire.build(s.theirs, *messages), s.peer)

    def send_hashes(self, s, sub):
        self.socket.sendto(self.wire.hash_datagram(s.theirs, sub, self.uncles), s.peer)
        s.told = max(s.told, sub.last)

    def send_data(self, s, sub, chunk):
        body, uncles, width = self.chunk(chunk), [], self.n // 2
        if self.corrupt and chunk % self.corrupt == self.corrupt - 1:
            body = body[:100] + bytes([body[100] ^ 1]) + body[101:]
            self.counts["corrupted"] += 1
        while self.uncles and width:                    # highest first [1.6]; too big to share
            at = chunk // width * width ^ width
            leaves = sub.leaves[at - sub.first:at - sub.first + width]
            uncles.append((INTEGRITY, at, at + width - 1, merkle(leaves)))
            width //= 2
        if uncles:
            self.send(s, *uncles)
        self.send(s, (DATA, chunk, chunk, now_us(), body))
        s.sent.add(chunk)
        self.counts["chunks_sent"] += 1

    def answer(self, s):
        """REQUESTs in order, at twice the bitrate, a burst of two trains [5]."""
        now = time.monotonic()
        s.tokens = min(s.tokens + (now - s.paced) * 2 * self.bitrate / 8 / CHUNK, BURST * self.n)
        s.paced = now
        while s.queue and s.tokens >= 1:
            kind, chunk = s.queue.popleft()
            sub = self.sub(chunk)
            if sub and kind == INTEGRITY:
                self.send_hashes(s, sub)
            elif sub:
                s.tokens -= 1
                self.send_data(s, sub, chunk)

    # From one peer

    def handle(self, datagram, sender):
        channel = int.from_bytes(datagram[:4], "big")
        if channel == 0:
            return self.greet(datagram, sender)
        s = self.sessions.get(channel)
        if s is None or s.peer != sender:
            return self.counts.update(["strangers"])
        found, broken = self.wire.parse(datagram)
        s.heard = time.monotonic()
        if broken:
            self.crime("a malformed datagram", datagram[:64].hex())
        if not s.echoed:
            s.echoed, newest = True, self.served()
            if newest:                                  # right-most munro with datagram 4 [1.7]
                self.send_hashes(s, self.subs[-1])
        for message in found:
            self.message(s, *message)

    def greet(self, datagram, sender):
        """Datagram 1; silence for the wrong [5]."""
        found, broken = self.wire.parse(datagram)
        expected = self.wire.options(0, b"", self.id)
        options = found[0][2] if found and found[0][0] == HANDSHAKE else {}
        wrong = [code for code, value in expected.items()
                 if options.get(code) != value and code not in (WINDOW, MESSAGES)]
        if wrong or WINDOW not in options or not found[0][1]:
            return self.crime("a wrong opening handshake", f"options {wrong}: {datagram.hex()}")
        if broken or any(m[0] not in (HANDSHAKE, HAVE) for m in found):
            self.crime("an opening with more than light payload", datagram.hex())
        again = [(c, s) for c, s in self.sessions.items()
                 if s.peer == sender and s.theirs == found[0][1]]
        mine = again[0][0] if again else random.SystemRandom().randrange(2**31, 2**32)
        have = self.served()
        if not again:
            bits = int.from_bytes(options.get(MESSAGES, b"")[:8].ljust(8, b"\0"), "big")
            self.sessions[mine] = Record(
                peer=sender, mine=mine, theirs=found[0][1], private=bits >> 63 - SUBSCRIBE & 1,
                told=have[0][2] if have else -1, echoed=False, consent=False, choked=False,
                stripes=0, start=0, credit=1 << 20, sent=set(), acked=set(), shown=set(),
                asked=set(), queue=collections.deque(maxlen=8192), tokens=0.0, delay=None,
                paced=time.monotonic(), heard=time.monotonic(), counts=collections.Counter(),
                last_report="", last_subscribe=None, bye=None)
        options = self.wire.options(self.window(), OURS if self.sessions[mine].private else PLAIN)
        reply = self.wire.build(found[0][1], (HANDSHAKE, mine, options), *have)
        assert len(reply) <= len(datagram)
        return self.socket.sendto(reply, sender)

    def window(self):
        """20 s in chunks, whole subtrees [5]."""
        return -int(-KEPT * self.bitrate / 8 / CHUNK // self.n) * self.n

    def message(self, s, kind, *fields):
        s.counts[kind] += 1
        if kind == ACK:
            self.acked(s, *fields)
        elif kind == HAVE:
            self.shown(s, *fields, "HAVE of what it was not sent")
        elif kind == REQUEST:
            self.requested(s, *fields)
        elif kind == CANCEL:
            s.queue = collections.deque((k, c) for k, c in s.queue
                                        if not fields[0] <= c <= fields[1])
        elif kind == PEX_REQ:
            pass                                          # nobody to name
        elif kind in (CHOKE, UNCHOKE):
            s.choked = kind == CHOKE
        elif kind == HANDSHAKE and fields[0] == 0:
            if set(fields[1]) - {VERSION}:
                self.crime("a close with options", fields[1])
            self.leave(s, closed=True)
        elif kind in PRIVATE and s.private and len(fields[0]) == BODIES.get(kind, len(fields[0])):
            self.private(s, kind, fields[0])
        else:
            self.crime("a message that it must not send", f"{kind}: {fields}")

    def shown(self, s, first, last, crime):
        chunks = set(range(first, min(last, first + 100_000) + 1))
        if not chunks <= s.sent:
            self.crime(crime, f"{first}-{last}")
        s.acked |= chunks & s.sent
        s.shown |= {c // self.n for c in chunks & s.sent}
        return chunks

    def acked(self, s, first, last, delay):
        self.shown(s, first, last, "ACK of what it was not sent")
        s.delay = delay if s.delay is None else s.delay
        if abs(delay - s.delay) > 10_000_000:
            self.crime("an absurd delay sample", (delay, s.delay))

    def requested(self, s, first, last):
        if last > s.told:
            self.crime("REQUEST beyond HAVE", f"{first}-{last}, told {s.told}")
        s.consent |= not s.private and s.told - last < self.n                           # [5]
        for sub in range(first // self.n, min(last, s.told) // self.n + 1):
            chunks = [c for c in range(sub * self.n, (sub + 1) * self.n) if first <= c <= last]
            if sub not in s.shown or s.asked.intersection(chunks):
                s.queue.append((INTEGRITY, chunks[0]))
            s.queue.extend((DATA, c) for c in chunks)
            s.asked.update(chunks)

    def private(self, s, kind, body):
        if kind == SUBSCRIBE:
            start, s.stripes, credit = struct.unpack(">QBI", body)
            s.credit, now = credit or 1 << 20, time.monotonic()
            if s.last_subscribe and now - s.last_subscribe > 3.0:
                self.crime("SUBSCRIBE not repeated every second", f"{now - s.last_subscribe:.1f}")
            # What was signed before comes by REQUEST [5].
            s.start, s.last_subscribe = 0 if start == NEXT_SUBTREE else start, now
        elif kind == REPORT:
            s.last_report = body.hex()
        elif kind == BYE:
            s.bye = body[0]

    def leave(self, s, closed=False):
        self.sessions.pop(s.mine, None)
        self.left.append({
            "peer": s.peer, "private": bool(s.private), "closed": closed, "bye": s.bye,
            "sent": len(s.sent), "acked": len(s.acked), "asked": len(s.asked),
            "last_report": s.last_report,
            "messages": {NAMES[kind]: n for kind, n in s.counts.items()}})

    # HTTP

    def swarm_json(self):
        age = time.monotonic() - self.began
        points = [{"chunk": self.base + at // CHUNK, "offset": at % CHUNK,
                   "age_ms": int((age - at * 8 / self.bitrate) * 1000)}
                  for at in self.points if at // CHUNK < len(self.subs) * self.n]
        return {"ext": 1, "swarm_id": self.id.hex(), "chunk_size": CHUNK, "integrity": 3,
                "chunk_addressing": self.wire.cam, "chunks_per_signature": self.n, "hash": 2,
                "signature": 13, "udp": [text(self.socket.getsockname())],
                "live": {"signed": self.base + len(self.subs) * self.n,
                         "now": int(self.now() * 1000)},
                "access_points": [p for p in points if p["age_ms"] < KEPT * 1000],
                "alternates": []}

    def body(self, offset):
        """The stream from an offset on, as it comes."""
        at = offset - self.base * CHUNK
        while at < len(self.ts) and not self.stopping.is_set():
            due = int((time.monotonic() - self.began) * self.bitrate / 8) // 188 * 188
            yield self.ts[at:due]
            at = max(at, min(due, len(self.ts)))
            time.sleep(0.02)

    def serve(self, address):
        seed = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                url = urlsplit(self.path)
                at = parse_qs(url.query).get("at")
                if re.fullmatch(r"/live/[\w.-]+/swarm\.json", url.path):
                    return self.answer(200, [json.dumps(seed.swarm_json()).encode()])
                if not re.fullmatch(r"/live/[\w.-]+\.ts", url.path) or not at:
                    return self.answer(404, [])
                if int(at[0]) < seed.base * CHUNK:
                    return self.answer(410, [])
                seed.counts["http_streams"] += 1
                return self.answer(200, seed.body(int(at[0])), ("Headwater-Offset", at[0]))

            def answer(self, status, body, *headers):
                self.send_response(status)
                for header in (*headers, ("Cache-Control", "no-store"), ("Connection", "close")):
                    self.send_header(*header)
                self.end_headers()
                try:
                    for part in body:
                        self.wfile.write(part)
                except OSError:
                    pass

            def log_message(self, *_):
                pass
        host, port = address.rsplit(":", 1)
        kind = type("Server", (http.server.ThreadingHTTPServer,),
                    {"address_family": socket.AF_INET6 if ":" in host else socket.AF_INET})
        return kind((host.strip("[]"), int(port)), Handler)
