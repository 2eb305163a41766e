//! `custody enrol serve`

use std::net::{SocketAddr, TcpListener};

use clap::Args;
use custody_core::json::Value;
use custody_core::limits::REQUEST_BYTES;
use custody_core::statement::EnrolmentRequest;
use custody_core::{Code, Refusal};
use custody_run::enrol::ENVELOPE_TYPE;

use super::counter::{CHALLENGE_LIFE, Counter, Granted};
use super::http::{self, Answer, Fault, Request};
use crate::commands::run::cancelled;
use crate::context::{KeyArgs, StoreArgs, now, trusted};
use crate::error::Error;
use crate::tree::shown;
use crate::ui::{Ui, refusal_json};

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// Where to listen. It speaks plain HTTP: put it behind a proxy that speaks TLS
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8470")]
    listen: SocketAddr,
}

pub(crate) fn run(args: &ServeArgs, ui: &Ui) -> Result<(), Error> {
    let store = args.store.open()?;
    let policies = trusted(&store, now()?)?;
    let signer = args.key.open()?;
    let (_, policy) = policies.newest();
    let owner = policy.owner(&signer.public_key().id());
    let enrols = policy.principals.values().filter_map(|machine| machine.enrol.as_ref());
    if !owner.is_some_and(|owner| enrols.into_iter().any(|rules| rules.by.contains(owner))) {
        let at = format!("--key {}", args.key.key);
        let expected =
            format!("a key of a machine that policy {} lets enrol others", policy.version);
        let found = owner.map_or_else(|| signer.public_key().to_openssh(), ToString::to_string);
        let advice = "start it with the key of a machine that the policy names in an enrolled-by";
        return Err(Refusal::new(Code::PolicyKeyPurpose, at, expected, found)
            .advising(advice)
            .into());
    }
    let unusable = || args.listen.to_string();
    let listener =
        TcpListener::bind(args.listen).map_err(|error| Error::io(unusable().as_ref())(error))?;
    let address = listener.local_addr().map_err(|error| Error::io(unusable().as_ref())(error))?;
    let stop = cancelled()?;
    let counter = Counter::new(&store, &*signer);
    ui.result(&format!("enrolling workers at http://{address}"), || {
        Value::object([("ok", Value::Bool(true)), ("listen", Value::text(address))])
    });
    let handle = |request: Result<Request, Fault>| answer(&counter, request, ui);
    http::serve(&listener, REQUEST_BYTES, &stop, &handle)
        .map_err(|error| Error::io(unusable().as_ref())(error))
}

fn answer(counter: &Counter<'_>, request: Result<Request, Fault>, ui: &Ui) -> Answer {
    let request = match request {
        Ok(request) => request,
        Err(fault) => return refused(fault.status(), &unread(fault)),
    };
    let result = counter.admit().map_err(Error::from).and_then(|()| {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/v1/challenge") => challenge(counter),
            ("POST", "/v1/enrol") => enrol(counter, &request.body, ui),
            (_, "/v1/challenge" | "/v1/enrol") => Ok(refused(405, &elsewhere(&request))),
            _ => Ok(refused(404, &elsewhere(&request))),
        }
    });
    result.unwrap_or_else(|error| {
        let refusal = match error {
            Error::Refused(refusal) => refusal,
            // the system's own words are for whoever runs the service
            other => {
                ui.note(&format!("{other:?}"));
                Refusal::new(Code::GateUnavailable, "the enrolment service", "an answer", "a fault")
            }
        };
        ui.note(&format!("refused: {}", shown(&refusal.to_string())));
        refused(status(refusal.code), &refusal)
    })
}

fn challenge(counter: &Counter<'_>) -> Result<Answer, Error> {
    let challenge = counter.challenge()?;
    let body = Value::object([
        ("challenge", Value::text(challenge)),
        ("seconds", Value::Integer(CHALLENGE_LIFE.as_secs())),
    ]);
    Ok(Answer { status: 200, media_type: "application/json", body: body.to_line() })
}

fn enrol(counter: &Counter<'_>, body: &[u8], ui: &Ui) -> Result<Answer, Error> {
    let Granted { envelope, enrolment } = counter.enrol(EnrolmentRequest::parse(body)?, now()?)?;
    let (machine, key, until) = (&enrolment.machine, enrolment.key.id(), enrolment.until);
    ui.note(&format!("enrolled {machine}: key {key} until {until}, certificate {}", envelope.id()));
    Ok(Answer { status: 200, media_type: ENVELOPE_TYPE, body: envelope.to_json() })
}

fn refused(status: u16, refusal: &Refusal) -> Answer {
    Answer { status, media_type: "application/json", body: refusal_json(refusal).to_line() }
}

const fn status(code: Code) -> u16 {
    match code {
        Code::GateUnavailable => 429,
        _ if code.undecided() => 503,
        _ => 403,
    }
}

fn unread(fault: Fault) -> Refusal {
    let at = "the request";
    match fault {
        Fault::Malformed => Refusal::new(Code::ParseFieldType, at, "HTTP/1.1", "something else"),
        Fault::NoLength => Refusal::new(Code::ParseFieldMissing, at, "content-length", "nothing"),
        Fault::TooLarge => {
            let expected = format!("at most {REQUEST_BYTES} bytes");
            Refusal::new(Code::ParseSizeExceeded, at, expected, "more")
        }
    }
}

fn elsewhere(request: &Request) -> Refusal {
    let found = shown(&format!("{} {}", request.method, request.path));
    let expected = "POST /v1/challenge or POST /v1/enrol";
    Refusal::new(Code::ParseFieldType, "the request", expected, found)
}
