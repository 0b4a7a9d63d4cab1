"""The vectors of the specification, then leeches against seeds on loopback, all at once."""
import hmac, os, random, socket, tempfile, threading
from types import SimpleNamespace as Record
from rfc.leech import Leech
from rfc.seed import Seed
from rfc.wire import *

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
STAMP, TIME, CHANNEL = 0xED00378000000000, 0x0006474846204000, 0xA1B2C3D4
BITRATE, SECONDS = 1_500_000, 4.0


def rfc6979(secret, text):
    """The deterministic signature of RFC 6979, 3.2: P-256, SHA-256."""
    value = int.from_bytes(digest(text), "big") % ORDER
    seed = secret.to_bytes(32, "big") + value.to_bytes(32, "big")
    key, block = bytes(32), b"\1" * 32
    for step in (b"\0", b"\1"):
        key = hmac.digest(key, block + step + seed, "sha256")
        block = hmac.digest(key, block, "sha256")
    nonce = int.from_bytes(hmac.digest(key, block, "sha256"), "big")
    assert 0 < nonce < ORDER
    point = ec.derive_private_key(nonce, ec.SECP256R1()).public_key().public_numbers()
    s = pow(nonce, -1, ORDER) * (value + point.x * secret) % ORDER
    return (point.x % ORDER).to_bytes(32, "big") + s.to_bytes(32, "big")


def subtree(wire, n):
    """Chunk k = bytes of value k, private scalar 1."""
    leaves = [digest(bytes([k]) * wire.chunk) for k in range(n)]
    sub = Record(first=0, last=n - 1, leaves=leaves, munro=merkle(leaves), ntp=STAMP)
    sub.signature = rfc6979(1, wire.plaintext(0, n - 1, STAMP, sub.munro))
    return sub


def check_vectors():
    path = os.path.join(os.path.dirname(__file__), "vectors.txt")
    with open(path) as file:
        lines = [line.split() for line in file if not line.startswith("#")]
    vector = {name: bytes.fromhex(text) for name, text in lines}
    key = ec.derive_private_key(1, ec.SECP256R1())
    small, wide, full = Wire(2, 32), Wire(4, 32), Wire(4)
    for name, datagram in vector.items():
        if name[0] in "DE":             # every datagram is read and written again
            wire = small if name[0] == "D" else full if name in ("E1", "E2") else wide
            found, broken = wire.parse(datagram)
            channel = int.from_bytes(datagram[:4], "big")
            assert not broken and wire.build(channel, *found) == datagram, name
    parsed = {name: wire.parse(vector[name])[0] for name, wire in
              (("D1", small), ("D4", small), ("E1", full), ("E7", wide))}
    assert parsed["D1"][0][2] == small.options(4096, PLAIN, swarm_id(key))
    private = bytes.fromhex("fffc00000000e0")
    assert parsed["E1"][0][2] == full.options(4096, private, swarm_id(key))
    assert parsed["E7"] == [(ACK, 0, 15, 25_000)]
    for wire, text, signature in ((small, "P2", "S2"), (wide, "P4", "S4")):
        sub = subtree(wire, 4)
        assert wire.plaintext(0, 3, STAMP, sub.munro) == vector[text], text
        assert sub.signature == vector[signature], signature
        assert verifies(swarm_id(key), vector[text], sub.signature)
        assert not verifies(swarm_id(key), vector[text] + b"\0", sub.signature)
    # D4 carries uncles: they prove chunk 0 and no other.
    tree, (_, _, stamp, body) = Subtree(0, 4), parsed["D4"][-1][:1] + parsed["D4"][-1][2:]
    tree.claims = {(m[1], m[2]): m[3] for m in parsed["D4"] if m[0] == INTEGRITY}
    tree.proven = {(0, 3): tree.claims.pop((0, 3))}
    assert stamp == TIME and tree.check(2, digest(body)) is None
    assert tree.check(0, digest(body + b"x")) is False and tree.check(0, digest(body))
    assert wide.hash_datagram(CHANNEL, subtree(wide, 4)) == vector["E4"]
    sub = subtree(full, 16)
    assert (sub.munro, sub.signature) == (vector["M4"], vector["S16"])
    head = full.hash_datagram(CHANNEL, sub)
    train = head + b"".join(full.build(CHANNEL, (DATA, k, k, TIME, bytes([k]) * CHUNK))
                            for k in range(16))
    assert digest(head) == vector["H16"] and digest(train) == vector["T16"]


