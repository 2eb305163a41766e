//! Private keys as `ssh-keygen` writes them (OpenSSH `PROTOCOL.key`), without the armour.
//!
//! Our own reader, for two reasons: `ssh-key` 0.6 refuses the one ECDSA key in 256 whose number
//! begins with a zero byte, and it brings thirty packages of an older generation.

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, RsaKeyPair,
};
use custody_core::Refusal;
use custody_core::key::PublicKey;
use custody_core::sshsig::{Wire, put_string};
use zeroize::Zeroizing;

use crate::keypair::{KeyPair, Secret, rejected};
use crate::unavailable;

const MAGIC: &[u8] = b"openssh-key-v1\0";
const CIPHER: &str = "aes256-ctr";
const KDF: &str = "bcrypt";
/// What `ssh-keygen` takes since OpenSSH 9.4.
const ROUNDS: u32 = 24;
/// Most rounds that are taken: the file says how many, and each takes milliseconds.
const MAX_ROUNDS: u32 = 1_024;
/// The cipher's block, to which the secret is padded.
const BLOCK: usize = 16;

/// The outside of a key file, whose public half is readable without a passphrase.
pub(crate) struct Container<'a> {
    pub(crate) public: PublicKey,
    cipher: &'a str,
    kdf: &'a str,
    kdf_options: &'a [u8],
    secret: &'a [u8],
}

impl<'a> Container<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let rest = bytes.strip_prefix(MAGIC);
        let mut wire = Wire(rest.ok_or_else(|| unavailable("", "openssh-key-v1", "other bytes"))?);
        let (cipher, kdf, kdf_options) = (wire.text()?, wire.text()?, wire.string()?);
        let count = wire.u32()?;
        if count != 1 {
            return Err(unavailable("", "one key in the file", count));
        }
        let (public, _) = PublicKey::from_ssh_blob(wire.string()?)?;
        Ok(Self { public, cipher, kdf, kdf_options, secret: wire.string()? })
    }

    pub(crate) fn open(
        &self,
        passphrase: &mut dyn FnMut() -> Result<Zeroizing<String>, Refusal>,
    ) -> Result<KeyPair, Refusal> {
        let mut secret = Zeroizing::new(self.secret.to_vec());
        match (self.cipher, self.kdf) {
            ("none", "none") => {}
            (CIPHER, KDF) => {
                let mut options = Wire(self.kdf_options);
                let (salt, rounds) = (options.string()?, options.u32()?);
                if rounds > MAX_ROUNDS {
                    let expected = format!("bcrypt with at most {MAX_ROUNDS} rounds");
                    return Err(unavailable("", expected, rounds));
                }
                apply_cipher(&passphrase()?, salt, rounds, &mut secret)?;
            }
            (cipher, _) => {
                return Err(unavailable("", format!("a file encrypted with {CIPHER}"), cipher));
            }
        }
        let mut wire = Wire(&secret);
        if wire.u32()? != wire.u32()? {
            return Err(unavailable("", "the passphrase of the file", "another"));
        }
        wire.text()?;
        KeyPair::new(read_secret(&self.public, wire)?)
    }
}

