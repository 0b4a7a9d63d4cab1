"""The wire of the swarm: messages, handshakes, hashes and sockets, from the specification alone.

Numbers in brackets are sections of the protocol's specification: 1.x is RFC 7574, 5 the profile.
"""
import collections, hashlib, select, socket, struct, threading, time
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

(HANDSHAKE, DATA, ACK, HAVE, INTEGRITY, PEX4, PEX_REQ, SIGNED, REQUEST, CANCEL, CHOKE, UNCHOKE,
 PEX6, PEX_CERT) = range(14)                                                            # [1.3]
PRIVATE = SUBSCRIBE, STATE, TOKEN, REPORT, BYE = 0x30, 0x31, *range(0x33, 0x36)         # [5]
NAMES = dict(zip((*range(14), *PRIVATE), (
    "HANDSHAKE DATA ACK HAVE INTEGRITY PEX4 PEX_REQ SIGNED REQUEST CANCEL CHOKE UNCHOKE PEX6 "
    "PEX_CERT SUBSCRIBE STATE TOKEN REPORT BYE").split()))
# Behind the type: a chunk specification, a number, bytes (REST: up to a chunk; LENGTH: counted).
REST, LENGTH = "rest", "length"
LAYOUT = {DATA: (1, "Q", REST), ACK: (1, "q", 0), HAVE: (1, "", 0), INTEGRITY: (1, "", 32),
          SIGNED: (1, "Q", 64), REQUEST: (1, "", 0), CANCEL: (1, "", 0), PEX4: (0, "", 6),
          PEX6: (0, "", 18), PEX_REQ: (0, "", 0), CHOKE: (0, "", 0), UNCHOKE: (0, "", 0),
          **dict.fromkeys((PEX_CERT, *PRIVATE), (0, "", LENGTH))}
BODIES = {SUBSCRIBE: 13, STATE: 18, REPORT: 40, BYE: 1}                                 # [5]
(VERSION, MINIMUM, SWARM, METHOD, HASH, SIGNATURE, ADDRESSING, WINDOW, MESSAGES, CHUNK_SIZE,
 END) = (*range(10), 255)                                                               # [1.4]
PLAIN, OURS = bytes.fromhex("f9f0"), bytes.fromhex("fffc00000000dc")  # all but PEX; with private
CHUNK, NULL_PACKET = 1316, b"\x47\x1f\xff\x10" + b"\xff" * 184
NTP_EPOCH, NEXT_SUBTREE = 2208988800, 2**64 - 1


def digest(data):
    return hashlib.sha256(data).digest()


def merkle(leaves):
    while len(leaves) > 1:
        leaves = [digest(a + b) for a, b in zip(leaves[::2], leaves[1::2])]
    return leaves[0]


def ntp(unix):
    return int((unix + NTP_EPOCH) * 2**32) % 2**64


def signed64(number):
    return (number + 2**63) % 2**64 - 2**63


def swarm_id(key):
    """Algorithm 13, x, y [1.4]."""
    point = key.public_key().public_numbers()
    return b"\x0d" + point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big")


def sign(key, text):
    r, s = utils.decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def verifies(identity, text, signature):
    x, y, r, s = (int.from_bytes(half, "big") for half in
                  (identity[1:33], identity[33:], signature[:32], signature[32:]))
    try:
        public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        public.verify(utils.encode_dss_signature(r, s), text, ec.ECDSA(hashes.SHA256()))
        return True
    except (InvalidSignature, ValueError):
        return False


