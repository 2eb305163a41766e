//! The TOML of a policy: the rules that hold between its parts.

mod enrol;
mod hints;
mod machine;
mod platforms;
mod tables;
mod uris;

pub(super) use hints::review;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::ops::Range;
use core::str::FromStr;

use custody_core::json::is_hidden;
use custody_core::key::PublicKey;
use custody_core::limits::POLICY_BYTES;
use custody_core::statement::Label;
use custody_core::vcs::SignedKind;
use custody_core::{Code, Refusal};
use custody_machine::Platform;
use toml::Spanned;

use self::tables::{
    InputTable, PhaseTable, PolicyTable, PrincipalTable, ProductTable, Receipts, Release,
    RoleTable, RootTable, SignedSource, SourceSignaturesTable, StepTable, Text, Verification,
};
use self::uris::{destination, download, origin, place};
use super::{
    Key, Phase, Policy, PolicyFault, Principal, Product, Quorum, SourceSignatures, Step, StepInput,
};

/// The type line that every policy begins with.
const TYPE: &str = "https://custody.dev/policy/v1";

/// A fault before its place is counted out.
struct Fault {
    code: Code,
    span: Range<usize>,
    message: String,
    remedy: String,
}

fn fault(span: Range<usize>, message: impl Into<String>, remedy: impl Into<String>) -> Fault {
    Fault { code: Code::PolicyInvalid, span, message: message.into(), remedy: remedy.into() }
}

fn locate(text: &str, fault: Fault) -> PolicyFault {
    let before = text.get(..fault.span.start).unwrap_or(text);
    let line = before.matches('\n').count().saturating_add(1);
    let start = before.rfind('\n').map_or(0, |i| i.saturating_add(1));
    let excerpt = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let column = before.get(start..).unwrap_or_default().chars().count().saturating_add(1);
    PolicyFault {
        code: fault.code,
        line,
        column,
        excerpt: excerpt.chars().take(160).collect(),
        message: fault.message,
        remedy: fault.remedy,
    }
}

pub(super) fn read(text: &str) -> Result<Policy, PolicyFault> {
    let table = table(text).map_err(|fault| locate(text, fault))?;
    Reader::default().policy(&table).map_err(|faults| {
        let first = faults.into_iter().next();
        locate(text, first.unwrap_or_else(|| fault(0..0, "no policy", "write one")))
    })
}

/// The shape, before any rule.
fn table(text: &str) -> Result<PolicyTable, Fault> {
    if text.len() > POLICY_BYTES {
        let remedy = format!("keep the policy under {POLICY_BYTES} bytes");
        let found = fault(0..0, format!("{} bytes", text.len()), remedy);
        return Err(Fault { code: Code::ParseSizeExceeded, ..found });
    }
    // people read this very text before they sign it; TOML takes a carriage return only before a line feed
    if let Some((at, hidden)) = text.char_indices().find(|(_, c)| *c != '\r' && is_hidden(*c)) {
        let message = format!("a character that nobody can see ({})", hidden.escape_unicode());
        return Err(fault(at..at, message, "remove it"));
    }
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let remedy = hints::remedy(error.message(), text, span.start);
        fault(span, error.message(), remedy)
    })
}

fn parsed<T: FromStr<Err = Refusal>>(text: &Text) -> Result<T, Fault> {
    text.get_ref().parse().map_err(|refusal| refused(text, &refusal))
}

fn refused(text: &Text, refusal: &Refusal) -> Fault {
    Fault {
        code: if refusal.code == Code::PolicyKeyWeak {
            Code::PolicyKeyWeak
        } else {
            Code::PolicyInvalid
        },
        span: text.span(),
        message: refusal.found.clone(),
        remedy: format!("write {}", refusal.expected),
    }
}

fn optional<T: FromStr<Err = Refusal>>(text: Option<&Text>) -> Result<Option<T>, Fault> {
    text.map(parsed).transpose()
}

