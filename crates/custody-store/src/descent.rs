//! What came from something: the walk against the direction of [`closure`](Store::closure).

use std::collections::{BTreeMap, BTreeSet};

use custody_core::Refusal;
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, Payload as _, StatementId};
use custody_core::statement::Statement;
use rusqlite::Transaction;

use crate::evidence::{incoming, row};
use crate::fault::{Fault, corrupt};
use crate::index::{Kind, Relation};
use crate::store::Store;

/// Why a statement is among what came from something. Of several reasons it is the first found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// It was asked about itself.
    Asked,
    /// It names this statement in this way.
    Names(Relation, StatementId),
    /// It lists a file of these bytes: used, made or verified.
    Lists(Relation, Sha256),
    /// Its own bytes are a file that a step made: a task by a decision step.
    IsFile(Sha256),
}

/// A statement that claims to descend from what was asked about.
#[derive(Clone, Debug)]
pub struct Descendant {
    /// The statement, hashed again.
    pub envelope: Envelope,
    /// Why it is here.
    pub because: Because,
    /// When it arrived, counted from the first statement of the store.
    pub arrival: i64,
}

impl Store {
    /// All statements that claim to descend from these statements or files, and those statements
    /// themselves as far as they are here, in the order of arrival.
    ///
    /// Rather too much than too little: whatever names something found is found too, and so is what
    /// used the same bytes as something found has made, empty files apart. Nobody verified anything of
    /// it. A statement that is not here is followed all the same.
    pub fn descent(
        &self,
        statements: &[StatementId],
        files: &[Sha256],
    ) -> Result<Vec<Descendant>, Refusal> {
        self.read(|db| {
            check_links(db)?;
            let mut walk = Walk { by_bytes: tasks_by_bytes(db)?, ..Walk::default() };
            for id in statements {
                walk.statement(db, *id)?;
            }
            for file in files {
                walk.file(db, file, &[Relation::Input, Relation::Product, Relation::Verified])?;
            }
            while let Some(seq) = walk.pending.pop_first() {
                walk.visit(db, seq)?;
            }
            Ok(walk.found.into_values().collect())
        })
    }
}

#[derive(Default)]
struct Walk {
    pending: BTreeSet<i64>,
    reasons: BTreeMap<i64, Because>,
    found: BTreeMap<i64, Descendant>,
    named: BTreeSet<Sha256>,
    /// The tasks, by the SHA-256 of what was signed.
    by_bytes: BTreeMap<Sha256, Vec<i64>>,
}

impl Walk {
    fn reach(&mut self, seq: i64, because: Because) {
        self.reasons.entry(seq).or_insert(because);
        if !self.found.contains_key(&seq) {
            self.pending.insert(seq);
        }
    }

    fn statement(&mut self, db: &Transaction<'_>, id: StatementId) -> Result<(), Fault> {
        if let Some(seq) = crate::evidence::seq_of(db, id)? {
            self.reach(seq, Because::Asked);
        }
        self.whoever_names(db, id)
    }

    fn whoever_names(&mut self, db: &Transaction<'_>, id: StatementId) -> Result<(), Fault> {
        if self.named.insert(id.0) {
            // all policies name one digest, to be found together; none descends from it
            let is_link = |relation: Relation| relation.is_walked() && relation != Relation::Policy;
            let walked =
                incoming(db, &id.0)?.into_iter().filter(|(relation, _)| is_link(*relation));
            for (relation, source) in walked {
                self.reach(source, Because::Names(relation, id));
            }
        }
        Ok(())
    }

    fn file(&mut self, db: &Transaction<'_>, file: &Sha256, how: &[Relation]) -> Result<(), Fault> {
        let listed = incoming(db, file)?.into_iter().filter(|(relation, _)| how.contains(relation));
        for (relation, source) in listed {
            self.reach(source, Because::Lists(relation, *file));
        }
        for seq in self.by_bytes.get(file).cloned().unwrap_or_default() {
            self.reach(seq, Because::IsFile(*file));
        }
        Ok(())
    }

    fn visit(&mut self, db: &Transaction<'_>, seq: i64) -> Result<(), Fault> {
        let envelope = row(db, seq)?.open()?;
        if let Ok(Statement::Manifest(manifest)) = Statement::parse(envelope.unverified_payload()) {
            for made in manifest.artifacts.iter().filter(|made| made.size > 0) {
                self.file(db, &made.digests.sha256, &[Relation::Input, Relation::Verified])?;
            }
        }
        self.whoever_names(db, envelope.id())?;
        let because = self.reasons.get(&seq).copied().unwrap_or(Because::Asked);
        self.found.insert(seq, Descendant { envelope, because, arrival: seq });
        Ok(())
    }
}

fn tasks_by_bytes(db: &Transaction<'_>) -> Result<BTreeMap<Sha256, Vec<i64>>, Fault> {
    let mut query = db.prepare_cached("SELECT seq FROM statement WHERE kind = ?")?;
    let seqs = query.query_map([Kind::Task.number()], |row| row.get(0))?;
    let mut tasks: BTreeMap<Sha256, Vec<i64>> = BTreeMap::new();
    for seq in seqs.collect::<Result<Vec<i64>, _>>()? {
        let envelope = row(db, seq)?.open()?;
        tasks.entry(Sha256::of(envelope.unverified_payload())).or_default().push(seq);
    }
    Ok(tasks)
}

/// A link that is lost would hide what came from something. The two indexes over links lie apart, so
/// damage to one of them shows as a difference.
fn check_links(db: &Transaction<'_>) -> Result<(), Fault> {
    let count = |from: &str| {
        let sql = format!("SELECT count(*) FROM link {from}");
        db.prepare_cached(&sql)?.query_row([], |row| row.get::<_, i64>(0))
    };
    // the sign keeps SQLite from taking the partial index for the table too, which NOT INDEXED does not
    let table = count("WHERE +relation < 100")?;
    let index = count("INDEXED BY link_walked WHERE relation < 100")?;
    if table == index {
        return Ok(());
    }
    Err(corrupt("the links between statements", format!("{table} of them"), index.to_string())
        .into())
}