class Wire:
    """Datagrams of one swarm. A message is a tuple: its type, then its fields in wire order."""

    def __init__(self, cam, chunk=CHUNK):
        self.cam, self.chunk, self.ids = cam, chunk, {2: "II", 4: "QQ"}[cam]            # [1.2]
        self.data_size = 4 + 1 + 4 * cam + 8 + chunk

    def plaintext(self, first, last, stamp, munro):
        return struct.pack(">" + self.ids + "Q", first, last, stamp) + munro            # [1.6]

    def options(self, window, messages, identity=None):
        initiator = {MINIMUM: b"\1", SWARM: identity} if identity else {}
        return {VERSION: b"\1", METHOD: b"\3", HASH: b"\2", SIGNATURE: b"\x0d", **initiator,
                ADDRESSING: bytes([self.cam]), WINDOW: window.to_bytes(2 * self.cam, "big"),
                MESSAGES: messages, CHUNK_SIZE: self.chunk.to_bytes(4, "big")}

    def build(self, channel, *messages):
        return channel.to_bytes(4, "big") + b"".join(map(self.encode, messages))

    def encode(self, message):
        kind, *fields = message
        if kind == HANDSHAKE:
            out = bytes([kind]) + fields[0].to_bytes(4, "big")
            for code, value in sorted(fields[1].items()):
                size = {SWARM: 2, MESSAGES: 1}.get(code, 0)
                out += bytes([code]) + (len(value).to_bytes(size, "big") if size else b"") + value
            return out + bytes([END])
        spec, number, tail = LAYOUT[kind]
        body = fields.pop() if tail else b""
        head = struct.pack(">B" + self.ids * spec + number, kind, *fields)
        return head + (len(body).to_bytes(2, "big") if tail == LENGTH else b"") + body

    def parse(self, datagram):
        """The messages up to the first broken one [1.1], and whether there was one."""
        at, found = 4, []
        try:
            while at < len(datagram):
                message, at = (self.opening if datagram[at] == HANDSHAKE else self.other)(
                    datagram, at)
                found.append(message)
        except (ValueError, KeyError, IndexError, struct.error):
            return found, True
        return found, False

    def other(self, datagram, at):
        spec, number, tail = LAYOUT[datagram[at]]
        head = ">B" + self.ids * spec + number
        fields = struct.unpack_from(head, datagram, at)
        at += struct.calcsize(head)
        size = min(self.chunk, len(datagram) - at) if tail == REST else tail
        if tail == LENGTH:
            at, size = at + 2, struct.unpack_from(">H", datagram, at)[0]
        if at + size > len(datagram) or spec and fields[1] > fields[2]:
            raise ValueError
        return fields + ((datagram[at:at + size],) if tail else ()), at + size

    def opening(self, datagram, at):
        """A handshake with its options, sorted and each once [1.4]."""
        channel, found, last = struct.unpack_from(">I", datagram, at + 1)[0], {}, -1
        at += 5
        while (code := datagram[at]) != END:
            at, size = at + 1, 4 if code == CHUNK_SIZE else 1
            if code == WINDOW:
                size = 8 if found.get(ADDRESSING) in (b"\3", b"\4") else 4
            elif code in (SWARM, MESSAGES):
                prefix = 2 if code == SWARM else 1
                at, size = at + prefix, int.from_bytes(datagram[at:at + prefix], "big")
            if not last < code <= CHUNK_SIZE or at + size > len(datagram):
                raise ValueError
            found[code], last, at = datagram[at:at + size], code, at + size
        return (HANDSHAKE, channel, found), at + 1

    def hash_datagram(self, channel, sub, uncles=False):
        """munro, signature, all leaves, HAVE; padded where that costs at most a third [5]."""
        leaves = [] if uncles else [(INTEGRITY, sub.first + i, sub.first + i, leaf)
                                    for i, leaf in enumerate(sub.leaves)]
        out = self.build(channel, (INTEGRITY, sub.first, sub.last, sub.munro),
                         (SIGNED, sub.first, sub.last, sub.ntp, sub.signature), *leaves,
                         (HAVE, sub.first, sub.last))
        pad = self.data_size - len(out)
        return out + bytes([UNCHOKE]) * (pad if 0 < pad <= self.data_size // 3 else 0)


class Subtree:
    """Hashes under one munro: proven ones, and claims that may lead a chunk to a proven one."""

    def __init__(self, first, n):
        self.first, self.n, self.proven, self.claims, self.loose = first, n, {}, {}, {}

    def munro(self):
        return self.proven.get((self.first, self.first + self.n - 1))

    def settle(self):
        """A full list of leaves is proven by the munro at once. False: the list is a lie."""
        spans = [(c, c) for c in range(self.first, self.first + self.n)]
        leaves = [self.claims.get(span) for span in spans]
        if self.munro() is None or None in leaves or spans[0] in self.proven:
            return True
        self.proven |= dict(zip(spans, leaves)) if merkle(leaves) == self.munro() else {}
        return spans[0] in self.proven

    def check(self, chunk, value):
        """True: that chunk was signed. False: another was. None: hashes are missing."""
        span, path = (chunk, chunk), {}
        while span not in self.proven:
            width = span[1] - span[0] + 1
            other = (span[0] ^ width, (span[0] ^ width) + width - 1)
            uncle = self.proven.get(other) or self.claims.get(other)
            if width >= self.n or uncle is None:
                return None
            path |= {span: value, other: uncle}
            value = digest(value + uncle if span < other else uncle + value)
            span = (min(span[0], other[0]), max(span[1], other[1]))
        self.proven |= path if self.proven[span] == value else {}
        return self.proven[span] == value


def now_us():
    return time.monotonic_ns() // 1000


def text(address):
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Side:
    """One side of the wire, and what the other side did that it must not do."""

    def __init__(self, address):
        self.violations, self.examples = collections.Counter(), {}
        self.counts = collections.Counter()
        host, port = address.rsplit(":", 1)
        family, _, _, _, where = socket.getaddrinfo(
            host.strip("[]"), int(port), 0, socket.SOCK_DGRAM)[0]
        self.address, self.socket = where[:2], socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.setblocking(False)
        self.stopping = threading.Event()

    def crime(self, name, detail=""):
        self.violations[name] += 1
        self.examples.setdefault(name, str(detail))

    def receive(self, wait):
        """What comes in; ends after `wait` seconds of silence, or 64 datagrams."""
        for _ in range(64):
            try:
                if not select.select([self.socket], [], [], wait)[0]:
                    return
                datagram, sender = self.socket.recvfrom(65536)
            except (BlockingIOError, ConnectionRefusedError):
                return
            yield datagram, sender[:2]
            wait = 0

    def report(self, **more):
        return {**more, **self.counts, "violations": self.violations, "examples": self.examples}
