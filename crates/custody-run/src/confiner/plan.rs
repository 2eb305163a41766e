//! What the worker tells the confiner.
//!
//! It is a file on standard input, of records that end with a NUL: a name and, after `=`, a value. Both
//! ends are one program, so it has no version.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use crate::execute::User;

/// What is to be done; see [`Confinement`](crate::execute::Confinement).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each of them may be had without most others")]
pub(crate) struct Flags {
    pub(crate) session: bool,
    pub(crate) privileges: bool,
    pub(crate) processes: bool,
    pub(crate) network: bool,
    pub(crate) filesystem: bool,
    pub(crate) landlock: bool,
}

/// Everything that the confiner must know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) flags: Flags,
    /// The process that must be our parent.
    pub(crate) worker: i32,
    pub(crate) user: Option<User>,
    /// Files by which to join control groups.
    pub(crate) groups: Vec<PathBuf>,
    /// Where no control group counts: bytes for each process.
    pub(crate) memory: Option<u64>,
    /// Where no control group counts: processes of the user.
    pub(crate) count: Option<u64>,
    /// Where the command starts and may write.
    pub(crate) directory: PathBuf,
    /// What it must not see, wherever it is.
    pub(crate) hidden: Vec<PathBuf>,
    /// What it may read beside the system.
    pub(crate) lent: Vec<PathBuf>,
    /// Further directories that it may write to.
    pub(crate) shared: Vec<PathBuf>,
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// Program and arguments; without any, this is a trial of the rest.
    pub(crate) words: Vec<OsString>,
}

/// The working directory of a trial of a view: there is none, and only the view has it.
pub(crate) const TRIAL: &str = "/tmp/trial";

impl Plan {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let mut add = |name: &str, value: &[u8]| {
            records.extend([name.as_bytes(), b"=", value, b"\0"].concat());
        };
        for (name, wanted) in self.flags.named() {
            if wanted {
                add(name, b"");
            }
        }
        let number = |number: u64| number.to_string().into_bytes();
        add("worker", self.worker.to_string().as_bytes());
        if let Some(User { uid, gid }) = self.user {
            add("user", format!("{uid}:{gid}").as_bytes());
        }
        self.memory.iter().for_each(|memory| add("memory", &number(*memory)));
        self.count.iter().for_each(|count| add("count", &number(*count)));
        add("directory", self.directory.as_os_str().as_bytes());
        let lists = [
            ("group", &self.groups),
            ("hidden", &self.hidden),
            ("lent", &self.lent),
            ("shared", &self.shared),
        ];
        for (name, paths) in lists {
            for path in paths {
                add(name, path.as_os_str().as_bytes());
            }
        }
        for (name, value) in &self.variables {
            add("variable", &[name.as_bytes(), b"=", value.as_bytes()].concat());
        }
        self.words.iter().for_each(|word| add("word", word.as_bytes()));
        records
    }

    /// None for what [`Self::write`] does not write.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut plan = Self::default();
        for record in bytes.strip_suffix(b"\0")?.split(|&byte| byte == 0) {
            let (name, value) = pair(record)?;
            let text = || std::str::from_utf8(value).ok();
            let word = OsString::from_vec(value.to_vec());
            match name {
                b"worker" => plan.worker = text()?.parse().ok()?,
                b"user" => {
                    let (uid, gid) = text()?.split_once(':')?;
                    plan.user = Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? });
                }
                b"memory" => plan.memory = Some(text()?.parse().ok()?),
                b"count" => plan.count = Some(text()?.parse().ok()?),
                b"directory" => plan.directory = word.into(),
                b"group" => plan.groups.push(word.into()),
                b"hidden" => plan.hidden.push(word.into()),
                b"lent" => plan.lent.push(word.into()),
                b"shared" => plan.shared.push(word.into()),
                b"variable" => {
                    let (name, value) = pair(value)?;
                    let owned = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
                    plan.variables.push((owned(name), owned(value)));
                }
                b"word" => plan.words.push(word),
                flag => {
                    let mut flags = plan.flags.named_mut().into_iter();
                    *flags.find(|(name, _)| name.as_bytes() == flag)?.1 = true;
                }
            }
        }
        Some(plan)
    }
}

fn pair(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = record.iter().position(|&byte| byte == b'=')?;
    Some((record.get(..end)?, record.get(end + 1..)?))
}

impl Flags {
    const fn named_mut(&mut self) -> [(&'static str, &mut bool); 6] {
        [
            ("session", &mut self.session),
            ("privileges", &mut self.privileges),
            ("processes", &mut self.processes),
            ("network", &mut self.network),
            ("filesystem", &mut self.filesystem),
            ("landlock", &mut self.landlock),
        ]
    }

    fn named(mut self) -> [(&'static str, bool); 6] {
        self.named_mut().map(|(name, wanted)| (name, *wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let word = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let plan = Plan {
            flags: Flags { session: true, landlock: true, ..Flags::default() },
            worker: 17,
            user: Some(User { uid: 1, gid: 2 }),
            groups: vec!["/sys/fs/cgroup/x/cgroup.procs".into()],
            memory: Some(u64::MAX),
            count: None,
            directory: word(b"/var/tmp/\xff run").into(),
            hidden: vec!["/a=b".into(), "/c".into()],
            lent: vec!["/key".into()],
            shared: vec!["/cache".into()],
            variables: vec![(word(b"A"), word(b"=\n")), (word(b"B"), word(b""))],
            words: vec![word(b"sh"), word(b""), word(b"-c\xfe")],
        };
        assert_eq!(Plan::read(&plan.write()), Some(plan));
    }

    #[test]
    fn anything_else_is_refused() {
        let good = Plan { worker: 1, ..Plan::default() }.write();
        assert!(Plan::read(&good).is_some());
        let cut = good.strip_suffix(b"\0").unwrap();
        let strange = [&good[..], b"insecure=\0"].concat();
        let no_number = [&good[..], b"memory=much\0"].concat();
        for bad in [b"", cut, &strange[..], &no_number] {
            assert_eq!(Plan::read(bad), None);
        }
    }
}
