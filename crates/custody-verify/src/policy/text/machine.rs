//! What a step demands of its machine: images, facts, and independent builders.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use custody_core::statement::Label;
use toml::{Spanned, Value};

use super::tables::{DemandTable, PolicyTable, StepTable, Table, Text, WantedStanding};
use super::{Fault, Reader, count, each_once, fault, not_empty, parsed};
use crate::policy::demand::{AllowedImage, Demand, Standing, names_a_machine, platform_of};

/// Most builders that a step may ask for.
const BUILDERS: usize = 8;

impl Reader {
    pub(super) fn demands(&self, list: &[DemandTable]) -> Result<Vec<Demand>, Fault> {
        let mut demands: Vec<Demand> = Vec::new();
        for entry in list {
            let fact = fact(&entry.fact)?;
            if demands.iter().any(|known| known.fact == fact) {
                return Err(fault(
                    entry.fact.span(),
                    format!("{fact} stands twice"),
                    "demand each fact once, with all the values that it may have",
                ));
            }
            not_empty(&entry.is, "value")?;
            each_once(entry.is.get_ref())?;
            let standing = match entry.standing {
                WantedStanding::Verified => Standing::Verified,
                WantedStanding::Claimed => Standing::Claimed,
            };
            if standing == Standing::Verified {
                self.provable(&entry.fact)?;
            }
            let is = entry.is.get_ref().iter().map(|value| value.get_ref().clone()).collect();
            demands.push(Demand { fact, is, standing });
        }
        Ok(demands)
    }

    /// What machines' keys are tied to, once it is known which platforms there are.
    pub(super) fn ties(&mut self, table: &PolicyTable) {
        for (name, machine) in &table.machines {
            for (place, entry) in machine.keys.iter().flat_map(Spanned::get_ref).enumerate() {
                let tie = self.tie(&entry.machine);
                let tie = self.keep(tie);
                let principal =
                    parsed(name).ok().and_then(|label: Label| self.principals.get_mut(&label));
                let key = principal.and_then(|principal| principal.keys.get_mut(place));
                if let (Some(key), Some(tie)) = (key, tie) {
                    key.machine = tie;
                }
            }
        }
    }

    /// The machine that a key is tied to: facts that hold whenever it signs.
    fn tie(&self, table: &Table<Text>) -> Result<BTreeMap<String, String>, Fault> {
        let mut tie = BTreeMap::new();
        for (name, value) in table {
            self.provable(name)?;
            tie.insert(fact(name)?, value.get_ref().clone());
        }
        match table.keys().next() {
            Some(name) if !tie.keys().any(|fact| names_a_machine(fact)) => Err(fault(
                name.span(),
                "facts that many machines share",
                "name the machine too: its instance-id, vm-id or pod-uid, or the key of its TPM",
            )),
            _ => Ok(tie),
        }
    }

    /// A fact that must be proved is of a platform that the policy knows.
    fn provable(&self, name: &Text) -> Result<(), Fault> {
        let platform = platform_of(name.get_ref());
        if platform.as_ref().is_some_and(|platform| self.platforms.contains_key(platform)) {
            return Ok(());
        }
        let message = match platform {
            Some(platform) => format!("there is no platform {platform} that could prove it"),
            None => "a fact that no platform proves".into(),
        };
        let remedy = "define [platforms.NAME] and write NAME.fact, or write standing = \"claimed\"";
        Err(fault(name.span(), message, remedy))
    }

    /// How many machines must agree, and in which facts they must differ.
    pub(super) fn builders(
        &self,
        table: &StepTable,
        perform: &BTreeSet<Label>,
    ) -> Result<(NonZeroU32, BTreeSet<String>), Fault> {
        let one = NonZeroU32::MIN;
        let builders = match &table.builders {
            None => one,
            Some(number) => {
                count(number, self.able(perform).min(BUILDERS), "machines that perform it")?
            }
        };
        if let Some(number) =
            table.builders.as_ref().filter(|_| builders > one && table.irrevocable)
        {
            return Err(fault(
                number.span(),
                "several builders of what cannot be taken back",
                "let several build, and one publish what they agree on",
            ));
        }
        each_once(&table.builders_differ)?;
        if let Some(name) = table.builders_differ.first().filter(|_| builders == one) {
            return Err(fault(
                name.span(),
                "nobody from whom to differ",
                "write builders = 2 or more, or leave builders-differ out",
            ));
        }
        let differ = table.builders_differ.iter().map(fact).collect::<Result<_, _>>()?;
        Ok((builders, differ))
    }
}

/// The images that a step may run in. Without the member it runs in none.
pub(super) fn images(
    list: Option<&Spanned<Vec<Spanned<Value>>>>,
    steps: &BTreeSet<Label>,
) -> Result<Option<Vec<AllowedImage>>, Fault> {
    let Some(list) = list else { return Ok(None) };
    not_empty(list, "image")?;
    let mut images = Vec::new();
    for entry in list.get_ref() {
        let image = image(entry, steps)?;
        if images.contains(&image) {
            return Err(fault(entry.span(), "an image stands twice", "name it once"));
        }
        images.push(image);
    }
    Ok(Some(images))
}

/// A digest, or a step. Tags are moved.
fn image(entry: &Spanned<Value>, steps: &BTreeSet<Label>) -> Result<AllowedImage, Fault> {
    let refuse = |message: String| {
        let remedy = "write \"sha256:…\", the digest of the image, or { step = \"…\" }, the step that makes it";
        Err(fault(entry.span(), message, remedy))
    };
    match entry.get_ref() {
        Value::String(text) => {
            let digest = text.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
            match digest {
                Some(digest) => Ok(AllowedImage::Digest(digest)),
                None => {
                    refuse(format!("{text:?} is no digest, and what a name or tag means changes"))
                }
            }
        }
        Value::Table(table) => match (table.len(), table.get("step").and_then(Value::as_str)) {
            (1, Some(step)) => match steps.iter().find(|known| known.as_str() == step) {
                Some(step) => Ok(AllowedImage::Step(step.clone())),
                None => refuse(format!("there is no step {step:?}")),
            },
            _ => refuse("an image is a digest or a step".into()),
        },
        other => refuse(format!("an image is no {}", other.type_str())),
    }
}

/// The name of a fact: words of small letters, digits and hyphens, with dots between them.
fn fact(text: &Text) -> Result<String, Fault> {
    let value = text.get_ref();
    let word = |word: &str| {
        !word.is_empty()
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if value.len() <= 200 && value.split('.').all(word) {
        return Ok(value.to_owned());
    }
    let shown = value.escape_debug().take(80).collect::<String>();
    let remedy = "write a fact as manifests do, like \"ec2.image-id\" or \"isolation\"";
    Err(fault(text.span(), format!("{shown} is no fact"), remedy))
}
