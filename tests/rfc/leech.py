"""A plain RFC 7574 peer that takes a stream: no private messages, one ACK per chunk.

It verifies every byte, and writes down by name whatever the other side must not do.
"""
import json, random, urllib.error, urllib.request
from rfc.wire import *

FRESH, KEPT, FUTURE = 30.0, 20.0, 5.0      # seconds: a munro believed, served, ahead of us [5]
RETRIES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)   # pauses of the opening: [5], then doubled
PATIENCE = {"push": 0.15, "pull": 0.0}     # from a HAVE to the first REQUEST of what is missing
HOLE, AGAIN, TRIES = 0.15, 0.4, 20         # to another: if later chunks came; else; how often
LAG, AHEAD = 2, 32                         # pull: subtrees behind HAVE, chunks asked for at once


def fetch(url, patience=15.0):
    """The document, and half of what it took; 503 means that the stream's N is not known yet."""
    end = time.monotonic() + patience
    while True:
        began = time.monotonic()
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer), (time.monotonic() - began) / 2
        except urllib.error.HTTPError as why:
            if why.code != 503 or began > end:
                raise
            time.sleep(float(why.headers.get("Retry-After", 1)))


class Leech(Side):
    """A plain RFC peer: takes a stream, verifies it and writes it down."""

    def __init__(self, url, mode, seconds, out, drop=0.0, seed=0):
        swarm, half = fetch(url + "/swarm.json")
        super().__init__(swarm["udp"][0])
        self.newest_ntp, self.heard = ntp(swarm["live"]["now"] / 1000 + half), time.monotonic()
        self.wire = Wire(swarm["chunk_addressing"], swarm["chunk_size"])
        self.n, self.id = swarm["chunks_per_signature"], bytes.fromhex(swarm["swarm_id"])
        self.mode, self.seconds, self.drop, self.rng = mode, seconds, drop, random.Random(seed)
        self.out, self.mine, self.theirs = open(out, "wb"), 0, None
        while not self.mine:
            self.mine = random.SystemRandom().randrange(2**32)
        self.subtrees, self.named = {}, {}   # by first chunk: hashes; signer's time at its HAVE
        self.came, self.asked, self.asked_at = collections.Counter(), collections.Counter(), {}
        self.bodies, self.had, self.lost = {}, set(), set()
        self.came_at, self.latest = {}, -1
        self.oldest = self.newest = self.first = self.next = self.skew = None
        self.pushed = self.choked = self.close_seen = False

    def run(self):
        self.open()
        end = time.monotonic() + self.seconds
        while time.monotonic() < end and not self.close_seen and not self.stopping.is_set():
            for datagram, sender in self.receive(0.01):
                self.handle(datagram, sender)
            self.want()
        if not self.close_seen:
            self.close()
        self.out.close()
        return self.report(mode=self.mode, cam=self.wire.cam, n=self.n, first=self.first,
                           written=self.next and self.next - self.first, chunks=len(self.had),
                           dropped_hashes=len(self.lost), close_seen=self.close_seen)

    def send(self, *messages):
        self.socket.sendto(self.wire.build(self.theirs, *messages), self.address)
        self.spoke = time.monotonic()

    def close(self):
        """[1.5]; whatever was under way may still come, later nothing."""
        self.send((HANDSHAKE, 0, {}))
        while (since := time.monotonic() - self.spoke) < 1.0:
            for datagram, _ in self.receive(0.05):
                if since > 0.5:
                    self.crime("a datagram after our close", datagram[:16].hex())

    def open(self):
        """Datagrams 1 to 3 [1.5]."""
        options = self.wire.options(4096, PLAIN, self.id)
        opening = self.wire.build(0, (HANDSHAKE, self.mine, options))
        for pause in RETRIES:
            self.socket.sendto(opening, self.address)
            end = time.monotonic() + pause
            while time.monotonic() < end:
                for datagram, sender in self.receive(0.01):
                    if self.reply(datagram, sender, len(opening)):
                        return self.send()              # echoes their channel
        raise SystemExit("no answer to the opening handshake")

    def reply(self, datagram, sender, limit):
        found, broken = self.wire.parse(datagram)
        if sender != self.address or datagram[:4] != self.mine.to_bytes(4, "big"):
            return self.crime("a reply from elsewhere or to another channel", sender)
        if broken or not found or found[0][0] != HANDSHAKE or not found[0][1]:
            return self.crime("a reply that is no handshake", datagram.hex())
        self.theirs, options = found[0][1:]
        for code, value in self.wire.options(0, b"").items():
            if options.get(code) != value and code not in (WINDOW, MESSAGES):
                self.crime("a wrong option in the reply", f"{code}: {options.get(code)}")
        if WINDOW not in options or int.from_bytes(options[WINDOW], "big") % self.n:
            self.crime("a window that is no multiple of N", options.get(WINDOW))
        if len(datagram) > limit:
            self.crime("a reply larger than the request", len(datagram))
        if any(kind != HAVE for kind, *_ in found[1:]) or len(found) > 5:
            self.crime("more than four HAVE in the reply", found[1:])
        for _, first, last in (m for m in found[1:] if m[0] == HAVE):
            self.holds(first, last)
        return True

    def handle(self, datagram, sender):
        found, broken = self.wire.parse(datagram)
        ours = sender == self.address and datagram[:4] == self.mine.to_bytes(4, "big")
        if self.close_seen or not ours:
            return self.crime("a datagram from elsewhere, to another channel or after close")
        if broken or len(datagram) > self.wire.data_size:
            self.crime("a malformed datagram" if broken else "a datagram larger than DATA",
                       datagram[:64].hex())
        signed = [m[1] for m in found if m[0] == SIGNED]
        data = [m[1] for m in found if m[0] == DATA]
        for chunk in data:
            self.came[chunk] += 1
        if (signed or data) and self.rng.random() < self.drop:
            self.counts["dropped"] += 1
            return self.lost.update(signed)
        self.counts["hash_datagrams"] += len(signed)
        munros, padding = {}, 0
        for kind, *fields in found:
            if kind == INTEGRITY:
                self.integrity(*fields, munros)
            elif kind == SIGNED:
                self.signed(*fields, munros.get((fields[0], fields[1])))
            elif kind == DATA:
                self.data(fields[0], fields[1], *fields[2:])
            elif kind == HAVE:
                self.holds(*fields, signed, self.pushed)
            elif kind == HANDSHAKE:
                self.handshake(*fields)
            elif kind == UNCHOKE and signed:
                padding += 1
            elif kind in (CHOKE, UNCHOKE):
                self.choked = kind == CHOKE
            else:
                self.crime("a message that we have no use for", kind)
        if padding and (len(datagram) != self.wire.data_size or padding > len(datagram) / 3):
            self.crime("a hash datagram of a wrong size", f"{len(datagram)}, {padding} of padding")
        for first in signed:
            self.settle(self.subtree(first))

    def handshake(self, channel, options):
        """Only a close, or their reply once more [1.5]."""
        if channel == 0 and set(options) - {VERSION}:
            self.crime("a close with options", options)
        if channel not in (0, self.theirs):
            self.crime("a second channel", channel)
        self.close_seen = channel == 0

    def subtree(self, chunk):
        first = chunk - chunk % self.n
        return self.subtrees.setdefault(first, Subtree(first, self.n))

    def integrity(self, first, last, value, munros):
        """Leaves are claims, and so are uncles; a munro is one if a signature follows."""
        munros[first, last] = value
        self.subtree(first).claims[first, last] = value
        self.counts["uncles"] += 0 < last - first < self.n - 1

    def signed(self, first, last, stamp, signature, munro):
        if munro is None:
            return self.crime("a signature without its munro in the datagram", first)   # [1.6]
        if last - first != self.n - 1 or first % self.n:
            return self.crime("a munro of a wrong width", (first, last))
        if not verifies(self.id, self.wire.plaintext(first, last, stamp, munro), signature):
            return self.crime("a wrong signature", first)
        age = self.signer_now() - stamp                 # modulo 2^32 seconds
        age = signed64(age) / 2**32
        if age > FRESH or age < -FUTURE:
            return self.counts.update(["munros_out_of_time"])
        if age > KEPT + 1:
            self.crime("a subtree older than the window", f"{first}: {age:.1f} s")
        if signed64(stamp - self.named.get(first, stamp)) > 2**30:
            self.crime("HAVE before signed", first)
        if signed64(stamp - self.signer_now()) > 0:     # never back to a munro that came late
            self.newest_ntp, self.heard = stamp, time.monotonic()
        self.subtree(first).proven[first, last] = munro

    def signer_now(self):
        return (self.newest_ntp + int((time.monotonic() - self.heard) * 2**32)) % 2**64

    def settle(self, sub):
        """What came before its hashes is looked at again."""
        if not sub.settle():
            self.crime("leaves that are not under the munro", sub.first)
        loose, sub.loose = sub.loose, {}
        for chunk, (stamp, body) in loose.items():
            self.verify(sub, chunk, stamp, body)

    def data(self, chunk, last, stamp, body):
        if chunk != last or len(body) != self.wire.chunk:
            return self.crime("DATA of a wrong size", (chunk, last, len(body)))
        delay = signed64(now_us() - stamp)
        self.skew = delay if self.skew is None else self.skew
        if abs(delay - self.skew) > 10_000_000:
            self.crime("an absurd timestamp", (chunk, delay, self.skew))
        if self.mode == "pull" and not self.asked[chunk]:
            self.crime("push without consent", chunk)
        self.pushed |= not self.asked[chunk]
        if self.came[chunk] > self.asked[chunk] + (self.mode == "push"):
            self.crime("a chunk repeated unasked", chunk)
        self.counts["pushed"] += not self.asked[chunk]
        self.came_at[chunk], self.latest = time.monotonic(), max(chunk, self.latest)
        self.verify(self.subtree(chunk), chunk, stamp, body)

    def verify(self, sub, chunk, stamp, body):
        good = sub.check(chunk, digest(body))
        if good is None:
            if sub.first not in self.lost:
                self.crime("DATA before its hash", chunk)
            sub.loose[chunk] = (stamp, body)
        elif not good:
            self.crime("a chunk that was not signed", chunk)
        else:
            self.counts["duplicates"] += chunk in self.had
            self.counts["repairs"] += self.came[chunk] > 1 and chunk not in self.had
            self.accept(chunk, signed64(now_us() - stamp), body)

    def accept(self, chunk, delay, body):
        if chunk not in self.had and self.first is not None and chunk >= self.first:
            self.bodies[chunk] = body
        self.had.add(chunk)
        start = chunk - chunk % self.n
        whole = self.had.issuperset(range(start, start + self.n))
        self.send((ACK, chunk, chunk, delay), *[(HAVE, start, start + self.n - 1)] * whole)
        while self.next in self.bodies:
            self.out.write(self.bodies.pop(self.next))
            self.next += 1

    def holds(self, first, last, signed=(), pushed=False):
        if first % self.n or (last + 1) % self.n:
            self.crime("HAVE of part of a subtree", (first, last))
        self.oldest = first if self.oldest is None else self.oldest
        # Also what was named in datagrams that were lost.
        fresh = range(first if self.newest is None else self.newest + 1, last + 1, self.n)
        for start in fresh:
            self.named.setdefault(start, self.signer_now())
            if pushed and not self.subtree(start).munro() and start not in self.lost:
                self.crime("HAVE before the hash datagram of a push", start)
        self.newest = max(last, self.newest or 0)
        if self.mode == "push" and not self.pushed and fresh and not signed:
            start = last - self.n + 1
            if self.first is None:
                self.first = self.next = start
            self.request(range(start, last + 1))                    # consent [5]

    def want(self):
        """REQUESTs for what is missing, never beyond HAVE [1.8]."""
        now = time.monotonic()
        if self.newest is None or self.choked:
            return now - self.spoke > 1.0 and self.send()           # keepalive [1.1]
        end = self.newest + 1
        if self.mode == "pull":
            # Whoever asks for the newest subtree consents to be pushed [5].
            end -= LAG * self.n
            if self.first is None and end >= self.oldest + self.n:
                self.first = self.next = max(self.oldest, end - 4 * self.n)
            end = min(end, (self.next or 0) + AHEAD)
        if self.first is None:
            return None
        known = self.signer_now() - int(PATIENCE[self.mode] * 2**32)
        # Chunks without hashes wait, and one of each subtree is asked for to get them [5].
        waiting = [sub.loose for sub in self.subtrees.values() if sub.loose]
        heads = [min(loose) for loose in waiting]
        aside = {chunk for loose in waiting for chunk in loose}
        missing = [c for c in range(self.next, end) if c not in self.had and c not in aside
                   and signed64(known - self.named[c - c % self.n]) > 0]
        return self.request(c for c in sorted(missing + heads) if self.due(c, now))

    def due(self, chunk, now):
        """Answers come in order: what is missing before the latest chunk was lost."""
        lost = chunk <= self.latest and self.asked[chunk] < 2
        since = now - max(self.asked_at.get(chunk, 0), self.came_at.get(chunk, 0))
        return since > (HOLE if lost else AGAIN) and self.asked[chunk] <= TRIES

    def request(self, chunks):
        runs = []
        for chunk in chunks:
            if self.asked[chunk] == TRIES:
                self.crime("a REQUEST without answer", chunk)
            self.asked[chunk] += 1
            self.asked_at[chunk] = time.monotonic()
            if runs and runs[-1][2] == chunk - 1:
                runs[-1][2] = chunk
            else:
                runs.append([REQUEST, chunk, chunk])
        for at in range(0, len(runs), 32):
            self.send(*runs[at:at + 32])
