//! Envelopes: put in, merged, found and read back.

use std::collections::{BTreeMap, BTreeSet};

use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, StatementId};
use custody_core::{Code, Refusal};
use rayon::prelude::*;
use rusqlite::{OptionalExtension, Transaction, params};

use crate::fault::{Fault, corrupt};
use crate::index::{Kind, Link, Relation, describe, signer};
use crate::store::{Store, seal};

/// What became of the envelopes that were added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Statements that were not there.
    pub new: usize,
    /// Statements that were there and gained signatures.
    pub merged: usize,
    /// Statements that were there with all these signatures.
    pub known: usize,
}

/// Which statements to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only what arrived after this statement.
    pub after: Option<StatementId>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// An envelope as it is written.
pub(crate) struct Entry<'e> {
    envelope: &'e Envelope,
    kind: Kind,
    links: BTreeSet<(Relation, Sha256)>,
    json: Vec<u8>,
}

impl<'e> Entry<'e> {
    pub(crate) fn of(envelope: &'e Envelope) -> Result<Self, Refusal> {
        let (kind, links) = describe(envelope);
        Ok(Self { envelope, kind, links, json: readable_json(envelope)? })
    }

    pub(crate) fn names(&self, relation: Relation, target: StatementId) -> bool {
        self.links.contains(&(relation, target.0))
    }
}

/// What could not be read back, for lack of signatures or beyond a limit, is not stored.
fn readable_json(envelope: &Envelope) -> Result<Vec<u8>, Refusal> {
    let json = envelope.to_json().into_bytes();
    Envelope::parse(&json)
        .map_err(|refusal| refusal.within(&format!("statement {}", envelope.id())))?;
    Ok(json)
}

/// So many are done before another thread has begun.
const FEW: usize = 16;

fn entries(envelopes: &[Envelope]) -> Result<Vec<Entry<'_>>, Refusal> {
    let entries: Vec<_> = envelopes.par_iter().with_min_len(FEW).map(Entry::of).collect();
    entries.into_iter().collect()
}

fn add_all(db: &Transaction<'_>, entries: &[Entry<'_>]) -> Result<Added, Fault> {
    let mut added = Added::default();
    entries.iter().try_for_each(|entry| add_one(db, entry, &mut added))?;
    Ok(added)
}

impl Store {
    /// Adds envelopes, all or none. A statement that is there already keeps its place and gains the
    /// signatures that it lacks. Durable when it returns.
    ///
    /// Nothing is verified here but that an envelope can be read back: one without signature, or one
    /// that would pass a limit of the format when merged, is refused.
    pub fn add(&self, envelopes: &[Envelope]) -> Result<Added, Refusal> {
        let entries = entries(envelopes)?;
        self.write(|db| add_all(db, &entries))
    }

    /// The same, unless a statement names `target` in this way already: then nothing is added. Of
    /// several processes that do so at once, one is first and the others find what it added.
    pub fn add_first(
        &self,
        envelopes: &[Envelope],
        target: &Sha256,
        relation: Relation,
    ) -> Result<Option<Added>, Refusal> {
        let entries = entries(envelopes)?;
        self.write(|db| {
            let taken = incoming(db, target)?.into_iter().any(|(found, _)| found == relation);
            if taken { Ok(None) } else { add_all(db, &entries).map(Some) }
        })
    }

    /// Whether the statement is there.
    pub fn contains(&self, id: StatementId) -> Result<bool, Refusal> {
        self.read(|db| Ok(seq_of(db, id)?.is_some()))
    }

    /// The statement, hashed again.
    pub fn get(&self, id: StatementId) -> Result<Option<Envelope>, Refusal> {
        Ok(self.get_many(&[id])?.pop().flatten())
    }

    /// The statements in the order asked for, each hashed again, in one snapshot.
    pub fn get_many(&self, ids: &[StatementId]) -> Result<Vec<Option<Envelope>>, Refusal> {
        let rows = self.read(|db| {
            let rows = ids.iter().map(|id| find(db, *id)).collect::<Result<Vec<_>, _>>()?;
            let missed = ids.iter().zip(&rows).filter(|(_, row)| row.is_none());
            check_absent(db, &missed.map(|(id, _)| id.0).collect())?;
            Ok(rows)
        })?;
        let rows = rows.into_par_iter().with_min_len(FEW);
        let envelopes: Vec<_> = rows.map(|row| row.map(|row| row.open()).transpose()).collect();
        envelopes.into_iter().collect()
    }

