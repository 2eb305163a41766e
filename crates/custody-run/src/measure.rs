//! What the worker measures of the environment of a run: from outside the command, never from what
//! the command wrote. Claims of the worker, unless a policy knows proof for them.

pub mod platform;

use std::fs;

use custody_core::digest::Sha256;

use crate::execute::{Confinement, Confiner, Enforced};

/// The facts about a run that was confined like this, sorted by name. What cannot be found out is
/// left out.
///
/// * `architecture`, `hostname`, `kernel`: as uname(2) gives them;
/// * `os`: id and version of os-release(5);
/// * `machine`: a digest of machine-id(5), which itself should not be published;
/// * `isolation`: `sandbox` or `process`; `processes`: `contained` or `group`; `network`: `none` or
///   `host`; `privileges`: `fixed` or `open`; `user`: the number of the user that the command ran as;
///   `capabilities`: `none` or `kept`; `filesystem`: `private`, `lent`, `shared` or `host`; `landlock`: its
///   version or `none`; `limits`: `together`, `single` or `none`; `interactive`: `no`;
/// * `worker`: this program and its version.
pub fn measure(confinement: &Confinement) -> Vec<(String, String)> {
    let system = rustix::system::uname();
    let uid = confinement.user.map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid);
    let Confiner { lent, shared, .. } = &confinement.confiner;
    let viewed = match (lent.is_empty(), shared.is_empty()) {
        (_, false) => "shared",
        (false, true) => "lent",
        (true, true) => "private",
    };
    let landlock = confinement.landlock.map_or("none".to_owned(), |version| version.to_string());
    let limits = match confinement.limits {
        Enforced::Together => "together",
        Enforced::Single => "single",
        Enforced::No => "none",
    };
    let either = |yes, one: &str, other: &str| Some(if yes { one } else { other }.to_owned());
    let facts = [
        ("architecture", Some(system.machine().to_string_lossy().into_owned())),
        ("capabilities", either(confinement.privileges, "none", "kept")),
        ("filesystem", either(confinement.filesystem, viewed, "host")),
        ("hostname", Some(system.nodename().to_string_lossy().into_owned())),
        // the command has nothing to read and no terminal; a session alone keeps it from one
        ("interactive", confinement.session.then(|| "no".to_owned())),
        ("isolation", either(confinement.is_sandbox(), "sandbox", "process")),
        ("kernel", Some(kernel(&system))),
        ("landlock", Some(landlock)),
        ("limits", Some(limits.to_owned())),
        ("machine", machine()),
        ("network", either(confinement.network, "none", "host")),
        ("os", os(&first(&["/etc/os-release", "/usr/lib/os-release"]).unwrap_or_default())),
        ("privileges", either(confinement.privileges, "fixed", "open")),
        ("processes", either(confinement.processes, "contained", "group")),
        ("user", Some(uid.to_string())),
        ("worker", Some(concat!("custody ", env!("CARGO_PKG_VERSION")).to_owned())),
    ];
    let printable = |text: String| text.replace(char::is_control, "?");
    let named = |(name, value): (&str, Option<String>)| Some((name.to_owned(), printable(value?)));
    facts.into_iter().filter_map(named).collect()
}

fn kernel(system: &rustix::system::Uname) -> String {
    [system.sysname(), system.release(), system.version()]
        .map(|part| part.to_string_lossy())
        .join(" ")
}

fn first(paths: &[&str]) -> Option<String> {
    paths.iter().find_map(|path| fs::read_to_string(path).ok())
}

/// machine-id(5): "should be considered confidential"; so a digest for this purpose alone.
fn machine() -> Option<String> {
    let id = first(&["/etc/machine-id", "/var/lib/dbus/machine-id"])?;
    Some(Sha256::of(format!("{} machine {}", custody_core::BASE_URI, id.trim()).as_bytes()).short())
}

fn os(release: &str) -> Option<String> {
    let value = |name: &str| {
        let of = |line: &str| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        release.lines().find_map(of).map(|value| value.trim_matches(['"', '\'']).to_owned())
    };
    let version = value("VERSION_ID").map(|version| format!(" {version}")).unwrap_or_default();
    Some(value("ID")? + &version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_sorted_and_clean() {
        let facts = measure(&Confinement { network: true, ..Confinement::default() });
        assert!(facts.is_sorted());
        let of = |name: &str| &facts.iter().find(|(fact, _)| fact == name).unwrap().1;
        assert_eq!(of("network"), "none");
        assert_eq!(of("processes"), "group");
        assert_eq!(of("isolation"), "process");
        assert!(of("kernel").starts_with("Linux "));
        assert_eq!(of("user"), &rustix::process::geteuid().as_raw().to_string());
        let host = measure(&Confinement::default());
        assert!(host.contains(&("network".to_owned(), "host".to_owned())));
        assert!(
            !host.iter().any(|(name, _)| name == "interactive"),
            "nothing keeps it from a terminal"
        );
    }

    #[test]
    fn only_what_reaches_nothing_is_in_a_sandbox() {
        let full = Confinement {
            session: true,
            privileges: true,
            processes: true,
            filesystem: true,
            landlock: Some(7),
            limits: Enforced::Together,
            ..Confinement::default()
        };
        let has = |confinement: &Confinement, name: &str, value: &str| {
            measure(confinement).contains(&(name.to_owned(), value.to_owned()))
        };
        for (name, value) in [
            ("isolation", "sandbox"),
            ("filesystem", "private"),
            ("landlock", "7"),
            ("capabilities", "none"),
            ("limits", "together"),
            ("interactive", "no"),
        ] {
            assert!(has(&full, name, value), "{name}");
        }
        let shared = Confiner { shared: vec!["/cache".into()], ..Confiner::default() };
        let shared = Confinement { confiner: shared, ..full.clone() };
        assert!(has(&shared, "filesystem", "shared") && has(&shared, "isolation", "process"));
        let lent = Confiner { lent: vec!["/key".into()], ..Confiner::default() };
        let lent = Confinement { confiner: lent, ..full.clone() };
        assert!(has(&lent, "filesystem", "lent") && has(&lent, "isolation", "sandbox"));
        for less in [
            Confinement { privileges: false, ..full.clone() },
            Confinement { processes: false, ..full.clone() },
            Confinement { filesystem: false, ..full },
        ] {
            assert!(has(&less, "isolation", "process"), "{less:?}");
        }
    }

    #[test]
    fn the_system_is_known_by_id_and_version() {
        let release = "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(os(release).unwrap(), "debian 12");
        assert_eq!(os("ID=arch\n").unwrap(), "arch");
        assert_eq!(os("NAME=x\n"), None);
    }
}
