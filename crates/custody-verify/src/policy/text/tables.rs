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
    pub(super) root: RootTable,
    pub(super) people: Table<PrincipalTable>,
    pub(super) machines: Table<PrincipalTable>,
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
    pub(super) keys: Spanned<Vec<KeyTable>>,
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
    pub(super) channels: Spanned<Vec<Text>>,
    pub(super) desk: Spanned<Vec<Text>>,
    pub(super) propose: Spanned<Vec<Text>>,
    pub(super) resolve: Spanned<Vec<Text>>,
    pub(super) phases: Table<PhaseTable>,
    pub(super) steps: Table<StepTable>,
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
