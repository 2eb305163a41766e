//! The worker: gate, stage, execute, measure, sign, store, publish.
//!
//! [`gate`] gathers a complete view and asks the judge; without the [`Accepted`](custody_verify::Accepted)
//! that it gives out nothing in [`run`] goes on. [`stage`], [`source`], [`execute`], [`collect`] and
//! [`hash`] each do one thing with files and know nothing of keys or verdicts. [`downloads`] is the proxy of
//! a command without network, and [`container`] runs commands in images. [`destination`] is where
//! published files go. [`pipeline`] makes the tasks of a phase.

pub mod collect;
pub mod confiner;
pub mod container;
pub mod destination;
pub mod downloads;
pub mod enrol;
pub mod execute;
mod external;
pub mod gate;
pub mod hash;
pub mod measure;
pub mod pipeline;
pub mod repository;
pub mod run;
pub mod source;
pub mod stage;
pub mod users;