/// The private half of `public`. Kind and public numbers are repeated here, and skipped: aws-lc-rs checks
/// that the private ones belong to those outside.
fn read_secret(public: &PublicKey, mut wire: Wire<'_>) -> Result<Secret, Refusal> {
    match public {
        PublicKey::Ed25519(point) => {
            wire.string()?;
            let (seed, _) = wire.string()?.split_at_checked(32).unwrap_or_default();
            let pair = Ed25519KeyPair::from_seed_and_public_key(seed, point).map_err(rejected)?;
            Ok(Secret::Ed25519(pair))
        }
        PublicKey::EcdsaP256(point) => {
            wire.curve_point("nistp256")?;
            ecdsa::<32>(&ECDSA_P256_SHA256_FIXED_SIGNING, wire.mpint()?, point)
        }
        PublicKey::EcdsaP384(point) => {
            wire.curve_point("nistp384")?;
            ecdsa::<48>(&ECDSA_P384_SHA384_FIXED_SIGNING, wire.mpint()?, point)
        }
        PublicKey::Rsa { n, e } => {
            wire.mpint()?;
            wire.mpint()?;
            let (d, inverse, p, q) = (wire.mpint()?, wire.mpint()?, wire.mpint()?, wire.mpint()?);
            // the work grows with both lengths, and no honest number is longer than the modulus
            if [d, inverse, p, q].iter().any(|number| number.len() > n.len()) {
                return Err(unavailable("", "RSA numbers below the modulus", "longer ones"));
            }
            let (d_p, d_q) = (exponent(d, p), exponent(d, q));
            let components = KeyPairComponents {
                public_key: PublicKeyComponents { n, e },
                d,
                p,
                q,
                dP: d_p.as_slice(),
                dQ: d_q.as_slice(),
                qInv: inverse,
            };
            Ok(Secret::Rsa(RsaKeyPair::from_components(&components).map_err(rejected)?))
        }
        PublicKey::SkEd25519 { .. } | PublicKey::SkEcdsaP256 { .. } => {
            Err(unavailable("", "a key that is in the file", public.ssh_type()))
        }
    }
}

fn ecdsa<const WIDTH: usize>(
    algorithm: &'static EcdsaSigningAlgorithm,
    number: &[u8],
    point: &[u8],
) -> Result<Secret, Refusal> {
    let mut padded = Zeroizing::new([0; WIDTH]);
    padded.iter_mut().rev().zip(number.iter().rev()).for_each(|(to, from)| *to = *from);
    let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, padded.as_slice(), point);
    Ok(Secret::Ecdsa(pair.map_err(rejected)?))
}

/// d mod (prime - 1), big-endian: the form that OpenSSH leaves out and RSA needs. Shifts d in bit by
/// bit and always subtracts, keeping the difference by a mask, so that time tells nothing of the bits.
fn exponent(d: &[u8], prime: &[u8]) -> Zeroizing<Vec<u8>> {
    let width = prime.len() + 1;
    let mut modulus = Zeroizing::new(vec![0; width]);
    modulus.iter_mut().skip(1).zip(prime).for_each(|(to, from)| *to = *from);
    if let Some(last) = modulus.last_mut() {
        *last &= 0xfe;
    }
    let mut rest = Zeroizing::new(vec![0_u8; width]);
    let mut difference = Zeroizing::new(vec![0_u8; width]);
    for bit in d.iter().flat_map(|byte| (0..8).rev().map(move |i| byte >> i & 1)) {
        let (mut carry, mut borrow) = (bit, false);
        for (i, byte) in rest.iter_mut().enumerate().rev() {
            let out = *byte >> 7;
            *byte = *byte << 1 | carry;
            carry = out;
            (difference[i], borrow) = byte.borrowing_sub(modulus[i], borrow);
        }
        let keep = 0_u8.wrapping_sub(u8::from(borrow));
        rest.iter_mut().zip(difference.iter()).for_each(|(r, d)| *r = *r & keep | *d & !keep);
    }
    rest
}

/// Encrypts or decrypts: in counter mode both are the same.
fn apply_cipher(
    passphrase: &str,
    salt: &[u8],
    rounds: u32,
    bytes: &mut [u8],
) -> Result<(), Refusal> {
    let fault = |error: &dyn ToString| unavailable("", "bcrypt and AES-256-CTR", error.to_string());
    let mut derived = Zeroizing::new([0; 48]);
    bcrypt_pbkdf::bcrypt_pbkdf(passphrase, salt, rounds, derived.as_mut_slice())
        .map_err(|error| fault(&error))?;
    let (key, iv) = derived.split_at(32);
    let iv = FixedLength::<16>::try_from(iv);
    let key = UnboundCipherKey::new(&AES_256, key).and_then(DecryptingKey::ctr);
    let done = iv.and_then(|iv| key?.decrypt(bytes, DecryptionContext::Iv128(iv)).map(|_| ()));
    done.map_err(|error| fault(&error))
}

