//! Whether this machine may do the work, held against what the policy demands before it begins, and
//! the clock by which it says when.

use custody_core::envelope::StatementId;
use custody_core::statement::{Manifest, Task, UsedImage, binding};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_verify::Accepted;

use super::Worker;
use crate::container;
use crate::execute::Confinement;
use crate::gate;
use crate::measure::measure;
use crate::measure::platform::Collected;

impl Worker<'_> {
    /// Nothing is signed with a key whose time is over: the task would be done, and its manifest of no
    /// use to anybody.
    pub(super) fn still_certified(&self, now: Time) -> Result<(), Refusal> {
        match self.certificate {
            Some((id, until)) if now >= until => {
                let at = format!("certificate {}", id.short());
                let expected = format!("a time before {until}");
                Err(Refusal::new(Code::PolicyKeyExpired, at, expected, now.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Whether there is anything that the machine of this task must be.
    pub(super) fn is_judged(&self, accepted: &Accepted<'_>, task: &Task) -> Result<bool, Refusal> {
        let policies = gate::policies(self.store, (self.clock)())?;
        let key = self.signer.public_key().id();
        // the newest judges at gates, and for those who hold a file the one that was approved under
        let demanded = policies.iter().any(|(_, policy)| {
            let product = policy.product(&accepted.release().product);
            product
                .and_then(|product| product.step(&task.step))
                .is_ok_and(|step| policy.demands(step, &key))
        });
        Ok(demanded || self.certificate.is_some() || !self.platforms.is_empty())
    }

    /// Whether the policy takes the machine that this manifest is about to tell of.
    pub(super) fn suits(&self, mut draft: Manifest, collected: &Collected) -> Result<(), Refusal> {
        collected.clone().enter(&mut draft);
        gate::machine(self.store, &draft, &self.signer.public_key().id(), (self.clock)())
    }

    /// The platforms' words on this machine, bound to the task and to the key where they let us.
    pub(super) fn collect_from_platforms(&self, task: StatementId) -> Result<Collected, Refusal> {
        let binding = binding(&task.0, &self.signer.public_key().id());
        Collected::from(self.platforms, &binding)
    }
}

/// What is measured of the machine that a task runs on, and of the image that it runs in.
pub(super) fn environment(
    task: &Task,
    confinement: &Confinement,
    image: Option<(&UsedImage, &str)>,
) -> Vec<(String, String)> {
    let mut environment = measure(confinement);
    if task.downloads.is_some() {
        environment.retain(|(name, _)| name != "network");
        environment.push(("network".into(), "downloads".into()));
        environment.sort();
    }
    match image {
        Some((image, engine)) => container::contained(environment, image, engine),
        None => environment,
    }
}

/// How much a clock may be put forward while a task is performed.
const ADJUSTED: u64 = 300;

/// The time that passes by a clock that nobody sets, and that goes on while the machine sleeps.
pub(super) struct Stopwatch {
    started: Time,
    at: i64,
}

impl Stopwatch {
    pub(super) fn start(clock: fn() -> Time) -> Self {
        Self { started: clock(), at: uptime() }
    }

    /// Nothing is signed with a time that has not come yet.
    pub(super) fn agrees_with(&self, now: Time) -> Result<(), Refusal> {
        let passed = u64::try_from(uptime().saturating_sub(self.at)).unwrap_or_default();
        let latest = self.started.plus(passed.saturating_add(ADJUSTED));
        if now <= latest {
            return Ok(());
        }
        let (expected, found) = (format!("a time by {latest}"), now.to_string());
        Err(Refusal::new(Code::TimeUntrusted, "the clock, which was put forward", expected, found))
    }
}

fn uptime() -> i64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    rustix::time::clock_gettime(clock).tv_sec
}
