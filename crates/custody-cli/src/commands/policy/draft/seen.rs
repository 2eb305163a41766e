//! What can be seen in evidence of who did what. All of it is claims.

use std::collections::{BTreeMap, BTreeSet};

use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, Payload as _, PolicyText, Signature, StatementId};
use custody_core::key::{KeyId, PublicKey};
use custody_core::sshsig::SshSignature;
use custody_core::statement::{
    Image, InputOrigin, Label, Manifest, Origin, Request, Statement, Task,
};
use custody_verify::Policy;

/// Who seems to have signed.
#[derive(Clone, Debug, Default)]
pub(super) struct Principal {
    /// Keys as a policy writes them, or blanks.
    pub(super) keys: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) people: BTreeMap<String, Principal>,
    pub(super) machines: BTreeMap<String, Principal>,
    /// People by the role in which they approved.
    pub(super) roles: BTreeMap<String, BTreeSet<String>>,
    /// People who proposed.
    pub(super) proposers: BTreeSet<String>,
    pub(super) instances: BTreeSet<String>,
    pub(super) releases: BTreeSet<String>,
    pub(super) products: BTreeMap<String, Product>,
}

#[derive(Debug, Default)]
pub(super) struct Product {
    pub(super) sources: BTreeSet<String>,
    pub(super) channels: BTreeSet<String>,
    pub(super) desk: BTreeSet<String>,
    /// Machines that proposed.
    pub(super) proposing: BTreeSet<String>,
    pub(super) people_propose: bool,
    pub(super) phases: BTreeMap<String, Phase>,
    pub(super) steps: BTreeMap<String, Step>,
}

#[derive(Debug, Default)]
pub(super) struct Phase {
    /// The fewest people in each role who approved together.
    pub(super) approve: BTreeMap<String, usize>,
    pub(super) proposer_approved: bool,
    pub(super) after: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) phase: String,
    pub(super) perform: BTreeSet<String>,
    pub(super) schedule: BTreeSet<String>,
    pub(super) scheduled_by: Option<String>,
    pub(super) source: bool,
    /// Steps, and whether of another release.
    pub(super) inputs: BTreeSet<(String, bool)>,
    pub(super) externals: BTreeSet<String>,
    pub(super) downloads: BTreeSet<String>,
    /// Whether some task did not pin them.
    pub(super) records: bool,
    pub(super) outputs: BTreeSet<String>,
    pub(super) network: bool,
    pub(super) destinations: BTreeSet<String>,
    /// Digests of container images.
    pub(super) images: BTreeSet<String>,
    /// What workers claimed of isolation and images, by name.
    pub(super) machine: BTreeMap<String, BTreeSet<String>>,
    /// The longest time from task to run, in seconds.
    pub(super) waited: u64,
    pub(super) runs: usize,
}

impl Seen {
    pub(super) fn of(envelopes: &[Envelope]) -> Self {
        Reader::new(envelopes).read()
    }
}

struct Reader<'e> {
    statements: BTreeMap<StatementId, (Statement, &'e Envelope)>,
    /// The statement whose manifest lists a file of these bytes.
    makers: BTreeMap<Sha256, StatementId>,
    /// What is known of keys: their owner's name, if anything gives one, and the key.
    names: BTreeMap<KeyId, String>,
    keys: BTreeMap<KeyId, PublicKey>,
    seen: Seen,
}

impl<'e> Reader<'e> {
    fn new(envelopes: &'e [Envelope]) -> Self {
        let mut reader = Self {
            statements: BTreeMap::new(),
            makers: BTreeMap::new(),
            names: BTreeMap::new(),
            keys: BTreeMap::new(),
            seen: Seen::default(),
        };
        for envelope in envelopes {
            if envelope.payload_type() == PolicyText::TYPE {
                reader.recorded_policy(envelope);
            } else if let Ok(statement) = Statement::parse(envelope.unverified_payload()) {
                if let Statement::Manifest(manifest) = &statement {
                    let made = manifest.artifacts.iter().map(|made| made.digests.sha256);
                    reader.makers.extend(made.map(|made| (made, envelope.id())));
                }
                reader.statements.insert(envelope.id(), (statement, envelope));
            }
        }
        reader
    }

