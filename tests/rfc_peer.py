#!/usr/bin/env python3
"""A second implementation of the swarm, written from its specification alone.

    rfc_peer.py leech --url http://relay:8080/live/NAME --mode push --seconds 10 --out FILE
    rfc_peer.py seed --ts FILE --listen HOST:PORT --http HOST:PORT --bitrate BPS --cam 4 --n 16
    rfc_peer.py selftest

The leech is a plain RFC 7574 peer (no private messages, one ACK per chunk); the seed is a source
that also knows SUBSCRIBE. Both write down by name whatever the other side must not do; the report
is JSON. SIGTERM ends both in good order: a close to everybody, then the report.

It needs Python 3.9 and the package `cryptography`.
"""
import argparse, json, signal, sys

sys.dont_write_bytecode = True              # the sources are nobody's place to write to
from cryptography.hazmat.primitives.asymmetric import ec
from rfc import leech, seed, selftest, wire


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    take = commands.add_parser("leech", help="take a stream, verify it, write it down")
    take.add_argument("--url", required=True, help="http://host:port/live/NAME")
    take.add_argument("--mode", choices=("push", "pull"), default="push")
    take.add_argument("--out", required=True, help="the verified bytes, without a gap")
    take.add_argument("--drop", type=float, default=0.0, help="share of datagrams to lose")
    take.add_argument("--seed", type=int, default=0, help="which ones")
    give = commands.add_parser("seed", help="be the source of a stream")
    give.add_argument("--ts", required=True, help="the stream, whole packets")
    give.add_argument("--listen", required=True, help="HOST:PORT of the swarm")
    give.add_argument("--http", required=True, help="HOST:PORT of swarm.json")
    give.add_argument("--bitrate", type=int, required=True)
    give.add_argument("--cam", type=int, choices=(2, 4), default=4)
    give.add_argument("--n", type=int, choices=(2, 4, 8, 16), default=16)
    give.add_argument("--base", type=int, default=1600, help="id of the first chunk")
    give.add_argument("--corrupt", type=int, default=0, help="spoil every Kth chunk", metavar="K")
    give.add_argument("--uncles", action="store_true", help="uncles instead of all leaves")
    give.add_argument("--key-seed", type=int, help="the private key, for a swarm id that stays")
    for command in (take, give):
        command.add_argument("--seconds", type=float, help="how long; a seed: to its end")
        command.add_argument("--report", help="where; else standard output")
    commands.add_parser("selftest", help="vectors, then leeches against seeds on loopback")
    return parser.parse_args()


def main():
    options = arguments()
    if options.command == "selftest":
        return selftest.run()
    if options.command == "leech":
        print(f"drop {options.drop} of the datagrams, seed {options.seed}", file=sys.stderr)
        side = leech.Leech(options.url, options.mode, options.seconds or 10.0, options.out,
                           options.drop, options.seed)
    else:
        key = options.key_seed and ec.derive_private_key(options.key_seed, ec.SECP256R1())
        with open(options.ts, "rb") as file:
            side = seed.Seed(file.read(), options.listen, options.http, options.bitrate,
                             options.cam, options.n, options.base, options.corrupt,
                             options.uncles, key, options.seconds)
        print(json.dumps({"swarm": wire.text(side.socket.getsockname()),
                          "http": wire.text(side.web.server_address)}), flush=True)
    signal.signal(signal.SIGTERM, lambda *_: side.stopping.set())
    signal.signal(signal.SIGINT, lambda *_: side.stopping.set())
    report = json.dumps(side.run(), indent=1)
    if options.report:
        with open(options.report, "w") as file:
            file.write(report + "\n")
    else:
        print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
