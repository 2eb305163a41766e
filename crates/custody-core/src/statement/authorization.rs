//! The authorization: the desk's word that a request has the sign-offs that its policy requires.

use alloc::vec::Vec;

use super::Predicate;
use super::parts::{Descriptor, Label, only_statement};
use crate::Refusal;
use crate::envelope::StatementId;
use crate::json::{Object, Value};
use crate::time::Time;

/// Names the people who approved a request. Whoever relies on it checks their sign-offs again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// The request.
    pub request: StatementId,
    /// Who approved it, in which role, by which sign-off.
    pub approvers: Vec<Approver>,
    /// Before this moment no task may start.
    pub not_before: Time,
    /// At this moment it ends.
    pub expires: Time,
}

/// One person among those who approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approver {
    /// The person.
    pub person: Label,
    /// The role that this approval fills.
    pub role: Label,
    /// The sign-off.
    pub signoff: StatementId,
}

impl Approver {
    fn read(value: Value<'_>, at: &str) -> Result<Self, Refusal> {
        let mut object = value.into_object(at)?;
        let approver = Self {
            person: object.parsed("person")?,
            role: object.parsed("role")?,
            signoff: object.parsed("signoff")?,
        };
        object.finish()?;
        Ok(approver)
    }

    fn write(&self) -> Value<'static> {
        Value::object([
            ("person", Value::text(&self.person)),
            ("role", Value::text(&self.role)),
            ("signoff", Value::text(self.signoff)),
        ])
    }
}

impl Predicate for Authorization {
    const TYPE: &'static str = "https://custody.dev/authorization/v1";

    fn read(subjects: Vec<Descriptor<'_>>, mut object: Object<'_>) -> Result<Self, Refusal> {
        let authorization = Self {
            request: only_statement(&subjects, "request")?,
            approvers: object.each("approvers", Approver::read)?,
            not_before: object.parsed("notBefore")?,
            expires: object.parsed("expires")?,
        };
        object.finish()?;
        Ok(authorization)
    }

    fn write(&self) -> (Vec<Descriptor<'_>>, Value<'static>) {
        let predicate = Value::object([
            ("approvers", Value::list(self.approvers.iter().map(Approver::write))),
            ("notBefore", Value::text(self.not_before)),
            ("expires", Value::text(self.expires)),
        ]);
        (Vec::from([Descriptor::statement("request", self.request)]), predicate)
    }
}