fn duration(text: &Text) -> Result<u64, Fault> {
    let value = text.get_ref();
    let split = value.len().saturating_sub(1);
    let (number, unit) = (value.get(..split), value.get(split..));
    let seconds = match unit {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3_600,
        Some("d") => 86_400,
        _ => 0,
    };
    let count = number
        .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|n| n.parse::<u64>().ok());
    count.and_then(|count| count.checked_mul(seconds)).filter(|total| *total > 0).ok_or_else(|| {
        fault(
            text.span(),
            format!("{value:?} is no duration"),
            "write a number with s, m, h or d, like \"24h\"",
        )
    })
}

fn count(number: &Spanned<i64>, available: usize, of: &str) -> Result<NonZeroU32, Fault> {
    let wanted = u32::try_from(*number.get_ref()).ok().and_then(NonZeroU32::new);
    match wanted {
        Some(wanted) if usize::try_from(wanted.get()).is_ok_and(|wanted| wanted <= available) => {
            Ok(wanted)
        }
        Some(wanted) => Err(fault(
            number.span(),
            format!("{wanted} of only {available} {of}"),
            format!("ask for at most {available}, or name more {of}"),
        )),
        None => Err(fault(
            number.span(),
            format!("{} is no count", number.get_ref()),
            "write a number from 1",
        )),
    }
}

fn not_empty<T>(list: &Spanned<Vec<T>>, what: &str) -> Result<(), Fault> {
    if list.get_ref().is_empty() {
        return Err(fault(
            list.span(),
            format!("no {what}"),
            format!("name at least one {what}; an empty list allows nothing"),
        ));
    }
    Ok(())
}

/// Refuses a list that names something twice, and gives it as a set.
fn set(
    list: &[Text],
    known: impl Fn(&Label) -> bool,
    what: &str,
) -> Result<BTreeSet<Label>, Fault> {
    let mut found = BTreeSet::new();
    for text in list {
        let label: Label = parsed(text)?;
        if !known(&label) {
            return Err(fault(
                text.span(),
                format!("there is no {what} {label}"),
                format!("define the {what}, or mend the name"),
            ));
        }
        if !found.insert(label.clone()) {
            return Err(fault(text.span(), format!("{label} stands twice"), "name it once"));
        }
    }
    Ok(found)
}

fn version(table: &PolicyTable) -> Result<u64, Fault> {
    if table.policy.get_ref() != TYPE {
        let remedy = format!("write policy = \"{TYPE}\"");
        return Err(fault(table.policy.span(), "an unknown kind of policy", remedy));
    }
    let version = u64::try_from(*table.version.get_ref()).ok().filter(|version| *version >= 1);
    let version = version
        .ok_or_else(|| fault(table.version.span(), "no version", "count versions from 1"))?;
    if (version == 1) != table.previous.is_none() {
        let remedy = "name the statement id of the version before in `previous`, from version 2 on and not in version 1";
        return Err(fault(table.version.span(), "version and `previous` do not fit", remedy));
    }
    Ok(version)
}

#[derive(Default)]
struct Reader {
    faults: Vec<Fault>,
    principals: BTreeMap<Label, Principal>,
    owners: BTreeMap<custody_core::key::KeyId, Label>,
    platforms: BTreeMap<Label, Platform>,
    roles: BTreeMap<Label, BTreeSet<Label>>,
    used_roles: BTreeSet<Label>,
    used_machines: BTreeSet<Label>,
}