    /// Statements in the order of their arrival, each hashed again.
    pub fn list(&self, filter: Filter) -> Result<Vec<Envelope>, Refusal> {
        let rows = self.read(|db| {
            let after = filter.after.map(|id| present(db, id)).transpose()?.unwrap_or(0);
            let seqs = seqs(db, filter, after)?;
            seqs.into_iter().map(|seq| row(db, seq)).collect::<Result<Vec<_>, _>>()
        })?;
        open_all(rows)
    }

    /// The statements that name this statement, artifact or key, by relation and arrival.
    pub fn links_to(
        &self,
        target: &Sha256,
        relation: Option<Relation>,
    ) -> Result<Vec<Link>, Refusal> {
        self.read(|db| {
            let incoming = incoming(db, target)?.into_iter();
            let wanted =
                incoming.filter(|(found, _)| relation.is_none_or(|wanted| wanted == *found));
            wanted.map(|(relation, seq)| Ok(Link { relation, source: id_of(db, seq)? })).collect()
        })
    }

    /// The manifests that have an artifact of these bytes among their products, by arrival.
    pub fn manifests_of(&self, sha256: &Sha256) -> Result<Vec<StatementId>, Refusal> {
        Ok(self
            .links_to(sha256, Some(Relation::Product))?
            .into_iter()
            .map(|link| link.source)
            .collect())
    }
}

/// Adds one envelope within a transaction; for acts that are one with another change.
pub(crate) fn add_one(
    db: &Transaction<'_>,
    entry: &Entry<'_>,
    added: &mut Added,
) -> Result<(), Fault> {
    let count = match find(db, entry.envelope.id())? {
        None => insert(db, entry).map(|()| &mut added.new)?,
        Some(row) if merge(db, &row, entry.envelope)? => &mut added.merged,
        Some(_) => &mut added.known,
    };
    *count += 1;
    Ok(())
}

fn insert(db: &Transaction<'_>, entry: &Entry<'_>) -> Result<(), Fault> {
    let kind = entry.kind.number();
    let links = links_seal(entry.links.iter().filter(|(relation, _)| relation.is_walked()));
    db.prepare_cached(
        "INSERT INTO statement (id, kind, links, seal, envelope) VALUES (?, ?, ?, ?, ?)",
    )?
    .execute(params![
        entry.envelope.id().0.as_bytes(),
        kind,
        links,
        row_seal(kind, &links, &entry.json),
        entry.json
    ])?;
    let seq = db.last_insert_rowid();
    entry.links.iter().try_for_each(|(relation, target)| insert_link(db, seq, *relation, target))
}

fn insert_link(
    db: &Transaction<'_>,
    seq: i64,
    relation: Relation,
    target: &Sha256,
) -> Result<(), Fault> {
    let mut link = db
        .prepare_cached("INSERT OR IGNORE INTO link (target, relation, source) VALUES (?, ?, ?)")?;
    link.execute(params![target.as_bytes(), relation.number(), seq])?;
    if relation.is_gathered() {
        let mut arrival = db.prepare_cached(
            "INSERT INTO arrival (target, relation, count) VALUES (?, ?, 1)
             ON CONFLICT DO UPDATE SET count = count + 1",
        )?;
        arrival.execute(params![target.as_bytes(), relation.number()])?;
    }
    Ok(())
}

/// Gives the stored statement the signatures that it lacks; whether there were any.
fn merge(db: &Transaction<'_>, row: &Row, envelope: &Envelope) -> Result<bool, Fault> {
    let known = row.open()?;
    let mut merged = known.clone();
    envelope.signatures().iter().for_each(|signature| merged.add_signature(signature.clone()));
    if merged == known {
        return Ok(false);
    }
    let json = readable_json(&merged)?;
    db.prepare_cached("UPDATE statement SET seal = ?, envelope = ? WHERE seq = ?")?
        .execute(params![row_seal(row.kind, &row.links, &json), json, row.seq])?;
    for (relation, target) in envelope.signatures().iter().filter_map(signer) {
        insert_link(db, row.seq, relation, &target)?;
    }
    Ok(true)
}

/// A statement as it is stored.
pub(crate) struct Row {
    pub(crate) seq: i64,
    pub(crate) id: StatementId,
    pub(crate) kind: i64,
    links: [u8; 32],
    seal: [u8; 32],
    json: Vec<u8>,
}

fn row_seal(kind: i64, links: &[u8], json: &[u8]) -> [u8; 32] {
    seal(&[&kind.to_le_bytes(), links, json])
}

