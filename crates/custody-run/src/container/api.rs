//! Podman and Docker, through the interface that they share, on a Unix socket. Only the making of a
//! container is not shared: Podman's own request can leave out the image's variables, and Docker's
//! takes them away by name.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use custody_core::digest::Sha256;
use custody_core::statement::UsedImage;
use custody_core::{Code, Refusal};
use serde_json::{Value, json};

use super::archive::{Archive, platform, sha256};
use super::http::{self, Answer, Pending};
use super::{Container, LABEL, WORK, podman, started_with};
use crate::execute::is_transient;

/// An engine behind its socket.
#[derive(Debug)]
pub(super) struct Api {
    socket: PathBuf,
    kind: Kind,
    /// Name and version.
    pub(super) engine: String,
    /// What people call it with, to bring an image to where it looks.
    client: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Podman,
    Docker,
}

fn fault(expected: &str, found: impl Into<String>) -> Refusal {
    Refusal::new(Code::GateUnavailable, "container engine", expected, found)
}

/// Not with containerd's store of images, where ids are digests of manifests or of whole indexes.
fn ids_are_of_images(info: &Value) -> bool {
    let status = info.get("DriverStatus").and_then(Value::as_array).into_iter().flatten();
    let mut words = status.filter_map(Value::as_array).flatten().filter_map(Value::as_str);
    !words.any(|word| word.starts_with("io.containerd.snapshotter"))
}