impl Reader {
    /// All faults, in stages: what rests on something that is at fault is not held against it too.
    fn policy(mut self, table: &PolicyTable) -> Result<Policy, Vec<Fault>> {
        let version = self.keep(version(table));
        for (principals, is_person) in [(&table.people, true), (&table.machines, false)] {
            for (name, principal) in principals {
                let made = self.principal(name, principal, is_person);
                self.keep(made);
            }
        }
        self.sound_so_far()?;
        self.platforms = self.platforms(&table.platforms);
        self.sound_so_far()?;
        self.ties(table);
        self.enrolments(table);
        for (name, role) in &table.roles {
            let members = self.role(role).and_then(|members| Ok((parsed(name)?, members)));
            let role = self.keep(members);
            self.roles.extend(role);
        }
        self.sound_so_far()?;
        let root = self.root(&table.root);
        let root = self.keep(root);
        if table.products.is_empty() {
            self.faults.push(fault(0..0, "no product", "define at least one product"));
        }
        let mut products = BTreeMap::new();
        for (name, product) in &table.products {
            let product = self.product(name, product).and_then(|made| Ok((parsed(name)?, made)));
            products.extend(self.keep(product));
        }
        self.sound_so_far()?;
        let used = self.nothing_unused(table);
        self.keep(used);
        let origins = each_once(&table.origins)
            .and_then(|()| table.origins.iter().map(origin).collect::<Result<_, _>>());
        let origins = self.keep(origins);
        let revoked_enrolments = self.keep(enrol::revoked(&table.revoked_enrolments));
        let previous = self.keep(optional(table.previous.as_ref()));
        let expires = self.keep(parsed(&table.expires));
        let instance = self.keep(parsed(&table.instance));
        let clock_skew = self.keep(duration(&table.clock_skew));
        self.sound_so_far()?;
        let whole = (|| {
            Some(Policy {
                version: version?,
                previous: previous?,
                expires: expires?,
                instance: instance?,
                clock_skew: clock_skew?,
                root: root?,
                origins: origins?,
                principals: self.principals,
                platforms: self.platforms,
                revoked_enrolments: revoked_enrolments?,
                roles: self.roles,
                products,
                owners: self.owners,
            })
        })();
        // without a fault nothing is missing
        whole.ok_or_else(Vec::new)
    }