/// The file's bytes. `fields` are the key's type and numbers in the private order.
pub(crate) fn encode(
    public: &PublicKey,
    fields: &[u8],
    comment: &str,
    passphrase: Option<&str>,
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let mut random = [0; 4 + BLOCK];
    aws_lc_rs::rand::fill(&mut random).map_err(|error| unavailable("", "randomness", error))?;
    let (check, salt) = random.split_at(4);
    let mut secret = Zeroizing::new(Vec::with_capacity(fields.len() + comment.len() + 64));
    secret.extend_from_slice(check);
    secret.extend_from_slice(check);
    secret.extend_from_slice(fields);
    put_string(&mut secret, comment.as_bytes());
    let padding = secret.len().next_multiple_of(BLOCK) - secret.len();
    secret.extend((1..=u8::MAX).take(padding));

    let (mut cipher, mut kdf, mut options) = ("none", "none", Vec::new());
    if let Some(passphrase) = passphrase {
        apply_cipher(passphrase, salt, ROUNDS, &mut secret)?;
        (cipher, kdf) = (CIPHER, KDF);
        put_string(&mut options, salt);
        options.extend_from_slice(&ROUNDS.to_be_bytes());
    }
    let mut file = Zeroizing::new(Vec::with_capacity(secret.len() + 512));
    file.extend_from_slice(MAGIC);
    put_string(&mut file, cipher.as_bytes());
    put_string(&mut file, kdf.as_bytes());
    put_string(&mut file, &options);
    file.extend_from_slice(&1_u32.to_be_bytes());
    put_string(&mut file, &public.to_ssh_blob());
    put_string(&mut file, &secret);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Signer as _;
    use custody_core::encoding::hex_decode;
    use custody_core::sshsig::mpint;

    #[test]
    fn a_number_that_begins_with_zero_bytes_is_read() {
        // The generator of P-256: the public half of the number 1.
        let x = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
        let y = "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
        let point = hex_decode(&format!("04{x}{y}")).unwrap();
        let public = PublicKey::EcdsaP256(point.try_into().unwrap());
        let mut fields = public.to_ssh_blob();
        put_string(&mut fields, &[1]);
        let file = encode(&public, &fields, "", None).unwrap();
        let pair = Container::parse(&file).unwrap().open(&mut || unreachable!()).unwrap();
        assert_eq!(*pair.public_key(), public);
        pair.sign_plain(b"message").unwrap();
    }

    #[test]
    fn rsa_numbers_longer_than_the_modulus_are_refused() {
        let public = PublicKey::Rsa { n: vec![0xff; 256], e: vec![1, 0, 1] };
        let refusal = |longest: usize| {
            let mut fields = Vec::new();
            put_string(&mut fields, b"ssh-rsa");
            put_string(&mut fields, &mpint(&[0xff; 256]));
            put_string(&mut fields, &[1, 0, 1]);
            for length in [longest, 128, 128, 128] {
                put_string(&mut fields, &vec![0x7f; length]);
            }
            let file = encode(&public, &fields, "", None).unwrap();
            Container::parse(&file).unwrap().open(&mut || unreachable!()).unwrap_err().expected
        };
        assert!(refusal(257).contains("modulus"));
        // these are asked about, and are no key
        assert!(!refusal(256).contains("modulus"));
    }

    #[test]
    fn the_exponent_is_the_remainder() {
        let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |n, byte| n << 8 | u128::from(*byte));
        for (d, prime) in [
            (0_u128, 3_u128),
            (1, 3),
            (10, 3),
            (0xffff_ffff_ffff, 0x1_0001),
            (u128::MAX, (1 << 61) - 1),
            (5, u128::MAX),
        ] {
            let rest = exponent(&d.to_be_bytes(), &prime.to_be_bytes());
            assert_eq!(number(&rest[1..]), d % (prime - 1), "{d} {prime}");
        }
    }
}