/// A checksum over links in their order.
fn links_seal<'l>(links: impl Iterator<Item = &'l (Relation, Sha256)>) -> [u8; 32] {
    let bytes = |(relation, target): &(Relation, Sha256)| {
        let mut bytes = relation.number().to_le_bytes().to_vec();
        bytes.extend(target.as_bytes());
        bytes
    };
    seal(&[&links.flat_map(bytes).collect::<Vec<u8>>()])
}

impl Row {
    /// The envelope, if it is the one that was stored: signatures by the seal, the rest by the id.
    pub(crate) fn open(&self) -> Result<Envelope, Refusal> {
        if row_seal(self.kind, &self.links, &self.json) != self.seal {
            return Err(self.corrupt("bytes that do not fit their seal"));
        }
        let envelope =
            Envelope::parse(&self.json).map_err(|refusal| self.corrupt(refusal.to_string()))?;
        if envelope.id() == self.id {
            Ok(envelope)
        } else {
            Err(self.corrupt(format!("statement {}", envelope.id())))
        }
    }

    /// The kind, as the seal covers it.
    pub(crate) fn kind(&self) -> Kind {
        Kind::from_number(self.kind).unwrap_or(Kind::Other)
    }

    pub(crate) fn corrupt(&self, found: impl Into<String>) -> Refusal {
        corrupt(format_args!("statement {}", self.id), "the statement as it was stored", found)
    }
}

/// The envelopes of rows, in parallel. Not to be called while the connection is held: a thread that
/// waits here may take up other work that wants it.
pub(crate) fn open_all(rows: Vec<Row>) -> Result<Vec<Envelope>, Refusal> {
    let envelopes: Vec<_> = rows.into_par_iter().with_min_len(FEW).map(|row| row.open()).collect();
    envelopes.into_iter().collect()
}

/// The row at this place. That it is there, an index said.
pub(crate) fn row(db: &Transaction<'_>, seq: i64) -> Result<Row, Fault> {
    let mut query =
        db.prepare_cached("SELECT id, kind, links, seal, envelope FROM statement WHERE seq = ?")?;
    let found = query.query_row([seq], |row| {
        Ok(Row {
            seq,
            id: StatementId(Sha256::from_bytes(row.get(0)?)),
            kind: row.get(1)?,
            links: row.get(2)?,
            seal: row.get(3)?,
            json: row.get(4)?,
        })
    });
    found.optional()?.ok_or_else(|| missing(seq).into())
}

/// The places of the statements to list. What one way through the table finds, another must count.
fn seqs(db: &Transaction<'_>, filter: Filter, after: i64) -> Result<Vec<i64>, Fault> {
    let (of_kind, found_by, counted_by) = match filter.kind {
        Some(_) => ("kind = ?1", "INDEXED BY statement_kind", "NOT INDEXED"),
        None => ("?1 IS NULL", "NOT INDEXED", "INDEXED BY statement_kind"),
    };
    let kind = filter.kind.map(Kind::number);
    let limit = filter.limit.map_or(i64::MAX, i64::from);
    let sql = format!(
        "SELECT seq FROM statement {found_by} WHERE {of_kind} AND seq > ?2 ORDER BY seq LIMIT ?3"
    );
    let mut query = db.prepare_cached(&sql)?;
    let seqs = query.query_map(params![kind, after, limit], |row| row.get(0))?;
    let seqs = seqs.collect::<Result<Vec<i64>, _>>()?;
    let sql = format!(
        "SELECT count(*) FROM (SELECT 1 FROM statement {counted_by} WHERE {of_kind} AND seq > ?2 AND seq <= ?3)"
    );
    let is_page = i64::try_from(seqs.len()) == Ok(limit);
    let last = seqs.last().filter(|_| is_page).copied().unwrap_or(i64::MAX);
    let count: i64 =
        db.prepare_cached(&sql)?.query_row(params![kind, after, last], |row| row.get(0))?;
    if i64::try_from(seqs.len()) == Ok(count) && seqs.is_sorted_by(|a, b| a < b) {
        return Ok(seqs);
    }
    Err(corrupt(
        "the list of statements",
        format!("{count} of them, in order"),
        seqs.len().to_string(),
    )
    .into())
}

/// Whether statements that the index does not know are really not in the table.
pub(crate) fn check_absent(db: &Transaction<'_>, missed: &BTreeSet<Sha256>) -> Result<(), Fault> {
    if missed.is_empty() {
        return Ok(());
    }
    let mut query = db.prepare_cached("SELECT id FROM statement NOT INDEXED")?;
    let mut ids = query.query([])?;
    while let Some(row) = ids.next()? {
        let id = Sha256::from_bytes(row.get(0)?);
        if missed.contains(&id) {
            return Err(corrupt(format_args!("statement {id}"), "an index entry", "none").into());
        }
    }
    Ok(())
}