    /// The value, or its fault put aside.
    fn keep<T>(&mut self, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.faults.push(fault)).ok()
    }

    fn sound_so_far(&mut self) -> Result<(), Vec<Fault>> {
        if self.faults.is_empty() { Ok(()) } else { Err(core::mem::take(&mut self.faults)) }
    }

    fn role(&self, table: &RoleTable) -> Result<BTreeSet<Label>, Fault> {
        not_empty(&table.members, "member")?;
        set(table.members.get_ref(), |label| self.is_person(label), "person")
    }

    fn root(&self, table: &RootTable) -> Result<Quorum, Fault> {
        not_empty(&table.people, "person")?;
        let members = set(table.people.get_ref(), |label| self.is_person(label), "person")?;
        let threshold = count(&table.threshold, self.able(&members), "people whose keys hold")?;
        Ok(Quorum { members, threshold })
    }

    fn is_person(&self, label: &Label) -> bool {
        self.principals.get(label).is_some_and(|principal| principal.is_person)
    }

    /// How many of them can still sign.
    fn able(&self, members: &BTreeSet<Label>) -> usize {
        members.iter().filter(|member| !self.is_retired(member)).count()
    }

    /// Whether all keys are revoked. Who is gone stays in the policy, so that the keys stay revoked.
    fn is_retired(&self, label: &Label) -> bool {
        self.principals.get(label).is_some_and(|principal| {
            principal.enrol.is_none() && principal.keys.iter().all(|key| key.revoked)
        })
    }

    fn is_machine(&self, label: &Label) -> bool {
        self.principals.get(label).is_some_and(|principal| !principal.is_person)
    }

    fn principal(
        &mut self,
        name: &Text,
        table: &PrincipalTable,
        is_person: bool,
    ) -> Result<(), Fault> {
        let label: Label = parsed(name)?;
        if table.keys.is_none() && table.enrolled_by.is_none() {
            let remedy = "write keys = [{ key = \"ssh-ed25519 AAAA…\" }]";
            return Err(fault(name.span(), "no keys", remedy));
        }
        let mut keys = Vec::new();
        if let Some(listed) = &table.keys {
            not_empty(listed, "key")?;
        }
        for entry in table.keys.iter().flat_map(Spanned::get_ref) {
            let key: PublicKey = parsed(&entry.key)?;
            if let Some(owner) = self.owners.insert(key.id(), label.clone()) {
                let message = format!("this key stands here already, for {owner}");
                let found = fault(
                    entry.key.span(),
                    message,
                    "give every principal keys of its own, each once",
                );
                return Err(Fault { code: Code::PolicyKeyDuplicate, ..found });
            }
            if !is_person && key.dsse_scheme().is_none() {
                return Err(fault(
                    entry.key.span(),
                    "a security key for a machine",
                    "give machines plain keys",
                ));
            }
            if entry.user_verification && key.dsse_scheme().is_some() {
                let remedy = "enrol a security key, or leave user-verification out";
                return Err(fault(entry.key.span(), "a plain key cannot check its user", remedy));
            }
            let (from, until) = (optional(entry.from.as_ref())?, optional(entry.until.as_ref())?);
            if from.zip(until).is_some_and(|(from, until)| from >= until) {
                return Err(fault(
                    entry.key.span(),
                    "a key that is never valid",
                    "let `from` be before `until`",
                ));
            }
            if let Some(name) = entry.machine.keys().next().filter(|_| is_person) {
                let remedy = "leave `machine` out: people sign wherever they are";
                return Err(fault(name.span(), "a person's key that is tied to a machine", remedy));
            }
            keys.push(Key {
                key,
                from,
                until,
                revoked: entry.revoked,
                user_verification: entry.user_verification,
                machine: BTreeMap::new(),
            });
        }
        if self.principals.insert(label, Principal { is_person, keys, enrol: None }).is_some() {
            return Err(fault(
                name.span(),
                "a person and a machine of one name",
                "give them different names",
            ));
        }
        Ok(())
    }

    fn machines(&mut self, list: &[Text]) -> Result<BTreeSet<Label>, Fault> {
        let machines = set(list, |label| self.is_machine(label), "machine")?;
        self.used_machines.extend(machines.iter().cloned());
        Ok(machines)
    }

    /// Roles stand for their members; machines, where they may stand beside roles, for themselves.
    fn members(
        &mut self,
        list: &Spanned<Vec<Text>>,
        machines_too: bool,
    ) -> Result<BTreeSet<Label>, Fault> {
        not_empty(list, "role")?;
        let known = |label: &Label| {
            self.roles.contains_key(label) || (machines_too && self.is_machine(label))
        };
        let mut members = BTreeSet::new();
        for label in set(list.get_ref(), known, "role")? {
            if let Some(role) = self.roles.get(&label) {
                members.extend(role.iter().cloned());
                self.used_roles.insert(label);
            } else {
                self.used_machines.insert(label.clone());
                members.insert(label);
            }
        }
        Ok(members)
    }

    fn product(&mut self, name: &Text, table: &ProductTable) -> Result<Product, Fault> {
        if table.steps.is_empty() {
            let remedy = "define its steps; a product without any lets nothing be verified";
            return Err(fault(name.span(), "a product without steps", remedy));
        }
        not_empty(&table.channels, "channel")?;
        not_empty(&table.desk, "machine")?;
        let phase_names: BTreeSet<Label> =
            table.phases.keys().map(parsed).collect::<Result<_, _>>()?;
        let step_names: BTreeSet<Label> =
            table.steps.keys().map(parsed).collect::<Result<_, _>>()?;
        let mut phases = BTreeMap::new();
        for (name, phase) in &table.phases {
            let label: Label = parsed(name)?;
            let phase = self.phase(phase, &label, &phase_names);
            phases.extend(self.keep(phase).map(|phase| (label, phase)));
        }
        let (mut steps, mut used) = (BTreeMap::new(), BTreeSet::new());
        for (name, step) in &table.steps {
            let label: Label = parsed(name)?;
            let step = self.step(step, &phase_names, &step_names);
            used.extend(self.keep(step).map(|step| {
                let phase = step.phase.clone();
                steps.insert(label, step);
                phase
            }));
        }
        let idle = |name: &&Text| parsed(name).is_ok_and(|label: Label| !used.contains(&label));
        let whole = self.faults.is_empty();
        if let Some(name) = table.phases.keys().find(|name| whole && idle(name)) {
            return Err(fault(
                name.span(),
                "a phase without steps",
                "give it a step, or remove it",
            ));
        }
        each_once(&table.submodules)?;
        Ok(Product {
            source: table.source.get_ref().clone(),
            submodules: table.submodules.iter().map(place).collect::<Result<_, _>>()?,
            lfs: table.lfs,
            source_signatures: table
                .source_signatures
                .as_ref()
                .map(|signatures| self.source_signatures(signatures))
                .transpose()?,
            channels: set(table.channels.get_ref(), |_| true, "channel")?,
            desk: self.machines(table.desk.get_ref())?,
            propose: self.members(&table.propose, true)?,
            resolve: self.members(&table.resolve, false)?,
            phases,
            steps,
        })
    }

    fn source_signatures(
        &mut self,
        table: &SourceSignaturesTable,
    ) -> Result<SourceSignatures, Fault> {
        let people = self.members(&table.people, false)?;
        count(&Spanned::new(table.people.span(), 1), self.able(&people), "people whose keys hold")?;
        let what = match table.what {
            SignedSource::Commit => SignedKind::Commit,
            SignedSource::Tag => SignedKind::Tag,
        };
        Ok(SourceSignatures { people, what })
    }

    fn phase(
        &mut self,
        table: &PhaseTable,
        own: &Label,
        names: &BTreeSet<Label>,
    ) -> Result<Phase, Fault> {
        not_empty(&table.approve, "role")?;
        let mut approve: Vec<(Label, NonZeroU32)> = Vec::new();
        for entry in table.approve.get_ref() {
            let role: Label = parsed(&entry.role)?;
            let Some(members) = self.roles.get(&role) else {
                return Err(fault(
                    entry.role.span(),
                    format!("there is no role {role}"),
                    "define the role, or mend the name",
                ));
            };
            if approve.iter().any(|(known, _)| *known == role) {
                return Err(fault(
                    entry.role.span(),
                    format!("{role} stands twice"),
                    "name each role once, with its count",
                ));
            }
            let able = self.able(members);
            approve.push((role.clone(), count(&entry.count, able, "people whose keys hold")?));
            self.used_roles.insert(role);
        }
        let earlier = |label: &Label| names.contains(label) && label != own;
        Ok(Phase {
            approve,
            proposer_counts: *table.proposer_counts.get_ref(),
            signoff_max_age: duration(&table.sign_off_max_age)?,
            after: set(&table.after, earlier, "earlier phase")?,
        })
    }

    fn step(
        &mut self,
        table: &StepTable,
        phases: &BTreeSet<Label>,
        steps: &BTreeSet<Label>,
    ) -> Result<Step, Fault> {
        not_empty(&table.perform, "machine")?;
        not_empty(&table.outputs, "output")?;
        if let Receipts::Required = table.receipts.get_ref() {
            let remedy =
                "write receipts = \"none\": this version of Custody has no transparency log to ask";
            return Err(fault(table.receipts.span(), "receipts cannot be required yet", remedy));
        }
        lists(table)?;
        let mut inputs = BTreeSet::new();
        for entry in &table.inputs {
            let from = (entry.step.get_ref(), matches!(entry.release, Release::Other));
            if !inputs.insert(from) {
                let message = format!("{} stands twice", entry.step.get_ref());
                let remedy = "name each step once for each release";
                return Err(fault(entry.step.span(), message, remedy));
            }
        }
        let full = matches!(table.verification.get_ref(), Verification::Full);
        lasting(table, full)?;
        if table.schedule.is_empty() == table.scheduled_by.is_none() {
            return Err(fault(
                table.phase.span(),
                "no one way to get tasks",
                "write either schedule or scheduled-by",
            ));
        }
        let one = |text: &Text, known: &BTreeSet<Label>, what: &str| -> Result<Label, Fault> {
            let label: Label = parsed(text)?;
            if known.contains(&label) {
                return Ok(label);
            }
            Err(fault(
                text.span(),
                format!("there is no {what} {label}"),
                format!("define the {what}, or mend the name"),
            ))
        };
        let input = |entry: &InputTable| {
            let step = one(&entry.step, steps, "step")?;
            let other_release = matches!(entry.release, Release::Other);
            Ok(StepInput { step, other_release, required: entry.required })
        };
        let perform = self.machines(table.perform.get_ref())?;
        let (builders, builders_differ) = self.builders(table, &perform)?;
        Ok(Step {
            phase: one(&table.phase, phases, "phase")?,
            perform,
            schedule: self.machines(&table.schedule)?,
            scheduled_by: table
                .scheduled_by
                .as_ref()
                .map(|text| one(text, steps, "step"))
                .transpose()?,
            source: table.source,
            inputs: table.inputs.iter().map(input).collect::<Result<_, Fault>>()?,
            externals: table.externals.iter().map(place).collect::<Result<_, _>>()?,
            downloads: table.downloads.iter().map(download).collect::<Result<_, _>>()?,
            record_downloads: table.record_downloads.as_ref().is_some_and(|it| *it.get_ref()),
            outputs: table.outputs.get_ref().iter().map(parsed).collect::<Result<_, _>>()?,
            network: table.network,
            full,
            irrevocable: table.irrevocable,
            destinations: table.destinations.iter().map(destination).collect::<Result<_, _>>()?,
            max_age: duration(&table.max_age)?,
            summaries: self.machines(&table.summaries)?,
            images: machine::images(table.images.as_ref(), steps)?,
            machine: self.demands(&table.machine)?,
            builders,
            builders_differ,
        })
    }

    /// A rule that nothing uses is a rule that somebody believes in wrongly.
    fn nothing_unused(&self, table: &PolicyTable) -> Result<(), Fault> {
        let unused = |name: &&Text, used: &BTreeSet<Label>| {
            parsed(name).is_ok_and(|label: Label| !used.contains(&label))
        };
        if let Some(name) = table.roles.keys().find(|name| unused(name, &self.used_roles)) {
            return Err(fault(name.span(), "a role that no rule names", "use it, or remove it"));
        }
        let retired = |name: &&Text| parsed(name).is_ok_and(|label| self.is_retired(&label));
        let mut idle = table.machines.keys().filter(|name| unused(name, &self.used_machines));
        if let Some(name) = idle.find(|name| !retired(name)) {
            return Err(fault(name.span(), "a machine that no rule names", "use it, or remove it"));
        }
        Ok(())
    }
}

