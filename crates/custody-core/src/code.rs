//! Stable codes: what is wrong. A [`Refusal`] adds where, what was expected and what was found.

mod example;

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

macro_rules! codes {
    ($($variant:ident $name:literal $meaning:literal $remedy:literal;)+) => {
        /// What is wrong, as a name that never changes and is never used for anything else.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $meaning] $variant,)+ }

        impl Code {
            /// Every code, in order of precedence: the first of several is the primary one.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What the code means, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }

            /// What a person does about it.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)+ }
            }
        }
    };
}

codes! {
    ParseJsonInvalid "PARSE_JSON_INVALID" "the document is not JSON" "get the document again from where it was made";
    ParseDuplicateKey "PARSE_DUPLICATE_KEY" "a JSON object has one member twice" "have the document made again; two readers would understand it differently";
    ParseTrailingData "PARSE_TRAILING_DATA" "there are bytes after the document" "pass one document per file";
    ParseDepthExceeded "PARSE_DEPTH_EXCEEDED" "the document is nested too deeply" "refuse the document; no honest one is that deep";
    ParseSizeExceeded "PARSE_SIZE_EXCEEDED" "the document or one of its strings is too large" "split the step so that its manifest stays within the limit";
    ParseCountExceeded "PARSE_COUNT_EXCEEDED" "the document has too many members, signatures or subjects" "split the step so that its manifest stays within the limit";
    ParseNumberUnsafe "PARSE_NUMBER_UNSAFE" "a number is not an exact integer in range" "write whole numbers without fraction or exponent";
    ParseUnicodeInvalid "PARSE_UNICODE_INVALID" "the text is not clean UTF-8" "write plain UTF-8 without byte order mark or control characters";
    ParseUnknownField "PARSE_UNKNOWN_FIELD" "a closed document has a member that is not defined" "use a version of Custody that knows the member, or have the document made again";
    ParseFieldMissing "PARSE_FIELD_MISSING" "a required member is absent" "have the document made again";
    ParseFieldType "PARSE_FIELD_TYPE" "a member has the wrong type or form" "have the document made again";
    ParseBase64Invalid "PARSE_BASE64_INVALID" "base64 is not in its one canonical form" "get the document again from where it was made";
    ParseTimeInvalid "PARSE_TIME_INVALID" "a time is not YYYY-MM-DDTHH:MM:SSZ, or no such moment" "write times in UTC, like 2026-11-22T18:06:00Z";
    EnvPayloadType "ENV_PAYLOAD_TYPE" "the envelope's payload type is not allowed here" "pass the kind of document that was asked for";
    EnvNoSignature "ENV_NO_SIGNATURE" "the envelope carries no signature" "get the signed document";
    EnvSignatureInvalid "ENV_SIGNATURE_INVALID" "no signature fits the bytes: they were changed, or signed otherwise" "get the document again from where it was made; if it stays so, treat it as tampered with";
    EnvKeyUnknown "ENV_KEY_UNKNOWN" "no key that the policy lists made a signature" "check that the right policy is used; a new key needs a new policy version";
    EnvAlgForbidden "ENV_ALG_FORBIDDEN" "the signature's algorithm is not the key's" "sign again with the key as the policy lists it";
    EnvThresholdNotMet "ENV_THRESHOLD_NOT_MET" "too few distinct principals signed" "get the missing signatures; one principal counts once";
    StmtType "STMT_TYPE" "the payload is not an in-toto Statement v1" "have the statement made again";
    StmtPredicateType "STMT_PREDICATE_TYPE" "the statement is not of the kind wanted here" "pass the statement that the report names";
    StmtBuildType "STMT_BUILD_TYPE" "the provenance is of an unknown build type" "only manifests of Custody steps count here";
    StmtParameterUnexpected "STMT_PARAMETER_UNEXPECTED" "a parameter is not what the task gave" "treat the worker as suspect: it did something else than it was told";
    StmtSubjectEmpty "STMT_SUBJECT_EMPTY" "the statement is about nothing" "run the step again; its outputs are missing";
    StmtSubjectDuplicate "STMT_SUBJECT_DUPLICATE" "one name stands twice among the subjects" "have the statement made again";
    StmtDigestMissing "STMT_DIGEST_MISSING" "there is no sha256" "have the statement made again with sha256";
    StmtDigestAlg "STMT_DIGEST_ALG" "only weak digests are given" "have the statement made again with sha256";
    StmtDigestFormat "STMT_DIGEST_FORMAT" "a digest is not full-length lower-case hexadecimal" "write the whole digest in lower case";
    PolicyUntrusted "POLICY_UNTRUSTED" "no pinned root leads to this policy" "pass the pin of the policy that you trust with --pin";
    PolicySignatureThreshold "POLICY_SIGNATURE_THRESHOLD" "the policy lacks signatures of its root" "have the missing root people sign it";
    PolicyRollback "POLICY_ROLLBACK" "a newer policy was seen before" "get the newest policy";
    PolicyVersionGap "POLICY_VERSION_GAP" "a policy version between is missing" "add the missing versions to the evidence";
    PolicyEquivocation "POLICY_EQUIVOCATION" "two policies carry the same version" "stop: the root signed two truths; find out why";
    PolicyExpired "POLICY_EXPIRED" "the policy has expired" "have the root people sign the next version";
    PolicyInvalid "POLICY_INVALID" "the policy contradicts itself or is incomplete" "mend the policy at the line shown";
    PolicyMismatch "POLICY_MISMATCH" "the release names a policy that was never valid" "propose the release again under the current policy";
    PolicyStepUnknown "POLICY_STEP_UNKNOWN" "the policy does not know the step" "add the step to the policy, or use the right product";
    PolicyProductUnknown "POLICY_PRODUCT_UNKNOWN" "the policy does not know the product" "add the product to the policy";
    PolicyKeyDuplicate "POLICY_KEY_DUPLICATE" "the same key stands twice in the policy" "give every principal keys of its own";
    PolicyKeyWeak "POLICY_KEY_WEAK" "a key is too weak or malformed" "make a new key: ssh-ed25519, ECDSA P-256 or P-384, or RSA from 2048 bits";
    PolicyKeyPurpose "POLICY_KEY_PURPOSE" "a good key signed what it may not sign" "have the right principal sign; if none should have, treat the key as stolen";
    PolicyKeyExpired "POLICY_KEY_EXPIRED" "the key's time was over" "sign with a current key";
    PolicyKeyNotYetValid "POLICY_KEY_NOT_YET_VALID" "the key's time had not begun" "sign with a current key";
    PolicyKeyRevoked "POLICY_KEY_REVOKED" "the key is revoked" "make what it signed again with a good key";
    TimeUntrusted "TIME_UNTRUSTED" "the clock is behind a time that was already verified, or was put forward while a task ran" "set the clock of this machine";
    ChainLinkMissing "CHAIN_LINK_MISSING" "a document that the chain names is absent" "add it to the evidence: custody evidence add FILE";
    ChainDigestMismatch "CHAIN_DIGEST_MISMATCH" "the document is not the one that was named" "get the document that was named";
    ChainTaskMissing "CHAIN_TASK_MISSING" "no task allowed this" "nothing may be used that no signed task asked for; run the step through Custody";
    ChainTaskMismatch "CHAIN_TASK_MISMATCH" "manifest and task disagree" "run the task again; what was done is not what was asked";
    ChainStepMissing "CHAIN_STEP_MISSING" "no manifest of the required kind explains this" "check that you hold the right file and the right evidence";
    ChainStepMismatch "CHAIN_STEP_MISMATCH" "the document belongs to another step" "pass the document of the step that was asked for";
    ChainProductMismatch "CHAIN_PRODUCT_MISMATCH" "this belongs to another product" "check which product you asked for";
    ChainReleaseMismatch "CHAIN_RELEASE_MISMATCH" "this belongs to another release" "take the file and evidence of the release that you asked for";
    ChainInstanceMismatch "CHAIN_INSTANCE_MISMATCH" "staging and production are mixed" "use evidence of one instance only";
    ChainSourceMismatch "CHAIN_SOURCE_MISMATCH" "the source is not the one that people approved" "build from the approved revision, or have people approve this one";
    ChainSourceForbidden "CHAIN_SOURCE_FORBIDDEN" "the source brings along something that the policy does not allow" "take it out of the source, or have the policy allow it: submodules = [\"URI\"] of the product";
    ChainSourceUnsigned "CHAIN_SOURCE_UNSIGNED" "the source lacks the signature that the policy demands" "have one of the people sign with SSH: git commit -S or git tag -s, with gpg.format=ssh; a new commit must be approved anew";
    ChainInputUnaccounted "CHAIN_INPUT_UNACCOUNTED" "nothing explains where an input came from" "take inputs only from earlier steps, the source, or externals pinned in the task";
    ChainForked "CHAIN_FORKED" "one task has two results" "find out which is right and why there are two, then have a person sign a resolution";
    ChainReplayed "CHAIN_REPLAYED" "something that may be used once was used again" "go on with what there is, or plan anew: custody plan AUTHORIZATION --again";
    ChainStale "CHAIN_STALE" "the document is older than the policy or its own expiry allows" "make it again";
    ChainTimeOrder "CHAIN_TIME_ORDER" "the times contradict each other" "check the clocks of the machines";
    ChainThresholdDisagree "CHAIN_THRESHOLD_DISAGREE" "independent builders got different results, or too few built" "run the task on the machines that are missing, or compare what the builders made";
    ChainCycle "CHAIN_CYCLE" "the chain leads back to itself" "refuse the evidence";
    ChainDepthExceeded "CHAIN_DEPTH_EXCEEDED" "the chain is too deep" "refuse the evidence";
    ChainNodeLimit "CHAIN_NODE_LIMIT" "the chain has too many documents" "refuse the evidence";
    WorkerPoolForbidden "WORKER_POOL_FORBIDDEN" "this worker may not perform the step" "run the step on a worker that the policy names";
    WorkerImageMismatch "WORKER_IMAGE_MISMATCH" "the container image or the machine image is not one that is allowed" "run the step in an image that the policy names";
    WorkerIdentityUnverified "WORKER_IDENTITY_UNVERIFIED" "nothing proves what machine this was" "run the step where the platform signs what the policy demands, and check that the policy has the platform's certificates or keys";
    WorkerIdentityMismatch "WORKER_IDENTITY_MISMATCH" "the machine is not the one that it should be" "run the step on a machine that the policy allows; a key or document that shows up on two machines was stolen";
    WorkerIsolationMissing "WORKER_ISOLATION_MISSING" "the command was not kept apart as the policy demands" "run the step on a machine that can do what the policy demands of it";
    WorkerInteractive "WORKER_INTERACTIVE" "somebody could reach into the run" "run the step again without interactive access, privileges or sockets of the host";
    WorkerLimitExceeded "WORKER_LIMIT_EXCEEDED" "the command made more than the task allows" "find out what it does, or plan again with a larger limit in the pipeline file";
    KeyUnavailable "KEY_UNAVAILABLE" "the private key cannot be used" "see the message: check the path, the passphrase, the agent, the security key or the token";
    WorkerKeyExposed "WORKER_KEY_EXPOSED" "others can read the private key" "chmod 600 the key file, and replace the key if it was exposed";
    ArtDigestMismatch "ART_DIGEST_MISMATCH" "the bytes are not those that were recorded" "get the file again; if it stays so, treat it as tampered with";
    ArtSizeMismatch "ART_SIZE_MISMATCH" "the size is not the one that was recorded" "get the file again; if it stays so, treat it as tampered with";
    ArtMissing "ART_MISSING" "a file that is needed is absent" "bring the file back, or run the step that makes it again";
    ArtUnlisted "ART_UNLISTED" "a file is not listed where it must be" "remove the file, or declare it as an output";
    ArtNameInvalid "ART_NAME_INVALID" "a name is not safe" "use letters, digits and . _ - + ~ @ = , ( ) [ ] # and blanks, in relative paths";
    ArtNameCollision "ART_NAME_COLLISION" "two names are one file on some systems" "rename one of them";
    ArtNotRegular "ART_NOT_REGULAR" "this is a link, device, socket, pipe or directory, not a file" "have the step write a plain file";
    ArtChangedDuringRead "ART_CHANGED_DURING_READ" "the file changed while it was read" "let the step end all its processes before it ends";
    SignoffMissing "SIGNOFF_MISSING" "there is no sign-off" "have people sign off: custody release sign-off";
    SignoffThresholdNotMet "SIGNOFF_THRESHOLD_NOT_MET" "too few different people approved" "get the missing approvals; one person counts once whatever keys they hold";
    SignoffRefused "SIGNOFF_REFUSED" "somebody refused the release" "talk to the person who refused, and propose anew";
    SignoffPersonDuplicate "SIGNOFF_PERSON_DUPLICATE" "one person was counted twice" "get another person's approval";
    SignoffRole "SIGNOFF_ROLE" "the person does not hold the role" "get the approval of somebody who holds it";
    SignoffSelfApproval "SIGNOFF_SELF_APPROVAL" "the proposer's own approval does not count here" "get another person's approval";
    SignoffContentMismatch "SIGNOFF_CONTENT_MISMATCH" "the sign-off is for something else" "have the person sign off this very request";
    SignoffStale "SIGNOFF_STALE" "the sign-off is too old or expired" "have the person sign off again";
    SignoffWithdrawn "SIGNOFF_WITHDRAWN" "the person withdrew the sign-off" "get another approval, or propose anew";
    SignoffCredentialUnknown "SIGNOFF_CREDENTIAL_UNKNOWN" "the key is not enrolled for this person" "enrol the key with a new policy version";
    SignoffNamespace "SIGNOFF_NAMESPACE" "the SSH signature was made for another purpose" "sign with -n evidence@custody.dev";
    SignoffChallengeMismatch "SIGNOFF_CHALLENGE_MISMATCH" "the passkey signed something else" "sign again and compare the short code";
    SignoffOrigin "SIGNOFF_ORIGIN" "the passkey was used on another web page" "use the release desk that the policy names";
    SignoffRpid "SIGNOFF_RPID" "the security key was enrolled for another application" "sign with the key as it was enrolled";
    SignoffType "SIGNOFF_TYPE" "this is not an assertion of a passkey" "sign again";
    SignoffUpRequired "SIGNOFF_UP_REQUIRED" "nobody touched the security key" "sign again and touch the key";
    SignoffUvRequired "SIGNOFF_UV_REQUIRED" "the security key did not check who touched it" "sign again with PIN or fingerprint";
    GateStepMismatch "GATE_STEP_MISMATCH" "the gate was asked for another step" "use the command that fits the step";
    GateInputChanged "GATE_INPUT_CHANGED" "an input changed after it was verified" "start again; find out who writes there";
    GateCommandMismatch "GATE_COMMAND_MISMATCH" "the command is not the task's" "run the task as it was signed";
    GateDestinationForbidden "GATE_DESTINATION_FORBIDDEN" "the policy does not allow this destination" "publish to a destination that the policy names";
    GateDestinationConflict "GATE_DESTINATION_CONFLICT" "other content is already there" "find out what is there; Custody never overwrites";
    GateAlreadyExecuted "GATE_ALREADY_EXECUTED" "the task was already done, or is in doubt" "look at what it made: custody show MANIFEST; an act in doubt needs a person's word: custody release resolve TASK --resume";
    GateCacheStale "GATE_CACHE_STALE" "evidence came in between verdict and act" "run the command again; it judges anew";
    GateUnavailable "GATE_UNAVAILABLE" "the gate could not decide, so it refuses" "mend what was out of reach, then give the same command again";
    StoreCorrupt "STORE_CORRUPT" "the store is damaged" "restore the store from a copy; nothing was changed";
    StoreRollback "STORE_ROLLBACK" "the store is an older copy" "restore the newest copy of the store";
    StoreFull "STORE_FULL" "there is no room left, or the disk failed" "make room and run the command again";
    StoreLocked "STORE_LOCKED" "another process holds the store" "wait for the other process to end";
}

