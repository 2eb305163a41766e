//! Where trust begins and how far it has come: the pin, the highest policy seen, the latest time
//! verified (design 3.3, "Versions"). None of them ever goes back.

use custody_core::digest::Sha256;
use custody_core::envelope::StatementId;
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use rusqlite::{Connection, Transaction, params};

use crate::fault::{Fault, corrupt};
use crate::store::{Store, seal};

/// What this store's owner trusts and has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The first policy, by statement id.
    pub pin: Option<StatementId>,
    /// The highest policy seen.
    pub floor: Option<Floor>,
    /// The latest time that was verified.
    pub time: Option<Time>,
}

/// A policy below which nothing is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Its version.
    pub version: u64,
    /// Its statement id.
    pub policy: StatementId,
}

impl Store {
    /// What is trusted and was seen.
    pub fn trust(&self) -> Result<Trust, Refusal> {
        self.read(load)
    }

    /// Pins the first policy, once. The same pin again changes nothing; another one is refused with
    /// [`Code::PolicyUntrusted`]. Durable when it returns.
    pub fn pin(&self, policy: StatementId) -> Result<(), Refusal> {
        self.write(|db| {
            let trust = load(db)?;
            match trust.pin {
                Some(pin) if pin != policy => Err(Refusal::new(
                    Code::PolicyUntrusted,
                    "pin",
                    pin.to_string(),
                    policy.to_string(),
                )
                .into()),
                Some(_) => Ok(()),
                None => save(db, &Trust { pin: Some(policy), ..trust }),
            }
        })
    }

    /// Records that a policy, and perhaps a time, was verified, and gives what holds now. A lower version
    /// and an earlier time change nothing; the same version with another id is
    /// [`Code::PolicyEquivocation`]. Durable when it returns.
    pub fn raise_floor(&self, floor: Floor, time: Option<Time>) -> Result<Trust, Refusal> {
        self.write(|db| {
            let before = load(db)?;
            if let Some(known) = before.floor
                && known.version == floor.version
                && known.policy != floor.policy
            {
                let at = format!("policy version {}", floor.version);
                let (known, found) = (known.policy.to_string(), floor.policy.to_string());
                return Err(Refusal::new(Code::PolicyEquivocation, at, known, found).into());
            }
            let highest =
                before.floor.filter(|known| known.version >= floor.version).unwrap_or(floor);
            let after = Trust { floor: Some(highest), time: before.time.max(time), ..before };
            if after != before {
                save(db, &after)?;
            }
            Ok(after)
        })
    }
}

/// Inserts the one row, empty, into a new database.
pub(crate) fn insert_row(db: &Connection) -> Result<(), Fault> {
    db.execute("INSERT INTO trust (one, seal) VALUES (1, x'')", [])?;
    save(db, &Trust::default())
}

fn sealed(trust: &Trust) -> [u8; 32] {
    let id = |id: Option<StatementId>| id.map(|id| id.to_string()).unwrap_or_default();
    let version = trust.floor.map(|floor| floor.version.to_string()).unwrap_or_default();
    let time = trust.time.map(|time| time.to_string()).unwrap_or_default();
    let policy = trust.floor.map(|floor| floor.policy);
    seal(&[id(trust.pin).as_bytes(), version.as_bytes(), id(policy).as_bytes(), time.as_bytes()])
}

fn save(db: &Connection, trust: &Trust) -> Result<(), Fault> {
    let bytes = |id: StatementId| *id.0.as_bytes();
    let version = trust.floor.map(|floor| i64::try_from(floor.version)).transpose();
    let version = version.map_err(|_| {
        Refusal::new(Code::PolicyInvalid, "policy version", "less than 2^63", "a greater number")
    })?;
    db.execute(
        "UPDATE trust SET pin = ?, version = ?, policy = ?, time = ?, seal = ?",
        params![
            trust.pin.map(bytes),
            version,
            trust.floor.map(|floor| bytes(floor.policy)),
            trust.time.map(|time| time.unix().cast_signed()),
            sealed(trust),
        ],
    )?;
    Ok(())
}

fn load(db: &Transaction<'_>) -> Result<Trust, Fault> {
    let id = |bytes: [u8; 32]| StatementId(Sha256::from_bytes(bytes));
    let (trust, found) =
        db.query_row("SELECT pin, version, policy, time, seal FROM trust", [], |row| {
            let floor = row.get::<_, Option<i64>>(1)?.zip(row.get::<_, Option<[u8; 32]>>(2)?);
            let time: Option<i64> = row.get(3)?;
            let trust = Trust {
                pin: row.get::<_, Option<[u8; 32]>>(0)?.map(id),
                floor: floor.map(|(version, policy)| Floor {
                    version: version.cast_unsigned(),
                    policy: id(policy),
                }),
                time: time.and_then(|seconds| Time::from_unix(seconds.cast_unsigned())),
            };
            Ok((trust, row.get::<_, [u8; 32]>(4)?))
        })?;
    if sealed(&trust) == found {
        Ok(trust)
    } else {
        Err(corrupt("trust", "the sealed row", "another one").into())
    }
}