    /// A policy that lies in the evidence gives names to keys. They are names only.
    fn recorded_policy(&mut self, envelope: &Envelope) {
        let text = String::from_utf8_lossy(envelope.unverified_payload());
        let Ok(policy) = Policy::parse(&text) else { return };
        for (name, principal) in &policy.principals {
            for entry in &principal.keys {
                self.names.entry(entry.key.id()).or_insert_with(|| name.to_string());
                self.keys.insert(entry.key.id(), entry.key.clone());
            }
        }
    }

    fn read(mut self) -> Seen {
        let statements = std::mem::take(&mut self.statements);
        // sign-offs first: they say whose key it is
        for (statement, envelope) in statements.values() {
            if let Statement::Signoff(signoff) = statement {
                for signature in envelope.signatures() {
                    self.signer(signature, Some(&signoff.person));
                }
            }
        }
        self.statements = statements.clone();
        for (id, (statement, envelope)) in &statements {
            match statement {
                Statement::Request(request) => self.request(request, envelope),
                Statement::Authorization(_) => self.authorization(*id, envelope),
                Statement::Task(task) => self.task(task, envelope),
                Statement::Manifest(manifest) => self.manifest(manifest, envelope),
                _ => {}
            }
        }
        self.seen
    }

    /// The name of whoever seems to have signed, and whether it is a person.
    fn signer(&mut self, signature: &Signature, person: Option<&Label>) -> Option<(String, bool)> {
        let ssh = SshSignature::parse(&signature.sig).ok().map(|ssh| ssh.claimed_key().clone());
        let is_person = ssh.is_some();
        let id = match &ssh {
            Some(key) => key.id(),
            None => signature.keyid.as_deref()?.parse::<KeyId>().ok()?,
        };
        self.keys.extend(ssh.map(|key| (id, key)));
        if let Some(person) = person.filter(|_| is_person) {
            self.names.entry(id).or_insert_with(|| person.to_string());
        }
        let kind = if is_person { &mut self.seen.people } else { &mut self.seen.machines };
        let blank = if is_person { "FILL-IN-person" } else { "FILL-IN-machine" };
        let name = self.names.entry(id).or_insert_with(|| format!("{blank}-{}", kind.len() + 1));
        let key = self.keys.get(&id);
        let key =
            key.map_or_else(|| format!("FILL-IN-key-with-the-id-{id}"), PublicKey::to_openssh);
        kind.entry(name.clone()).or_default().keys.insert(key);
        Some((name.clone(), is_person))
    }

    fn signers(&mut self, envelope: &Envelope) -> Vec<(String, bool)> {
        envelope.signatures().iter().filter_map(|signature| self.signer(signature, None)).collect()
    }

    fn machines(&mut self, envelope: &Envelope) -> Vec<String> {
        let signers = self.signers(envelope).into_iter();
        signers.filter(|(_, is_person)| !is_person).map(|(name, _)| name).collect()
    }

    fn find<T: Clone>(
        &self,
        id: StatementId,
        part: impl Fn(&Statement) -> Option<&T>,
    ) -> Option<T> {
        part(&self.statements.get(&id)?.0).cloned()
    }

    fn request_of(&self, task: &Task) -> Option<Request> {
        let authorization = self.find(task.authorization, Statement::as_authorization)?;
        self.find(authorization.request, Statement::as_request)
    }

    fn product(&mut self, request: &Request) -> &mut Product {
        self.seen.products.entry(request.release.product.to_string()).or_default()
    }

    fn request(&mut self, request: &Request, envelope: &Envelope) {
        let signers = self.signers(envelope);
        self.seen.instances.insert(request.release.instance.to_string());
        self.seen.releases.insert(request.release.to_string());
        let after: Vec<String> = request
            .builds_on
            .iter()
            .filter_map(|entry| {
                let manifest = self.find(entry.manifest, Statement::as_manifest)?;
                let earlier = self.request_of(&self.find(manifest.task, Statement::as_task)?)?;
                let same = earlier.release == request.release && earlier.phase != request.phase;
                same.then(|| earlier.phase.to_string())
            })
            .collect();
        let product = self.product(request);
        product.sources.insert(request.source.uri.clone());
        product.channels.insert(request.release.channel.to_string());
        product.phases.entry(request.phase.to_string()).or_default().after.extend(after);
        for (name, is_person) in signers {
            if is_person {
                self.product(request).people_propose = true;
                self.seen.proposers.insert(name);
            } else {
                self.product(request).proposing.insert(name);
            }
        }
    }

