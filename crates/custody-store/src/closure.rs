//! Everything that is needed to judge some statements, and only that.

use std::collections::{BTreeMap, BTreeSet};

use custody_core::Refusal;
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, StatementId};
use rusqlite::Transaction;

use crate::evidence::{Row, check_absent, incoming, open_all, outgoing, present, row, seq_of};
use crate::fault::{Fault, corrupt};
use crate::index::{Kind, POLICIES, Relation};
use crate::store::Store;

impl Store {
    /// The roots and all that they rest on, through any number of statements; for every request found
    /// all its sign-offs, whatever they decide; for every task found all its manifests, intents and
    /// resolutions, and all that these name; and all policies. In one snapshot, in the order of
    /// arrival, each envelope hashed again, with the kind that it had when it came.
    ///
    /// A root that is not there is [`Code::ChainLinkMissing`](custody_core::Code::ChainLinkMissing).
    /// What else is named and not there is left for the judge to miss. What speaks against a
    /// statement is counted, and if the count is wrong nothing is given.
    pub fn closure(&self, roots: &[StatementId]) -> Result<Vec<(Kind, Envelope)>, Refusal> {
        let rows = self.read(|db| {
            let mut walk = Walk::default();
            for id in roots {
                present(db, *id)?;
                walk.follow(db, &id.0)?;
            }
            walk.gather(db, &POLICIES)?;
            while let Some(seq) = walk.pending.pop() {
                walk.visit(db, seq)?;
            }
            walk.check_claims()?;
            let absent = walk.places.iter().filter(|(_, place)| place.is_none());
            check_absent(db, &absent.map(|(target, _)| *target).collect())?;
            Ok(walk.found.into_values().map(|(row, _)| row).collect::<Vec<_>>())
        })?;
        let kinds: Vec<Kind> = rows.iter().map(Row::kind).collect();
        Ok(kinds.into_iter().zip(open_all(rows)?).collect())
    }
}

/// The statements found so far.
#[derive(Default)]
struct Walk {
    pending: Vec<i64>,
    /// By arrival, with what each of them names.
    found: BTreeMap<i64, (Row, BTreeSet<(Relation, Sha256)>)>,
    /// Where an index says that what they name is, if it is there.
    places: BTreeMap<Sha256, Option<i64>>,
    /// What another index says: the statement at this place names this target.
    claims: Vec<(i64, (Relation, Sha256))>,
}

impl Walk {
    fn visit(&mut self, db: &Transaction<'_>, seq: i64) -> Result<(), Fault> {
        if self.found.contains_key(&seq) {
            return Ok(());
        }
        let row = row(db, seq)?;
        let named = outgoing(db, &row)?;
        for (_, target) in named.iter().filter(|(relation, _)| relation.is_rested_on()) {
            self.follow(db, target)?;
        }
        if [Kind::Request, Kind::Task].map(Kind::number).contains(&row.kind) {
            self.gather(db, &row.id.0)?;
        }
        self.found.insert(seq, (row, named));
        Ok(())
    }

    fn follow(&mut self, db: &Transaction<'_>, target: &Sha256) -> Result<(), Fault> {
        if *target != POLICIES && !self.places.contains_key(target) {
            let place = seq_of(db, StatementId(*target))?;
            self.places.insert(*target, place);
            self.pending.extend(place);
        }
        Ok(())
    }

    fn gather(&mut self, db: &Transaction<'_>, target: &Sha256) -> Result<(), Fault> {
        for (relation, source) in
            incoming(db, target)?.into_iter().filter(|(relation, _)| relation.is_gathered())
        {
            self.claims.push((source, (relation, *target)));
            self.pending.push(source);
        }
        Ok(())
    }

    /// Table and indexes are apart, so damage to one of them shows as a difference.
    fn check_claims(&self) -> Result<(), Refusal> {
        for (seq, (relation, target)) in &self.claims {
            if !self.found.get(seq).is_some_and(|(_, named)| named.contains(&(*relation, *target)))
            {
                let expected = format!("{relation:?} of statement number {seq}");
                return Err(corrupt(format_args!("what names {target}"), expected, "none"));
            }
        }
        for (target, seq) in
            self.places.iter().filter_map(|(target, place)| Some((target, (*place)?)))
        {
            if self.found.get(&seq).is_none_or(|(row, _)| row.id.0 != *target) {
                let expected = format!("statement number {seq}");
                return Err(corrupt(format_args!("statement {target}"), expected, "another"));
            }
        }
        Ok(())
    }
}