impl Api {
    /// The engine behind this socket, with images where it has them or in `storage`.
    pub(super) fn open(socket: &Path, storage: Option<&Path>) -> Result<Self, Refusal> {
        let mut api = Self {
            socket: socket.into(),
            kind: Kind::Docker,
            engine: String::new(),
            client: String::new(),
        };
        let version = api.good("an engine that answers", "GET", "/version", None)?.json();
        let text = |pointer| version.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let name = text("/Components/0/Name");
        if name.starts_with("Podman") {
            api.kind = Kind::Podman;
        }
        let name = if api.kind == Kind::Podman { "podman" } else { "docker" };
        api.engine = format!("{name} {}", text("/Version"));
        api.client = storage.map_or_else(
            || name.to_owned(),
            |storage| format!("{name} --root {}", storage.join("storage").display()),
        );
        if api.kind == Kind::Docker {
            let info = api.good("what Docker says of itself", "GET", "/info", None)?.json();
            if !ids_are_of_images(&info) {
                let expected = "a Docker that knows images by their ids: \"features\": \
                                {\"containerd-snapshotter\": false} in its daemon.json";
                return Err(fault(expected, format!("{} with containerd's images", api.engine)));
            }
        }
        Ok(api)
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, Refusal> {
        http::ask(&self.socket, method, path, body)
            .map_err(|error| fault("an answer", format!("{method} {path}: {error}")))
    }

    fn good(
        &self,
        expected: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Refusal> {
        let answer = self.ask(method, path, body)?;
        if answer.is_good() { Ok(answer) } else { Err(fault(expected, answer.message())) }
    }

    /// The image with this digest, which is fetched if it is not there.
    pub(super) fn named(&self, name: &str, digest: &Sha256) -> Result<UsedImage, Refusal> {
        let reference = format!("{name}@sha256:{digest}");
        let places = [format!("sha256:{digest}"), reference.clone()];
        let look = || -> Result<Option<Answer>, Refusal> {
            for place in &places {
                let answer = self.ask("GET", &format!("/images/{place}/json"), None)?;
                match answer.status {
                    404 => {}
                    _ if answer.is_good() => return Ok(Some(answer)),
                    _ => return Err(fault("the image, or that it is not there", answer.message())),
                }
            }
            Ok(None)
        };
        let found = if let Some(found) = look()? {
            found
        } else {
            let pull = format!("/images/create?fromImage={name}&tag=sha256:{digest}");
            let pulled = self.ask("POST", &pull, None)?;
            // an engine says what went wrong in the middle of an answer that began well
            let found = if pulled.is_good() { look()? } else { None };
            found.ok_or_else(|| {
                let expected = format!("image {reference}");
                let client = &self.client;
                let advice = format!(
                    "bring it here: {client} pull {reference}, or {client} load --input FILE; then run the task again"
                );
                fault(&expected, pulled.message()).advising(advice)
            })?
        };
        self.used(&found.json(), name, Some(digest))
    }

    /// The image of an archive, which is brought into the engine if it is not there.
    pub(super) fn archived(&self, name: &str, archive: &Archive) -> Result<UsedImage, Refusal> {
        let place = format!("/images/sha256:{}/json", archive.id);
        let mut found = self.ask("GET", &place, None)?;
        if found.status == 404 {
            let loaded = archive
                .whole()
                .and_then(|file| http::upload(&self.socket, "/images/load", file))
                .map_err(|error| fault("that it takes the archive", error.to_string()))?;
            found = self.ask("GET", &place, None)?;
            if !found.is_good() {
                let expected = format!("image sha256:{} of the archive", archive.id);
                return Err(fault(&expected, loaded.message()));
            }
        }
        self.used(&found.json(), name, None)
    }

    /// What the engine says of an image.
    fn used(
        &self,
        image: &Value,
        name: &str,
        digest: Option<&Sha256>,
    ) -> Result<UsedImage, Refusal> {
        let text = |name| image.get(name).and_then(Value::as_str);
        let id = sha256(text("Id").unwrap_or_default())?;
        let manifest = match self.kind {
            Kind::Podman => {
                let own = self.ask("GET", &format!("/v4.0.0/libpod/images/{id}/json"), None)?;
                let own = own.json();
                own.get("Digest").and_then(Value::as_str).map(sha256).transpose()?
            }
            Kind::Docker => {
                let names = image.get("RepoDigests").and_then(Value::as_array);
                let known = names.into_iter().flatten().filter_map(Value::as_str);
                let mut known = known.filter_map(|name| sha256(name.rsplit_once('@')?.1).ok());
                // Docker keeps digests of manifests and of indexes in one list
                match digest {
                    Some(digest) if known.any(|known| known == *digest) => {
                        self.is_of_manifest(name, digest)?.then_some(*digest)
                    }
                    _ => None,
                }
            }
        };
        let [os, architecture] = ["Os", "Architecture"].map(|name| text(name).unwrap_or("?"));
        Ok(UsedImage {
            name: name.into(),
            id,
            manifest,
            platform: platform(os, architecture, text("Variant")),
        })
    }

    /// Whether a digest is that of one image's manifest, of which only the registry tells Docker.
    fn is_of_manifest(&self, name: &str, digest: &Sha256) -> Result<bool, Refusal> {
        let path = format!("/distribution/{name}@sha256:{digest}/json");
        let expected = "a registry that says of what the digest is, or an image by its id";
        let said = self.good(expected, "GET", &path, None)?.json();
        let kind = said.pointer("/Descriptor/mediaType").and_then(Value::as_str);
        Ok(matches!(
            kind,
            Some(
                "application/vnd.oci.image.manifest.v1+json"
                    | "application/vnd.docker.distribution.manifest.v2+json"
            )
        ))
    }

    /// Removes containers whose working directory is gone: a worker that was killed left them.
    pub(super) fn clear_away(&self) -> Result<(), Refusal> {
        let filter = format!("%7B%22label%22%3A%5B%22{LABEL}%22%5D%7D");
        let path = format!("/containers/json?all=1&filters={filter}");
        let list = self.good("a list of containers", "GET", &path, None)?.json();
        for container in list.as_array().into_iter().flatten() {
            let place = container.pointer(&format!("/Labels/{LABEL}")).and_then(Value::as_str);
            let id = container.get("Id").and_then(Value::as_str);
            if let (Some(place), Some(id)) = (place, id)
                && !Path::new(place).exists()
            {
                self.remove(id)?;
            }
        }
        Ok(())
    }

    fn remove(&self, id: &str) -> Result<(), Refusal> {
        let answer = self.ask("DELETE", &format!("/containers/{id}?force=1&v=1"), None)?;
        if answer.is_good() || answer.status == 404 {
            return Ok(());
        }
        Err(fault("that it removes the container", answer.message()))
    }

    /// Makes the container and starts it. Whatever goes wrong, none is left.
    pub(super) fn start(
        &self,
        container: &Container<'_>,
        image: &UsedImage,
    ) -> Result<Run<'_>, Refusal> {
        let (path, body) = match self.kind {
            Kind::Podman => ("/v4.0.0/libpod/containers/create", for_podman(container, image)),
            Kind::Docker => {
                let path = format!("/images/sha256:{}/json", image.id);
                let known = self.good("the image", "GET", &path, None)?.json();
                ("/containers/create", for_docker(container, image, &known)?)
            }
        };
        let made = self.good("a new container", "POST", path, Some(&body))?.json();
        let id = made.get("Id").and_then(Value::as_str).unwrap_or_default().to_owned();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(fault("the id of the new container", made.to_string()));
        }
        let mut run = Run { api: self, id, started: None, removed: false };
        // what counts is the image that the container has, whatever names meant meanwhile
        let path = format!("/containers/{}/json", run.id);
        let made = self.good("the new container", "GET", &path, None)?.json();
        let found = made.get("Image").and_then(Value::as_str).unwrap_or_default();
        let found: Sha256 = sha256(&format!("sha256:{}", found.trim_start_matches("sha256:")))?;
        if found != image.id {
            let (expected, found) =
                (format!("image sha256:{}", image.id), format!("sha256:{found}"));
            return Err(Refusal::new(Code::WorkerImageMismatch, "container", expected, found));
        }
        let started =
            run.start().map_err(|error| fault("a container that starts", error.to_string()));
        let program = container.words.first().map_or("", String::as_str);
        let advice = format!(
            "the command did not begin: if the image has {program}, mend the engine; then run the task again"
        );
        started.flatten().map_err(|refusal| refusal.advising(advice))?;
        Ok(run)
    }
}

