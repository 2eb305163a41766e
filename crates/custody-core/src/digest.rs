//! SHA-256, which decides, and SHA-512, which may stand beside it.

use alloc::format;
use alloc::string::String;
use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

use crate::encoding::{hex, hex_decode_exact};
use crate::{Code, Refusal, crypto};

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident, $len:literal, $algorithm:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Name of the algorithm in a digest set.
            pub const ALGORITHM: &str = $algorithm;

            /// A digest from its bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes of the digest.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl Ord for $name {
            /// In the order of the bytes. Of two digests the first bytes differ as a rule, and one number
            /// is compared faster than a string of bytes.
            fn cmp(&self, other: &Self) -> Ordering {
                let head = |digest: &Self| digest.0.first_chunk().copied().map(u64::from_be_bytes);
                head(self).cmp(&head(other)).then_with(|| self.0.cmp(&other.0))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl FromStr for $name {
            type Err = Refusal;

            /// Reads full-length lower-case hexadecimal, the only accepted form.
            fn from_str(text: &str) -> Result<Self, Refusal> {
                hex_decode_exact(text).map(Self).ok_or_else(|| {
                    let shown: String = text.chars().take(140).collect();
                    Refusal::new(
                        Code::StmtDigestFormat,
                        $algorithm,
                        format!("{} lower-case hexadecimal digits", $len * 2),
                        shown,
                    )
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{self}", $algorithm)
            }
        }
    };
}

digest_type!(
    /// A SHA-256 digest: of an artifact, or as the id of a statement.
    Sha256, 32, "sha256"
);
digest_type!(
    /// A SHA-512 digest, recognised beside SHA-256 and never instead of it.
    Sha512, 64, "sha512"
);

impl Sha256 {
    /// The digest of bytes at hand.
    pub fn of(bytes: &[u8]) -> Self {
        Self(crypto::sha256(bytes))
    }

    /// The first 12 hexadecimal digits, for showing only. Nothing is ever found by them.
    pub fn short(&self) -> String {
        self.0.first_chunk::<6>().map_or_else(String::new, |start| hex(start))
    }
}

/// The digests of one artifact: SHA-256 always, SHA-512 where it was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digests {
    /// The digest that decides.
    pub sha256: Sha256,
    /// The second digest; where both sides have one it must match too.
    pub sha512: Option<Sha512>,
}

impl Digests {
    /// Whether every digest that both sides have is equal.
    pub fn agree(&self, other: &Self) -> bool {
        let second = match (&self.sha512, &other.sha512) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        self.sha256 == other.sha256 && second
    }
}

impl From<Sha256> for Digests {
    fn from(sha256: Sha256) -> Self {
        Self { sha256, sha512: None }
    }
}

/// Hashes an artifact as its bytes pass by, and counts them.
#[derive(Clone)]
pub struct Hasher {
    sha256: crypto::Context,
    sha512: Option<crypto::Context>,
    size: u64,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Hasher {
    /// A hasher for SHA-256, and for SHA-512 too if `sha512` says so.
    pub fn new(sha512: bool) -> Self {
        Self {
            sha256: crypto::Context::sha256(),
            sha512: sha512.then(crypto::Context::sha512),
            size: 0,
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(context) = &mut self.sha512 {
            context.update(bytes);
        }
        self.size = self.size.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }

    /// The digests and the number of bytes.
    pub fn finish(self) -> (Digests, u64) {
        let digests = Digests {
            sha256: Sha256(self.sha256.finish()),
            sha512: self.sha512.map(|context| Sha512(context.finish())),
        };
        (digests, self.size)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn digests_are_in_the_order_of_their_bytes() {
        let all: Vec<[u8; 32]> = (0..32)
            .flat_map(|place| {
                [0, 1, 255].map(|byte| core::array::from_fn(|i| if i == place { byte } else { 7 }))
            })
            .collect();
        for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (one, other))) {
            let order = Sha256::from_bytes(*one).cmp(&Sha256::from_bytes(*other));
            assert_eq!(order, one.cmp(other), "{one:?} {other:?}");
        }
    }

    #[test]
    fn known_digest_of_nothing() {
        let (digests, size) = Hasher::new(true).finish();
        assert_eq!(
            digests.sha256.to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert!(
            digests.sha512.unwrap().to_string().starts_with("cf83e1357eefb8bdf1542850d66d8007")
        );
        assert_eq!(size, 0);
    }

    #[test]
    fn bytes_that_pass_by_are_hashed_and_counted() {
        let mut hasher = Hasher::new(true);
        hasher.update(b"a");
        hasher.update(b"bc");
        let (digests, size) = hasher.finish();
        assert_eq!(size, 3);
        assert_eq!(digests.sha256, Sha256::of(b"abc"));
        assert_eq!(digests.sha256.short(), "ba7816bf8f01");
        assert_eq!(digests.sha512.unwrap(), Sha512(crypto::sha512(b"abc")));
    }

    #[test]
    fn every_digest_that_both_sides_have_decides() {
        let of = |first: &[u8], second: Option<&[u8]>| Digests {
            sha256: Sha256::of(first),
            sha512: second.map(|bytes| Sha512(crypto::sha512(bytes))),
        };
        let both = of(b"x", Some(b"x"));
        assert!(both.agree(&both) && both.agree(&of(b"x", None)) && of(b"x", None).agree(&both));
        assert!(!both.agree(&of(b"y", Some(b"x"))) && !both.agree(&of(b"x", Some(b"y"))));
        assert!(!both.agree(&of(b"y", None)));
    }

    #[test]
    fn only_full_lower_case_hexadecimal() {
        let good = Sha256::of(b"x").to_string();
        assert!(good.parse::<Sha256>().is_ok());
        for bad in [
            good.to_uppercase(),
            format!("0x{}", &good[2..]),
            format!("sha256:{good}"),
            good[1..].into(),
            format!("{good}0"),
            format!(" {}", &good[1..]),
        ] {
            assert_eq!(bad.parse::<Sha256>().unwrap_err().code, Code::StmtDigestFormat, "{bad}");
        }
    }
}