    fn authorization(&mut self, id: StatementId, envelope: &Envelope) {
        let Some(authorization) = self.find(id, Statement::as_authorization) else { return };
        let Some(request) = self.find(authorization.request, Statement::as_request) else { return };
        let proposers: BTreeSet<String> = self
            .statements
            .get(&authorization.request)
            .map(|(_, envelope)| *envelope)
            .map(|envelope| self.signers(envelope).into_iter().map(|(name, _)| name).collect())
            .unwrap_or_default();
        let desk = self.machines(envelope);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for approver in &authorization.approvers {
            *counts.entry(approver.role.to_string()).or_default() += 1;
            let members = self.seen.roles.entry(approver.role.to_string()).or_default();
            members.insert(approver.person.to_string());
            self.seen.people.entry(approver.person.to_string()).or_default();
        }
        let own = authorization
            .approvers
            .iter()
            .any(|approver| proposers.contains(approver.person.as_str()));
        let product = self.product(&request);
        product.desk.extend(desk);
        let phase = product.phases.entry(request.phase.to_string()).or_default();
        phase.proposer_approved |= own;
        for (role, count) in counts {
            let fewest = phase.approve.entry(role).or_insert(count);
            *fewest = count.min(*fewest);
        }
    }

    fn task(&mut self, task: &Task, envelope: &Envelope) {
        let Some(request) = self.request_of(task) else { return };
        let by_step = self.makers.get(&Sha256::of(envelope.unverified_payload()));
        let by_step = by_step.and_then(|id| self.find(*id, Statement::as_manifest));
        let scheduled = self.machines(envelope);
        let inputs: Vec<(String, bool)> =
            task.inputs.iter().filter_map(|input| self.origin(&request, input.origin)).collect();
        let step = self.product(&request).steps.entry(task.step.to_string()).or_default();
        step.phase = request.phase.to_string();
        match by_step {
            Some(manifest) => step.scheduled_by = Some(manifest.step.to_string()),
            None => step.schedule.extend(scheduled),
        }
        step.source |= task.source.is_some();
        step.network |= task.network;
        step.inputs.extend(inputs);
        step.outputs.extend(task.outputs.iter().map(ToString::to_string));
        step.destinations.extend(task.destination.clone());
        if let Some(Image::Named { digest, .. }) = &task.image {
            step.images.insert(format!("sha256:{digest}"));
        }
        let folder = |uri: &str| {
            uri.rsplit_once('/').map_or_else(|| uri.into(), |(folder, _)| format!("{folder}/"))
        };
        if let Some(downloads) = &task.downloads {
            step.downloads.extend(downloads.from.iter().cloned());
            step.records |= downloads.pinned.is_none();
        }
        step.externals.extend(task.externals.iter().map(|external| folder(&external.uri)));
    }

    /// The step that an input comes from, and whether it is of another release.
    fn origin(&self, request: &Request, origin: Origin) -> Option<(String, bool)> {
        let task = match origin {
            Origin::Task(id) => id,
            Origin::Manifest(id) => self.find(id, Statement::as_manifest)?.task,
        };
        let task = self.find(task, Statement::as_task)?;
        Some((task.step.to_string(), self.request_of(&task)?.release != request.release))
    }

    fn manifest(&mut self, manifest: &Manifest, envelope: &Envelope) {
        let Some(task) = self.find(manifest.task, Statement::as_task) else { return };
        let Some(request) = self.request_of(&task) else { return };
        let perform = self.machines(envelope);
        let used = manifest.inputs.iter().filter_map(|input| match &input.origin {
            InputOrigin::Manifest(id) => self.origin(&request, Origin::Manifest(*id)),
            InputOrigin::External(_) | InputOrigin::Download(_) => None,
        });
        let used: BTreeSet<(String, bool)> = used.collect();
        let step = self.product(&request).steps.entry(manifest.step.to_string()).or_default();
        step.perform.extend(perform);
        for (name, value) in &manifest.environment {
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            let telling = name == "isolation" || name.ends_with(".image-id");
            if telling && name.chars().all(word) {
                step.machine.entry(name.clone()).or_default().insert(value.clone());
            }
        }
        step.inputs.extend(used);
        step.waited = step.waited.max(manifest.started.since(task.created));
        step.runs += 1;
    }
}