impl Code {
    /// The code with this stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }

    /// The family: what its name begins with.
    pub fn family(self) -> &'static str {
        self.name().split('_').next().unwrap_or_default()
    }

    /// Whether nothing could be decided (exit status 3), rather than decided against (1).
    pub const fn undecided(self) -> bool {
        matches!(
            self,
            Self::KeyUnavailable
                | Self::GateUnavailable
                | Self::StoreCorrupt
                | Self::StoreRollback
                | Self::StoreFull
                | Self::StoreLocked
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One rule that did not hold: the code, where, what was expected and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub code: Code,
    /// Where: the document, member or file.
    pub at: String,
    /// What the rule expects.
    pub expected: String,
    /// What was there instead.
    pub found: String,
    /// What a person does about it here, where that is known better than the code knows it.
    pub advice: Option<Box<str>>,
}

impl Refusal {
    /// A refusal with all its facts.
    pub fn new(
        code: Code,
        at: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let (at, expected, found) = (at.into(), expected.into(), found.into());
        Self { code, at, expected, found, advice: None }
    }

    /// The same refusal with what a person does about it here: the command to give next.
    #[must_use]
    pub fn advising(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into().into_boxed_str());
        self
    }

    /// What a person does about it.
    pub fn remedy(&self) -> &str {
        self.advice.as_deref().unwrap_or_else(|| self.code.remedy())
    }

    /// The same refusal, seen from the outside: `outer` is put before the place.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.at = match (outer, self.at.as_str()) {
            ("", inner) => inner.into(),
            (outer, "") => outer.into(),
            (outer, inner) => alloc::format!("{outer}: {inner}"),
        };
        self
    }

    /// The same refusal about a member of `outer`: at `name` of `subject[0]` it is at
    /// `subject[0].name`.
    #[must_use]
    pub fn inside(mut self, outer: &str) -> Self {
        let inner = self.at.strip_prefix('.').unwrap_or(&self.at);
        self.at = match (outer, inner) {
            ("", inner) => inner.into(),
            (outer, "") => outer.into(),
            (outer, inner) if inner.starts_with('[') => alloc::format!("{outer}{inner}"),
            (outer, inner) => alloc::format!("{outer}.{inner}"),
        };
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: expected {}, found {}", self.code, self.at, self.expected, self.found)
    }
}

