//! What a policy says about the source: whose signature it carries, and what it may bring along.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;

use custody_core::envelope::{Keyring, Signer};
use custody_core::statement::{Label, Revision, Source};
use custody_core::time::Time;
use custody_core::vcs::{SignedKind, SignedObject};
use custody_core::{Code, Refusal};

use super::{Policy, Product, below, listed};

/// What signs the source, in messages.
pub(crate) const SIGNED_SOURCE: &str = "the source";

/// Whose signature the source must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSignatures {
    /// The people, of whom one is enough.
    pub people: BTreeSet<Label>,
    /// What they sign.
    pub what: SignedKind,
}

impl SourceSignatures {
    /// The key that signed the raw commit or tag object for this source. Whether its owner may, is
    /// still open.
    pub(crate) fn signer(
        &self,
        source: &Source,
        raw: Option<&[u8]>,
        keyring: &Keyring,
    ) -> Result<Signer, Refusal> {
        let expected = || format!("a {} signed by {}", self.what.word(), listed(&self.people));
        let missing =
            |found: &str| Refusal::new(Code::ChainSourceUnsigned, SIGNED_SOURCE, expected(), found);
        let Revision::Git(commit) = &source.revision else {
            return Err(missing("a source that is not in git"));
        };
        let raw = raw.ok_or_else(|| missing("none"))?;
        SignedObject::read(self.what, raw, commit)
            .and_then(|signed| signed.signer(keyring))
            .map_err(|refusal| refusal.within(SIGNED_SOURCE))
    }
}

impl Policy {
    /// Who signed the raw commit or tag object for this source, if the product's policy demands
    /// somebody and `when` is in the time of the key.
    pub fn source_signer(
        &self,
        product: &Product,
        source: &Source,
        raw: Option<&[u8]>,
        when: Time,
    ) -> Result<Option<String>, Refusal> {
        let Some(signatures) = &product.source_signatures else { return Ok(None) };
        let signer = signatures.signer(source, raw, &self.keyring())?;
        self.entitled(&signer, &signatures.people, when, SIGNED_SOURCE).map(Some)
    }
}

impl Product {
    /// Whether a submodule may come from there.
    pub fn allows_submodule(&self, uri: &str) -> bool {
        self.submodules.iter().any(|allowed| allowed == uri || below(allowed, uri))
    }
}
