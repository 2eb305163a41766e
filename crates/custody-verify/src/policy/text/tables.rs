//! The shape of a policy's TOML, with the place of everything in it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use toml::Spanned;

pub(super) type Text = Spanned<String>;
pub(super) type Table<T> = BTreeMap<Spanned<String>, T>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PolicyTable {
    pub(super) policy: Text,
    pub(super) version: Spanned<i64>,
    pub(super) previous: Option<Text>,
    pub(super) expires: Text,
    pub(super) instance: Text,
    pub(super) clock_skew: Text,
    #[serde(default)]
    pub(super) origins: Vec<Text>,
    #[serde(default)]
    pub(super) revoked_enrolments: Vec<Text>,
    pub(super) root: RootTable,
    pub(super) people: Table<PrincipalTable>,
    pub(super) machines: Table<PrincipalTable>,
    #[serde(default)]
    pub(super) platforms: Table<PlatformTable>,
    pub(super) roles: Table<RoleTable>,
    pub(super) products: Table<ProductTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RootTable {
    pub(super) people: Spanned<Vec<Text>>,
    pub(super) threshold: Spanned<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PrincipalTable {
    pub(super) keys: Option<Spanned<Vec<KeyTable>>>,
    pub(super) enrolled_by: Option<Spanned<Vec<Text>>>,
    pub(super) enrol: Option<Spanned<Vec<ProofTable>>>,
    pub(super) max_certificate: Option<Text>,
}

/// A demand of what is always to be proved.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ProofTable {
    pub(super) fact: Text,
    pub(super) is: Spanned<Vec<Text>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct KeyTable {
    pub(super) key: Text,
    pub(super) from: Option<Text>,
    pub(super) until: Option<Text>,
    #[serde(default)]
    pub(super) revoked: bool,
    #[serde(default)]
    pub(super) user_verification: bool,
    #[serde(default)]
    pub(super) machine: Table<Text>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PlatformKind {
    Ec2,
    Google,
    Azure,
    Github,
    Gitlab,
    Buildkite,
    Kubernetes,
    Token,
    Tpm,
}

/// What any kind of platform has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PlatformTable {
    pub(super) kind: Spanned<PlatformKind>,
    pub(super) certificates: Option<Spanned<Vec<RegionalTable>>>,
    pub(super) allow_rsa_1024: Option<Spanned<bool>>,
    pub(super) authorities: Option<Spanned<Vec<Text>>>,
    pub(super) names: Option<Spanned<Vec<Text>>>,
    pub(super) issuer: Option<Text>,
    pub(super) audience: Option<Text>,
    pub(super) jwks: Option<Text>,
    pub(super) keys: Option<Spanned<Vec<Text>>>,
    pub(super) claims: Option<Spanned<Vec<Text>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RegionalTable {
    pub(super) regions: Spanned<Vec<Text>>,
    pub(super) certificate: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RoleTable {
    pub(super) members: Spanned<Vec<Text>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ProductTable {
    pub(super) source: Text,
    #[serde(default)]
    pub(super) submodules: Vec<Text>,
    #[serde(default)]
    pub(super) lfs: bool,
    pub(super) source_signatures: Option<SourceSignaturesTable>,
    pub(super) channels: Spanned<Vec<Text>>,
    pub(super) desk: Spanned<Vec<Text>>,
    pub(super) propose: Spanned<Vec<Text>>,
    pub(super) resolve: Spanned<Vec<Text>>,
    pub(super) phases: Table<PhaseTable>,
    pub(super) steps: Table<StepTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SignedSource {
    Commit,
    Tag,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct SourceSignaturesTable {
    pub(super) people: Spanned<Vec<Text>>,
    pub(super) what: SignedSource,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PhaseTable {
    pub(super) approve: Spanned<Vec<ApproveTable>>,
    pub(super) proposer_counts: Spanned<bool>,
    pub(super) sign_off_max_age: Text,
    pub(super) after: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ApproveTable {
    pub(super) role: Text,
    pub(super) count: Spanned<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verification {
    Direct,
    Full,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Receipts {
    None,
    Required,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct StepTable {
    pub(super) phase: Text,
    pub(super) perform: Spanned<Vec<Text>>,
    #[serde(default)]
    pub(super) schedule: Vec<Text>,
    pub(super) scheduled_by: Option<Text>,
    pub(super) source: bool,
    pub(super) inputs: Vec<InputTable>,
    #[serde(default)]
    pub(super) externals: Vec<Text>,
    #[serde(default)]
    pub(super) downloads: Vec<Text>,
    pub(super) record_downloads: Option<Spanned<bool>>,
    pub(super) outputs: Spanned<Vec<Text>>,
    pub(super) network: bool,
    pub(super) verification: Spanned<Verification>,
    pub(super) irrevocable: bool,
    #[serde(default)]
    pub(super) destinations: Vec<Text>,
    pub(super) max_age: Text,
    #[serde(default)]
    pub(super) summaries: Vec<Text>,
    pub(super) receipts: Spanned<Receipts>,
    pub(super) images: Option<Spanned<Vec<Spanned<toml::Value>>>>,
    #[serde(default)]
    pub(super) machine: Vec<DemandTable>,
    pub(super) builders: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) builders_differ: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WantedStanding {
    Verified,
    Claimed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DemandTable {
    pub(super) fact: Text,
    pub(super) is: Spanned<Vec<Text>>,
    pub(super) standing: WantedStanding,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Release {
    Same,
    Other,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct InputTable {
    pub(super) step: Text,
    pub(super) release: Release,
    #[serde(default)]
    pub(super) required: bool,
}