impl core::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        for code in Code::ALL {
            assert_eq!(Code::from_name(code.name()), Some(*code));
            assert_eq!(alloc::format!("{code}"), code.name());
        }
        assert_eq!(Code::ArtDigestMismatch.family(), "ART");
    }

    #[test]
    fn advice_of_the_place_is_better_than_that_of_the_code() {
        let refusal = Refusal::new(Code::ArtMissing, "x", "a file", "none");
        assert_eq!(refusal.remedy(), Code::ArtMissing.remedy());
        assert_eq!(refusal.advising("make it").within("task").remedy(), "make it");
    }

    #[test]
    fn a_refusal_says_where_from_the_outside_in() {
        let at = |at: &str| Refusal::new(Code::ArtMissing, at, "a file", "none");
        assert_eq!(at("x").to_string(), "ART_MISSING: x: expected a file, found none");
        for (inner, outer, joined) in
            [("x", "task", "task: x"), ("", "task", "task"), ("x", "", "x")]
        {
            assert_eq!(at(inner).within(outer).at, joined);
        }
        for (inner, outer, joined) in [
            ("name", "subject[0]", "subject[0].name"),
            ("[1]", "subject", "subject[1]"),
            (".name", "subject", "subject.name"),
            ("", "subject", "subject"),
            ("name", "", "name"),
        ] {
            assert_eq!(at(inner).inside(outer).at, joined);
        }
    }
}
