//! Limits that are part of the formats, so that any two verifiers agree.

/// Largest envelope, in bytes: a manifest of 50,000 artifacts is about 18 MiB in base64.
pub const ENVELOPE_BYTES: usize = 64 << 20;
/// Deepest nesting of JSON.
pub const DEPTH: usize = 32;
/// Most values in one JSON document.
pub const VALUES: usize = 4_000_000;
/// Longest string other than an envelope's payload, in bytes.
pub const STRING_BYTES: usize = 1 << 20;
/// Most members in one JSON object, and most entries in a list other than subjects.
pub const MEMBERS: usize = 100_000;
/// Most subjects of one statement, and most resolved dependencies of one manifest.
pub const SUBJECTS: usize = 100_000;
/// Most signatures on one envelope.
pub const SIGNATURES: usize = 64;
/// Longest key id, in bytes. Key ids are hints; longer ones are refused.
pub const KEYID_BYTES: usize = 256;
/// Longest artifact name, in bytes.
pub const NAME_BYTES: usize = 1024;
/// Most attestations of one statement.
pub const ATTESTATIONS: usize = 8;
/// Largest part of an attestation, in bytes: an event log of a measured boot has tens of thousands.
pub const ATTESTATION_BYTES: usize = 256 << 10;
/// Largest request for an enrolment, in bytes: its attestations are in base64.
pub const REQUEST_BYTES: usize = 4 << 20;
/// Largest commit or tag that a manifest carries for its signature, in bytes.
pub const SIGNED_SOURCE_BYTES: usize = 64 << 10;
/// Largest policy, in bytes.
pub const POLICY_BYTES: usize = 4 << 20;
