//! From a pinned policy to the newest one: the rotation chain, and what was seen before.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use custody_core::envelope::{Envelope, Keyring, Payload, PolicyText, Signer, StatementId};
use custody_core::json::{self, Value};
use custody_core::key::KeyId;
use custody_core::statement::Label;
use custody_core::time::Time;
use custody_core::{Code, Refusal};

use crate::evidence::Evidence;
use crate::policy::Policy;

/// What a verifier remembers: it never goes back behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The highest policy version seen.
    pub version: u64,
    /// The statement id of that policy.
    pub policy: StatementId,
    /// The latest time that was verified.
    pub time: Time,
}

impl Floor {
    /// Reads what [`to_json`](Self::to_json) wrote. A record that cannot be read is not to be taken for
    /// none: that would be the way back behind it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut object = json::parse(bytes, 4096, 256)?.into_object("")?;
        let floor = Self {
            version: object.integer("version")?,
            policy: object.parsed("policy")?,
            time: object.parsed("time")?,
        };
        object.finish()?;
        Ok(floor)
    }

    /// The record as a file keeps it.
    pub fn to_json(&self) -> String {
        let object = Value::object([
            ("version", Value::Integer(self.version)),
            ("policy", Value::text(self.policy)),
            ("time", Value::text(self.time)),
        ]);
        let mut json = object.to_pretty();
        json.push('\n');
        json
    }
}

/// Policies that a pin leads to, each signed by the root of the one before and by its own.
#[derive(Clone, Debug)]
pub struct PolicyChain {
    older: Vec<(StatementId, Policy)>,
    newest: (StatementId, Policy),
    keyring: Keyring,
    revoked: BTreeMap<KeyId, (u64, Label)>,
    revoked_enrolments: BTreeMap<StatementId, u64>,
    seen: Option<Time>,
}

fn signed_policy(envelope: &Envelope) -> Result<Policy, Refusal> {
    let text = PolicyText::parse(envelope.unverified_payload())?;
    Ok(Policy::parse(&text.0)?)
}

/// Whether the root of `judge` signed the envelope, at its threshold. When they did nobody can prove,
/// so a key's window does not matter here: a key that must not count any more is revoked.
fn check_root(envelope: &Envelope, judge: &Policy) -> Result<(), Refusal> {
    let at = format!("policy {}", envelope.id().short());
    let root = |signer: &Signer| {
        let when = judge.moment_within(&signer.key);
        judge.entitled(signer, &judge.root.members, when, "the policy's signature")
    };
    let signed = envelope.open::<PolicyText>(&judge.keyring());
    let verified =
        signed.and_then(|signed| signed.by_ref().verify(judge.root.threshold, root).map(|_| ()));
    verified.map_err(|refusal| {
        let below = matches!(refusal.code, Code::EnvThresholdNotMet | Code::EnvKeyUnknown);
        let code = if below { Code::PolicySignatureThreshold } else { refusal.code };
        Refusal { code, ..refusal }.within(&at)
    })
}

impl PolicyChain {
    /// Starts at the policy whose statement id is pinned. Its own root must have signed it: a pin
    /// says which document is meant, the signatures that people stand behind it.
    pub fn pinned(pin: StatementId, envelope: &Envelope) -> Result<Self, Refusal> {
        if envelope.id() != pin {
            return Err(Refusal::new(
                Code::PolicyUntrusted,
                "policy",
                format!("the pinned policy {pin}"),
                envelope.id().to_string(),
            ));
        }
        let policy = signed_policy(envelope)?;
        check_root(envelope, &policy)?;
        let keyring = policy.keyring();
        let mut chain = Self {
            older: Vec::new(),
            newest: (pin, policy),
            keyring,
            revoked: BTreeMap::new(),
            revoked_enrolments: BTreeMap::new(),
            seen: None,
        };
        chain.remember_revocations();
        Ok(chain)
    }

    /// Goes on to the next version: signed by the root of the newest so far and by its own.
    pub fn rotate(&mut self, envelope: &Envelope) -> Result<(), Refusal> {
        let (id, newest) = (&self.newest.0, &self.newest.1);
        if envelope.id() == *id {
            return Ok(());
        }
        let next = signed_policy(envelope)?;
        let at = format!("policy {}", envelope.id().short());
        let wanted = newest.version.saturating_add(1);
        let refuse = |code, expected, found| Err(Refusal::new(code, at.clone(), expected, found));
        if next.version <= newest.version {
            let same = self.get(envelope.id()).is_some();
            let code = if next.version == newest.version {
                Code::PolicyEquivocation
            } else {
                Code::PolicyRollback
            };
            return if same {
                Ok(())
            } else {
                refuse(code, format!("version {wanted}"), format!("version {}", next.version))
            };
        }
        if next.version != wanted {
            return refuse(
                Code::PolicyVersionGap,
                format!("version {wanted}"),
                format!("version {}", next.version),
            );
        }
        if next.previous != Some(*id) {
            let found = next.previous.map_or_else(|| "nothing".to_string(), |id| id.to_string());
            return refuse(Code::PolicyVersionGap, format!("previous = {id}"), found);
        }
        if next.instance != newest.instance {
            return refuse(
                Code::ChainInstanceMismatch,
                newest.instance.to_string(),
                next.instance.to_string(),
            );
        }
        check_root(envelope, newest)?;
        check_root(envelope, &next)?;
        for entry in next.principals.values().flat_map(|principal| &principal.keys) {
            self.keyring.insert(entry.key.clone());
        }
        let before = core::mem::replace(&mut self.newest, (envelope.id(), next));
        self.older.push(before);
        self.remember_revocations();
        Ok(())
    }

