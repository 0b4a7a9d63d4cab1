//! The vectors of protocol.md, sections 4 and 7, and keys that come and go.

use super::*;
use crate::base::limits::CHUNK;

/// The P-256 base point: the public key of the private scalar 1.
const ID: &str = "0d6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                  4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
const MUNRO: &str = "4fc5f858a182a0445d5ec5bf71477fd9e076bf383f1ba8090e1809eeaacce894";
const NTP: u64 = 0xed00_3780_0000_0000;

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    let digits = hex.as_bytes().chunks_exact(2);
    let pairs = digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap());
    pairs.collect::<Vec<u8>>().try_into().unwrap()
}

/// Chunk k is bytes of value k.
fn leaves(count: u8, size: usize) -> Vec<Hash> {
    (0..count).map(|k| leaf(&vec![k; size])).collect()
}

fn verifies(text: &Plaintext, signature: &str) -> bool {
    let id = ID.parse().unwrap();
    Real::default().verify(&id, text.as_ref(), &bytes(signature))
}

#[test]
fn hashes_are_those_of_the_vectors() {
    let leaves = leaves(4, 32);
    assert_eq!(
        leaves.as_slice(),
        [
            "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925",
            "72cd6e8422c407fb6d098690f1130b7ded7ec2f7f5e1d30bd9d521f015363793",
            "75877bb41d393b5fb8455ce60ecd8dda001d06316496b14dfa7f895656eeca4a",
            "648aa5c579fb30f38af744d97d6ec840c7a91277a499a0d780f3e7314eca090b",
        ]
        .map(bytes)
    );
    assert_eq!(munro(&leaves), bytes(MUNRO));
    let uncle = "10939918674b58bbf7a19e380c334642ef87c5109559c9e9ca0ca24278944d5e";
    assert_eq!(munro(&leaves[2..]), bytes(uncle));
    assert_eq!(
        munro(&self::leaves(16, CHUNK)),
        bytes("53f22faac729da361bc2d7f21b2fd6d84693716bd713798aec39aca636cb8157")
    );
    assert_eq!(munro(&leaves[..1]), leaves[0]);
    for wrong in [0, 3] {
        assert_eq!(munro(&leaves[..wrong]), [0; 32], "no tree of {wrong}");
    }
    assert_eq!(munro(&self::leaves(32, 1)), [0; 32], "no tree of 32");
}

#[test]
fn signatures_of_the_vectors_verify_and_no_others() {
    let four = Span { first: 0, last: 3 };
    let narrow = plaintext(Addressing::Chunks32, four, NTP, &bytes(MUNRO));
    assert_eq!(narrow.as_ref(), bytes::<48>(&format!("0000000000000003ed00378000000000{MUNRO}")));
    let signature = "59ba2c67f8f9f9da4f77d21a43a2afbd107d6e3bed5dcdbbc0ab26aec6752676\
                     1f5a5e3fc3645942417041664ef3ae7473a880601637143e5dce2a591e420ee6";
    assert!(verifies(&narrow, signature));

    let wide = plaintext(Addressing::Chunks64, four, NTP, &bytes(MUNRO));
    let text = format!("00000000000000000000000000000003ed00378000000000{MUNRO}");
    assert_eq!(wide.as_ref(), bytes::<56>(&text));
    assert!(!verifies(&wide, signature), "of the other addressing");
    let signature = "068527484d0517fdff16f6127822254f9483c55bafbdc8d87e97d7e54a317f5a\
                     8b24a4687b852c04e46e9b3c98bae42320ded3397804f980924fd453fb0a578a";
    assert!(verifies(&wide, signature));
    let later = plaintext(Addressing::Chunks64, four, NTP + 1, &bytes(MUNRO));
    assert!(!verifies(&later, signature), "of another time");

    let all = Span { first: 0, last: 15 };
    let text = plaintext(Addressing::Chunks64, all, NTP, &munro(&leaves(16, CHUNK)));
    assert!(verifies(
        &text,
        "8882c778c74f0fb64a5c71ffec1416e41c06efcae518d3f232ceaa184c03add7\
         ff104c723fea8d8baf458e3e587b3a01c9921deb60ef6a6c03e62e4b71abfc5a"
    ));
}

#[test]
fn the_name_of_a_swarm_is_its_public_key() {
    let mut one = [0; 32];
    one[31] = 1;
    let id: SwarmId = ID.parse().unwrap();
    let pair = KeyPair::from_private(&one, &id.point()).unwrap();
    assert_eq!(pair.swarm_id(), id);
    assert_eq!(id.to_string(), ID);
    assert_eq!(SwarmId::from_bytes(id.as_bytes()), Ok(id));
    let text = plaintext(Addressing::Chunks64, Span { first: 16, last: 31 }, NTP, &[7; 32]);
    let signature = pair.sign(text.as_ref()).unwrap();
    assert!(Real::default().verify(&id, text.as_ref(), &signature));
    assert_eq!(ID[..128].parse::<SwarmId>(), Err(BadSwarmId::Length));
    assert_eq!(ID.replace("0d6", "0e6").parse::<SwarmId>(), Err(BadSwarmId::Algorithm));
    assert_eq!(ID.replace("0d6", "0dx").parse::<SwarmId>(), Err(BadSwarmId::Digit));
    assert_eq!(SwarmId::from_bytes(&[13; 64]), Err(BadSwarmId::Length));
}

#[test]
fn a_key_that_was_kept_is_the_same_key() {
    let first = KeyPair::generate().unwrap();
    let again = KeyPair::from_pkcs8(&first.pkcs8().unwrap()).unwrap();
    assert_eq!(again.swarm_id(), first.swarm_id());
    let other = KeyPair::generate().unwrap();
    assert_ne!(other.swarm_id(), first.swarm_id());
    let mut verifier = Real::default();
    let signature = again.sign(b"text").unwrap();
    assert!(verifier.verify(&first.swarm_id(), b"text", &signature));
    assert!(!verifier.verify(&other.swarm_id(), b"text", &signature));
    assert!(verifier.verify(&first.swarm_id(), b"text", &signature), "after another key");
    assert!(!verifier.verify(&first.swarm_id(), b"tex", &signature));
    let shown = format!("{first:?}");
    assert_eq!(shown, format!("KeyPair({})", first.swarm_id()), "no secret in it");
    for bad in [&b""[..], b"no key", &first.pkcs8().unwrap()[1..]] {
        assert!(KeyPair::from_pkcs8(bad).is_err());
    }
}

#[test]
fn a_key_off_the_curve_verifies_nothing() {
    let off = SwarmId::from_bytes(&[ALGORITHM; 65]).unwrap();
    let mut verifier = Real::default();
    assert!(!verifier.verify(&off, b"text", &[1; 64]));
    let pair = KeyPair::generate().unwrap();
    assert!(verifier.verify(&pair.swarm_id(), b"text", &pair.sign(b"text").unwrap()));
}

const ALGORITHM: u8 = 13;