/// A container. It is gone with this value.
#[derive(Debug)]
pub(super) struct Run<'a> {
    api: &'a Api,
    id: String,
    started: Option<Started>,
    removed: bool,
}

#[derive(Debug)]
struct Started {
    printed: Printed,
    end: Pending,
}

impl Run<'_> {
    fn start(&mut self) -> io::Result<Result<(), Refusal>> {
        let (socket, id) = (&self.api.socket, &self.id);
        // before the start, so that nothing that is printed is lost, and nothing kept by the engine
        let path = format!("/containers/{id}/attach?stream=1&stdout=1&stderr=1");
        let nothing: &mut dyn io::Read = &mut io::empty();
        let mut printed = http::send(socket, "POST", &path, "application/json", (nothing, 0))?;
        let status = http::heads(&mut printed)?;
        let attached = matches!(status, 101 | 200);
        if attached {
            let path = format!("/containers/{id}/start");
            let answer = http::ask(socket, "POST", &path, None)?;
            if !answer.is_good() {
                return Ok(Err(fault("a container that starts", answer.message())));
            }
        } else {
            let mut why = String::new();
            printed.take(1 << 12).read_to_string(&mut why)?;
            return Ok(Err(fault("a container that starts", why.escape_debug().to_string())));
        }
        printed.set_nonblocking(true)?;
        let path = format!("/containers/{id}/wait?condition=not-running");
        let end = Pending::new(socket, "POST", &path)?;
        self.started = Some(Started { printed: Printed::new(printed), end });
        Ok(Ok(()))
    }

    fn parts(&mut self) -> io::Result<&mut Started> {
        self.started.as_mut().ok_or_else(|| io::Error::other("a container that was not started"))
    }
}

impl super::Running for Run<'_> {
    fn output(&self) -> Option<BorrowedFd<'_>> {
        self.started.as_ref().map(|started| started.printed.stream.as_fd())
    }

    fn read(&mut self, keep: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Option<usize>> {
        self.parts()?.printed.read(keep)
    }

    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some(answer) = self.parts()?.end.poll()? else { return Ok(None) };
        let end = answer.json();
        // an engine that lost the container has a status for it too
        let is_lost = end.get("Error").is_some_and(|error| !error.is_null());
        let status = end.get("StatusCode").and_then(Value::as_i64);
        let status = status.filter(|_| answer.is_good() && !is_lost);
        let status = status.and_then(|code| u8::try_from(code).ok());
        let status = status.ok_or_else(|| io::Error::other(answer.message()))?;
        Ok(Some(ExitStatus::from_raw(i32::from(status) << 8)))
    }

    fn kill(&mut self) {
        let path = format!("/containers/{}/kill?signal=KILL", self.id);
        // gone already is as good
        http::ask(&self.api.socket, "POST", &path, None).ok();
    }

    fn remove(&mut self) -> Result<(), Refusal> {
        self.removed = true;
        self.api.remove(&self.id)?;
        if self.api.kind == Kind::Podman {
            podman::wait_for_helpers(&self.id);
        }
        Ok(())
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if !self.removed {
            // there is nobody to tell, and the run has failed already
            self.api.remove(&self.id).ok();
        }
    }
}

/// What the command prints: stretches, each with a head of eight bytes that has its length.
#[derive(Debug)]
struct Printed {
    stream: UnixStream,
    head: Vec<u8>,
    left: usize,
    buffer: Vec<u8>,
}

impl Printed {
    fn new(stream: UnixStream) -> Self {
        Self { stream, head: Vec::new(), left: 0, buffer: vec![0; 64 << 10] }
    }