fn missing(seq: i64) -> Refusal {
    corrupt(format_args!("statement number {seq}"), "the statement that an index names", "nothing")
}

fn find(db: &Transaction<'_>, id: StatementId) -> Result<Option<Row>, Fault> {
    let Some(seq) = seq_of(db, id)? else { return Ok(None) };
    let row = row(db, seq)?;
    if row.id == id {
        Ok(Some(row))
    } else {
        Err(row.corrupt(format!("the index entry of {id}")).into())
    }
}

pub(crate) fn seq_of(db: &Transaction<'_>, id: StatementId) -> Result<Option<i64>, Fault> {
    let mut query = db.prepare_cached("SELECT seq FROM statement WHERE id = ?")?;
    Ok(query.query_row([id.0.as_bytes()], |row| row.get(0)).optional()?)
}

/// The refusal for a statement that the caller names and this store does not have.
pub fn not_kept(at: impl Into<String>, expected: &str) -> Refusal {
    let advice = "compare the id with custody evidence list and the store with --store; \
                  bring what is elsewhere: custody bundle import FILE, or custody evidence add FILE";
    Refusal::new(Code::ChainLinkMissing, at, expected, "nothing").advising(advice)
}

/// The place of a statement that the caller names.
pub(crate) fn present(db: &Transaction<'_>, id: StatementId) -> Result<i64, Fault> {
    if let Some(seq) = seq_of(db, id)? {
        return Ok(seq);
    }
    check_absent(db, &BTreeSet::from([id.0]))?;
    let at = format!("statement {id}");
    Err(not_kept(at, "a statement of this store").into())
}

/// The id of a statement, which table and index must agree on.
pub(crate) fn id_of(db: &Transaction<'_>, seq: i64) -> Result<StatementId, Fault> {
    let mut query = db.prepare_cached("SELECT id FROM statement WHERE seq = ?")?;
    let bytes: Option<[u8; 32]> = query.query_row([seq], |row| row.get(0)).optional()?;
    let id =
        bytes.map(|bytes| StatementId(Sha256::from_bytes(bytes))).ok_or_else(|| missing(seq))?;
    if seq_of(db, id)? == Some(seq) { Ok(id) } else { Err(missing(seq).into()) }
}

/// What names the target, by relation and arrival. Gathered relations are counted, so that none of
/// their links can be missing unnoticed.
pub(crate) fn incoming(
    db: &Transaction<'_>,
    target: &Sha256,
) -> Result<Vec<(Relation, i64)>, Fault> {
    let mut query = db.prepare_cached(
        "SELECT relation, source FROM link WHERE target = ? ORDER BY relation, source",
    )?;
    let links = query.query_map([target.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let links = links.map(|link| known_relation(link?)).collect::<Result<Vec<_>, Fault>>()?;
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    for (relation, _) in links.iter().filter(|(relation, _)| relation.is_gathered()) {
        *counts.entry(relation.number()).or_default() += 1;
    }
    let mut query = db.prepare_cached("SELECT relation, count FROM arrival WHERE target = ?")?;
    let arrived = query.query_map([target.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let arrived: BTreeMap<i64, i64> = arrived.collect::<Result<_, _>>()?;
    if counts == arrived {
        return Ok(links);
    }
    let at = format_args!("what names {target}");
    Err(corrupt(at, format!("links by relation {arrived:?}"), format!("{counts:?}")).into())
}

/// What a statement names among other statements: all of it, by the row's checksum.
pub(crate) fn outgoing(
    db: &Transaction<'_>,
    row: &Row,
) -> Result<BTreeSet<(Relation, Sha256)>, Fault> {
    let mut query =
        db.prepare_cached("SELECT relation, target FROM link WHERE source = ? AND relation < 100")?;
    let links =
        query.query_map([row.seq], |row| Ok((row.get(0)?, Sha256::from_bytes(row.get(1)?))))?;
    let links = links.map(|link| known_relation(link?)).collect::<Result<BTreeSet<_>, Fault>>()?;
    if links_seal(links.iter()) == row.links {
        return Ok(links);
    }
    Err(row.corrupt("other links than it came with").into())
}

fn known_relation<T>((number, end): (i64, T)) -> Result<(Relation, T), Fault> {
    let relation = Relation::from_number(number);
    let relation = relation.ok_or_else(|| corrupt("a link", "a relation", number.to_string()))?;
    Ok((relation, end))
}
