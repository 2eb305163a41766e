//! Machines whose keys are enrolled: who may do that, and what must be proved for it.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use custody_core::envelope::StatementId;
use custody_core::statement::Label;

use super::tables::{DemandTable, PolicyTable, PrincipalTable, ProofTable, Text, WantedStanding};
use super::{Fault, Reader, duration, each_once, fault, not_empty, parsed, set};
use crate::policy::Enrol;

impl Reader {
    /// The rules by which the keys of all machines are enrolled. Needs the machines and the platforms.
    pub(super) fn enrolments(&mut self, table: &PolicyTable) {
        for (name, person) in &table.people {
            let refused = not_of_people(person);
            self.keep(refused.map_err(|span| {
                fault(
                    span,
                    format!("{} is a person", name.get_ref()),
                    "give people keys of their own",
                )
            }));
        }
        for (name, machine) in &table.machines {
            let made = parsed::<Label>(name).and_then(|label| Ok((self.enrol(machine)?, label)));
            if let Some((Some(enrol), label)) = self.keep(made) {
                self.used_machines.extend(enrol.by.iter().cloned());
                if let Some(principal) = self.principals.get_mut(&label) {
                    principal.enrol = Some(enrol);
                }
            }
        }
    }

    fn enrol(&self, table: &PrincipalTable) -> Result<Option<Enrol>, Fault> {
        let (Some(by), Some(demands), Some(longest)) =
            (&table.enrolled_by, &table.enrol, &table.max_certificate)
        else {
            return match not_of_people(table) {
                Ok(()) => Ok(None),
                Err(span) => {
                    let message = "half of an enrolment";
                    let remedy = "write enrolled-by, enrol and max-certificate, or none of them";
                    Err(fault(span, message, remedy))
                }
            };
        };
        not_empty(by, "machine")?;
        not_empty(demands, "fact")?;
        let machines = set(by.get_ref(), |label| self.is_machine(label), "machine")?;
        if let Some(text) = by.get_ref().iter().find(|text| !self.has_keys(text)) {
            let message = format!("{} has no key of its own here", text.get_ref());
            return Err(fault(text.span(), message, "name a machine whose keys the policy lists"));
        }
        Ok(Some(Enrol {
            by: machines,
            demands: self.demands(&demands.get_ref().iter().map(proved).collect::<Vec<_>>())?,
            max_certificate: duration(longest)?,
        }))
    }

    /// Whoever enrols others is known by a key of the policy.
    fn has_keys(&self, name: &Text) -> bool {
        let principal = parsed::<Label>(name).ok().and_then(|label| self.principals.get(&label));
        principal.is_some_and(|principal| !principal.keys.is_empty())
    }
}

/// A certificate says what was proved, and nothing else.
fn proved(entry: &ProofTable) -> DemandTable {
    let (fact, is) = (entry.fact.clone(), entry.is.clone());
    DemandTable { fact, is, standing: WantedStanding::Verified }
}

/// Where it says something of enrolment.
fn not_of_people(table: &PrincipalTable) -> Result<(), core::ops::Range<usize>> {
    let by = table.enrolled_by.as_ref().map(toml::Spanned::span);
    let demands = table.enrol.as_ref().map(toml::Spanned::span);
    let longest = table.max_certificate.as_ref().map(toml::Spanned::span);
    by.or(demands).or(longest).map_or(Ok(()), Err)
}

/// Certificates that never count again.
pub(super) fn revoked(list: &[Text]) -> Result<BTreeSet<StatementId>, Fault> {
    each_once(list)?;
    list.iter().map(parsed).collect::<Result<Vec<_>, _>>().map(|ids| ids.into_iter().collect())
}