    fn read(&mut self, keep: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Option<usize>> {
        let length = match self.stream.read(&mut self.buffer) {
            Ok(length) => length,
            Err(error) if is_transient(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = &self.buffer[..length];
        while !bytes.is_empty() {
            if self.left == 0 {
                let (head, rest) = bytes.split_at(bytes.len().min(8 - self.head.len()));
                self.head.extend_from_slice(head);
                bytes = rest;
                if let Some([_, _, _, _, size @ ..]) = self.head.first_chunk::<8>() {
                    self.left = u32::from_be_bytes(*size) as usize;
                    self.head.clear();
                }
            } else {
                let (text, rest) = bytes.split_at(bytes.len().min(self.left));
                keep(text)?;
                self.left -= text.len();
                bytes = rest;
            }
        }
        Ok(Some(length))
    }
}

/// Podman's own request.
fn for_podman(container: &Container<'_>, image: &UsedImage) -> Value {
    let limits = started_with();
    let mounts = container.mounts().map(|(from, to, writable)| {
        let access = if writable { "rw" } else { "ro" };
        json!({
            "type": "bind", "source": from, "destination": to,
            "options": ["rbind", "rprivate", "nosuid", "nodev", access],
        })
    });
    let mut resources = json!({ "pids": { "limit": container.processes() } });
    if let Some(memory) = container.limits.memory {
        resources["memory"] = json!({ "limit": memory, "swap": memory });
    }
    json!({
        "image": image.id.to_string(),
        "entrypoint": container.words,
        "command": [],
        "env": container.variables.iter().map(|(name, value)| (name.clone(), json!(value)))
            .collect::<serde_json::Map<_, _>>(),
        "unsetenvall": true,
        "hostname": super::HOSTNAME,
        "user": container.user(),
        "umask": "0022",
        "work_dir": WORK,
        "labels": { LABEL: container.directory },
        "mounts": mounts,
        "image_volume_mode": "ignore",
        "cap_drop": ["all"],
        "no_new_privileges": true,
        "read_only_filesystem": true,
        "netns": { "nsmode": if container.network { "host" } else { "none" } },
        "resource_limits": resources,
        "r_limits": limits.map(|(name, limit)| json!({ "type": name, "soft": limit, "hard": limit })),
        "log_configuration": { "driver": "none" },
        "systemd": "false",
    })
}

/// Docker's. A variable without value is taken away. A volume of the image cannot be, and may hide what
/// the command is to have.
fn for_docker(
    container: &Container<'_>,
    image: &UsedImage,
    known: &Value,
) -> Result<Value, Refusal> {
    let of_image = known.pointer("/Config/Env").and_then(Value::as_array).into_iter().flatten();
    let of_image = of_image.filter_map(|text| Some(text.as_str()?.split_once('=')?.0));
    let is_declared = |name: &str| container.variables.iter().any(|(other, _)| other == name);
    let away = of_image.filter(|name| !is_declared(name)).map(ToOwned::to_owned);
    let declared = container.variables.iter().map(|(name, value)| format!("{name}={value}"));
    let environment: Vec<String> = declared.chain(away).collect();
    let mounts = container.mounts().map(|(from, to, writable)| {
        json!({
            "Type": "bind", "Source": from, "Target": to, "ReadOnly": !writable,
            "BindOptions": { "Propagation": "rprivate" },
        })
    });
    let volumes = known.pointer("/Config/Volumes").and_then(Value::as_object);
    if let Some(volume) = volumes.and_then(|volumes| volumes.keys().next()) {
        let expected = "an image without volumes: Docker makes them, and they can be written to";
        return Err(fault(expected, format!("a volume at {volume}")));
    }
    let limits = started_with();
    Ok(json!({
        "Image": format!("sha256:{}", image.id),
        "Entrypoint": container.words,
        "Cmd": [],
        "Env": environment,
        "Hostname": super::HOSTNAME,
        "User": container.user(),
        "WorkingDir": WORK,
        "Labels": { LABEL: container.directory },
        "AttachStdin": false, "AttachStdout": true, "AttachStderr": true,
        "OpenStdin": false, "StdinOnce": false, "Tty": false,
        "Healthcheck": { "Test": ["NONE"] },
        "Volumes": {},
        "HostConfig": {
            "Mounts": mounts,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Privileged": false,
            "ReadonlyRootfs": true,
            "NetworkMode": if container.network { "host" } else { "none" },
            "IpcMode": "private",
            "PidsLimit": container.processes(),
            "Memory": container.limits.memory.unwrap_or(0),
            "MemorySwap": container.limits.memory.unwrap_or(0),
            "Ulimits": limits.map(|(name, limit)| json!({ "Name": name, "Soft": limit, "Hard": limit })),
            "LogConfig": { "Type": "none" },
            "RestartPolicy": { "Name": "no" },
            "AutoRemove": false,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_whose_ids_are_of_manifests_is_known() {
        let info = |status| json!({ "Driver": "overlayfs", "DriverStatus": status });
        assert!(!ids_are_of_images(&info(json!([[
            "driver-type",
            "io.containerd.snapshotter.v1"
        ]]))));
        for status in [json!(null), json!([["Backing Filesystem", "extfs"], ["d_type", "true"]])] {
            assert!(ids_are_of_images(&info(status)));
        }
    }
}