def refuse_garbage(rounds=20_000):
    """Any bytes are read or refused, without another exception."""
    rng, wire = random.Random(7), Wire(4)
    for _ in range(rounds):
        body = bytes(rng.choices((*range(15), 0x30, 255), k=rng.randrange(60)))
        found, broken = wire.parse(bytes(4) + body)
        assert broken or all(message[0] in NAMES for message in found)


class Rude(Seed):
    """A source that does what it must not, for the leech to name."""

    def spread(self, s, sub):
        self.send(s, (HAVE, sub.first + self.n, sub.last + self.n))
        self.send(s, (DATA, sub.first, sub.first, now_us(), self.chunk(sub.first)))
        self.send(s, (DATA, sub.last, sub.last, 5, self.chunk(sub.last)[:-1]))
        super().spread(s, sub)
        self.send_data(s, sub, sub.last)


RUDE = {"DATA before its hash", "a chunk repeated unasked", "DATA of a wrong size",
        "HAVE before the hash datagram of a push"}


def pair(name, mode, directory, problems, host="127.0.0.1", drop=0.05, corrupt=0, lose=1,
         **profile):
    """One leech at one seed; what it wrote must be what was sent."""
    try:
        ts = b"".join(b"\x47" + random.Random(k).randbytes(187) for k in range(7000))
        source = Rude if name == "rude" else Seed
        seed = source(ts, f"{host}:0", f"{host}:0", BITRATE, corrupt=corrupt,
                      seconds=SECONDS + 3, **profile)
        out, done = os.path.join(directory, name), {}
        thread = threading.Thread(target=lambda: done.update(seed.run()))
        thread.start()
        while len(seed.subs) < 8:
            seed.stopping.wait(0.02)
        url = "http://%s:%d/live/x" % (host, seed.web.server_address[1])
        took = Leech(url, mode, SECONDS, out, drop, lose).run()
        seed.stopping.set()
        thread.join()
        judge(name, mode, drop, corrupt, seed, took, done, out)
    except BaseException as why:
        problems.append(f"{name}: {why!r}")


def judge(name, mode, drop, corrupt, seed, took, gave, out):
    with open(out, "rb") as file:
        written = file.read()
    at = (took["first"] - seed.base) * CHUNK
    assert written == seed.ts[at:at + len(written)], "the bytes differ"
    assert len(written) == took["written"] * CHUNK
    crimes = took["violations"]
    if corrupt:
        good = (corrupt - 1 - took["first"]) % corrupt
        assert took["written"] == good, "a bad chunk was written or a good one not"
        assert set(crimes) <= {"a chunk that was not signed", "a REQUEST without answer"}
        assert crimes["a chunk that was not signed"] > 0
    elif name == "rude":
        assert set(crimes) == RUDE, crimes
    else:
        assert not crimes, (crimes, took["examples"])
        assert took["chunks"] > SECONDS * BITRATE / 8 / CHUNK / 2, took
        assert took.get("repairs", 0) > 0 or not drop, took
    assert mode == "pull" or took["pushed"] > 0
    assert name == "rude" or not gave["violations"], (gave["violations"], gave["examples"])
    assert gave["sessions"][0]["closed"], gave
    print(f"ok {name}: {took}\n", end="")          # one write: threads share the line


def run():
    check_vectors()
    refuse_garbage()
    print("ok vectors")
    problems, runs = [], [
        ("push4", "push", dict(cam=4)), ("push2", "push", dict(cam=2)),
        ("pull4", "pull", dict(cam=4)), ("pull2", "pull", dict(cam=2, n=4)),
        ("uncles", "push", dict(n=8, uncles=True)), ("corrupt", "push", dict(corrupt=101)),
        ("rude", "push", dict(drop=0.0)),
        ("clean", "push", dict(n=2, drop=0.0, host="::1" if socket.has_ipv6 else "127.0.0.1"))]
    with tempfile.TemporaryDirectory() as directory:
        threads = [threading.Thread(target=pair, args=(name, mode, directory, problems),
                                    kwargs=dict(profile, lose=number))
                   for number, (name, mode, profile) in enumerate(runs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for problem in problems:
        print("FAILED", problem)
    return 1 if problems else 0