/// What cannot be taken back is verified to the root, and what is published cannot be.
fn lasting(table: &StepTable, full: bool) -> Result<(), Fault> {
    if table.irrevocable && (!full || !table.summaries.is_empty()) {
        let remedy = "write verification = \"full\" and no summaries: what cannot be taken back is checked to the root";
        return Err(fault(
            table.verification.span(),
            "an irrevocable step that verifies less than everything",
            remedy,
        ));
    }
    if let Some(place) = table.destinations.first().filter(|_| !table.irrevocable) {
        let remedy = "write irrevocable = true: what users have cannot be taken back";
        return Err(fault(place.span(), "a step that publishes and is not irrevocable", remedy));
    }
    Ok(())
}

/// Places and names of a step: each once, and downloads not beside what makes them meaningless.
fn lists(table: &StepTable) -> Result<(), Fault> {
    let StepTable { externals, downloads, destinations, .. } = table;
    for list in [externals, downloads, destinations, table.outputs.get_ref()] {
        each_once(list)?;
    }
    if let Some(first) = table.downloads.first().filter(|_| !table.destinations.is_empty()) {
        let remedy = "remove the downloads: a step that publishes runs no command";
        return Err(fault(first.span(), "downloads of a step that publishes", remedy));
    }
    match &table.record_downloads {
        Some(record) if table.downloads.is_empty() => {
            let remedy = "name in `downloads` where it may fetch, or remove record-downloads";
            Err(fault(record.span(), "nothing to record", remedy))
        }
        _ => Ok(()),
    }
}

/// A list names each thing once.
fn each_once(list: &[Text]) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    match list.iter().find(|text| !seen.insert(text.get_ref())) {
        None => Ok(()),
        Some(text) => {
            let message = format!("{:?} stands twice", text.get_ref());
            Err(fault(text.span(), message, "name it once"))
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::new(fault.code, "policy", fault.remedy, fault.message.clone())
    }
}