    fn remember_revocations(&mut self) {
        let (_, policy) = &self.newest;
        for (owner, principal) in &policy.principals {
            for entry in principal.keys.iter().filter(|entry| entry.revoked) {
                self.revoked
                    .entry(entry.key.id())
                    .or_insert_with(|| (policy.version, owner.clone()));
            }
        }
        for id in &policy.revoked_enrolments {
            self.revoked_enrolments.entry(*id).or_insert(policy.version);
        }
    }

    /// The version that revoked the key, and its owner there. A revocation holds for ever, also where
    /// a later version does not list the key any more.
    pub fn revocation(&self, key: &KeyId) -> Option<(u64, &Label)> {
        self.revoked.get(key).map(|(version, owner)| (*version, owner))
    }

    /// The version that revoked the certificate, for ever too.
    pub fn revoked_enrolment(&self, id: StatementId) -> Option<u64> {
        self.revoked_enrolments.get(&id).copied()
    }

    /// Some version that lists the key, and its owner there.
    pub fn owner(&self, key: &KeyId) -> Option<(u64, &Label)> {
        self.iter().find_map(|(_, policy)| Some((policy.version, policy.owner(key)?)))
    }

    /// The longest chain from the pin through these envelopes. Policies that do not link to it are
    /// left aside: nothing that anybody adds can take a valid chain away.
    pub fn establish<'e>(
        pin: StatementId,
        envelopes: impl IntoIterator<Item = &'e Envelope>,
        floor: Option<Floor>,
    ) -> Result<Self, Refusal> {
        let policies: Evidence = envelopes
            .into_iter()
            .filter(|envelope| envelope.payload_type() == PolicyText::TYPE)
            .cloned()
            .collect();
        let first = policies.get(pin);
        let first = first.ok_or_else(|| {
            Refusal::new(
                Code::PolicyUntrusted,
                "policy",
                format!("the pinned policy {pin}"),
                "not among the evidence",
            )
        })?;
        let mut chain = Self::pinned(pin, first)?;
        loop {
            let id = chain.newest.0;
            // signatures first: what the root did not sign is not even read
            let signed = policies.iter().filter(|envelope| {
                chain.get(envelope.id()).is_none() && check_root(envelope, &chain.newest.1).is_ok()
            });
            let mut valid = signed.filter_map(|envelope| {
                let mut longer = chain.clone();
                longer.rotate(envelope).ok().map(|()| longer)
            });
            let Some(longer) = valid.next() else { break };
            if let Some(other) = valid.next() {
                let (a, b) = (longer.newest.0, other.newest.0);
                return Err(Refusal::new(
                    Code::PolicyEquivocation,
                    "policy",
                    format!("one version after {id}"),
                    format!("{a} and {b}"),
                ));
            }
            chain = longer;
        }
        floor.map_or(Ok(()), |floor| chain.check_floor(floor))?;
        chain.seen = floor.map(|floor| floor.time);
        Ok(chain)
    }

    fn check_floor(&self, floor: Floor) -> Result<(), Refusal> {
        let (id, newest) = (&self.newest.0, &self.newest.1);
        let seen = format!("version {} ({}), which was seen before", floor.version, floor.policy);
        let known = self.get(floor.policy).is_some();
        match newest.version.cmp(&floor.version) {
            core::cmp::Ordering::Less => Err(Refusal::new(
                Code::PolicyRollback,
                "policy",
                seen,
                format!("version {} at most", newest.version),
            )),
            _ if !known => {
                Err(Refusal::new(Code::PolicyEquivocation, "policy", seen, id.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// The newest policy and its statement id.
    pub const fn newest(&self) -> (StatementId, &Policy) {
        (self.newest.0, &self.newest.1)
    }

    /// The latest time that was verified before: now is never earlier.
    pub const fn seen(&self) -> Option<Time> {
        self.seen
    }

    /// The policy of this id, if it is in the chain.
    pub fn get(&self, id: StatementId) -> Option<&Policy> {
        self.iter().find(|(known, _)| *known == id).map(|(_, policy)| policy)
    }

    /// All keys of all versions: what makes a signature worth looking at.
    pub const fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// All policies, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (StatementId, &Policy)> {
        self.older.iter().chain([&self.newest]).map(|(id, policy)| (*id, policy))
    }
}
