//! Who signs a world's stream: a key that the seed decides, and signatures that the key and the
//! text decide (RFC 6979). So not even signatures differ from one run to the next, and the
//! world's digest covers them.
//!
//! The library of the relay's own keys draws the number that each signature needs, and takes none
//! from outside. So another one signs here, and what it has signed the relay's library checks.

use std::fmt;

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature as Pair, SigningKey};

use crate::sim::dice::Dice;
use crate::swarm::integrity::{CannotSign, Signature, Signer, SwarmId};

/// A key of a world.
pub struct Scribe {
    key: SigningKey,
    id: SwarmId,
}

impl Scribe {
    /// The key that these dice decide.
    ///
    /// # Errors
    /// In words, if they do not fall as dice do.
    pub fn new(mut dice: Dice) -> Result<Scribe, String> {
        // One number in four billion is no key.
        let numbers = std::iter::repeat_with(|| {
            let mut number = [0; 32];
            number
                .chunks_mut(8)
                .for_each(|part| part.copy_from_slice(&dice.number().to_be_bytes()));
            number
        });
        let key = numbers.take(8).find_map(|number| Scribe::of(&number));
        key.ok_or_else(|| "no number is a key".to_owned())
    }

    /// The key of this number, if it is one.
    fn of(number: &[u8; 32]) -> Option<Scribe> {
        let key = SigningKey::from_slice(number).ok()?;
        let point = key.verifying_key().to_sec1_point(false);
        Some(Scribe { id: SwarmId::of_point(point.as_bytes()).ok()?, key })
    }
}

impl fmt::Debug for Scribe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scribe({})", self.id)
    }
}

impl Signer for Scribe {
    fn swarm_id(&self) -> SwarmId {
        self.id
    }

    fn sign(&self, plaintext: &[u8]) -> Result<Signature, CannotSign> {
        let pair: Pair = self.key.try_sign(plaintext).map_err(|_| CannotSign)?;
        Ok(pair.to_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::integrity::{Real, Verifier};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02X}")).collect()
    }

    #[test]
    fn it_signs_as_rfc_6979_does() {
        let number = "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721";
        let number: Vec<u8> =
            (0..32).map(|n| u8::from_str_radix(&number[2 * n..2 * n + 2], 16).unwrap()).collect();
        let scribe = Scribe::of(number[..].try_into().unwrap()).unwrap();
        //= https://www.rfc-editor.org/rfc/rfc6979#appendix-A.2.5
        //# Ux = 60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6
        //# Uy = 7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299
        //# With SHA-256, message = "sample":
        //# r = EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716
        //# s = F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8
        assert_eq!(
            hex(scribe.swarm_id().as_bytes()),
            "0D60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6\
             7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"
        );
        assert_eq!(
            hex(&scribe.sign(b"sample").unwrap()),
            "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716\
             F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"
        );
    }

    #[test]
    fn the_seed_decides_the_key_and_the_relay_accepts_what_it_signed() {
        let scribe = |seed| Scribe::new(Dice::new(seed, "key", 0)).unwrap();
        let (one, again, other) = (scribe(1), scribe(1), scribe(2));
        assert_eq!(one.swarm_id(), again.swarm_id());
        assert_ne!(one.swarm_id(), other.swarm_id());
        let signature = one.sign(b"text").unwrap();
        assert_eq!(again.sign(b"text"), Ok(signature));
        let mut real = Real::default();
        assert!(real.verify(&one.swarm_id(), b"text", &signature));
        assert!(!real.verify(&other.swarm_id(), b"text", &signature));
        assert!(!real.verify(&one.swarm_id(), b"next", &signature));
    }
}
