//! Certificates in forms that readers take otherwise: a TPM's, and those with which Azure signs.

use custody_core::encoding::base64;
use custody_core::key::PublicKey;
use custody_core::statement::Attestation;
use custody_machine::nonce;
use custody_platforms::certificate::{TRUE, common_name, extension};
use custody_platforms::der::{RSA, RSA_WITH_SHA256, oid, sequence, set, small, tlv};
use custody_platforms::{Certified, Cms, Unsigned, attestation, azure, pem, tpm};
use custody_world::Key;

use super::quotes::{certified, with_certificate};
use super::{Platforms, REGISTERS, UNVERIFIED, now, refuse};
use crate::case::{About, Group, What};
use crate::keys::Ecdsa;

const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const NULL: &[u8] = &[5, 0];
/// Of 2.5.29.N, from here on none that means something to us.
const UNKNOWN: u8 = 0x30;

type Edit<'e> = &'e dyn Fn(&mut Unsigned);

pub(super) fn certificates(group: &mut Group<'_>, platforms: &Platforms) {
    extensions(group, platforms);
    bodies(group, platforms);
    algorithms(group, platforms);
    host_names(group, platforms);
    path_lengths(group, platforms);
}

/// A quote by a key with this certificate of an authority that the policy pins.
fn quoted(platforms: &Platforms, edit: Edit<'_>) -> What {
    let key = platforms.stranger.public_key();
    let mut unsigned = platforms.root.unsigned(&certified(), &key);
    edit(&mut unsigned);
    let certificate = unsigned.signed(|message| platforms.root.sign(message));
    platforms.case(attested(platforms, &certificate))
}

fn attested(platforms: &Platforms, certificate: &[u8]) -> Attestation {
    let quote = tpm::attest(Platforms::binding().as_bytes(), &REGISTERS);
    with_certificate(platforms, &quote, &tpm::pcrs(&REGISTERS), certificate)
}

fn usage(bits: &[u8]) -> Vec<u8> {
    extension(0x0f, TRUE, &tlv(3, &[bits]))
}

fn extensions(group: &mut Group<'_>, platforms: &Platforms) {
    let constraints = |flag: &[u8]| extension(0x13, TRUE, &sequence(&[flag]));
    let many = |count: u8| {
        move |it: &mut Unsigned| {
            it.extensions.extend((UNKNOWN..).map(|last| extension(last, &[], NULL)).take(64));
            it.extensions.truncate(count.into());
        }
    };
    for (name, about, edit) in [
        (
            "certificate-usage-short",
            "a key usage in as few bits as it needs",
            &(|it: &mut Unsigned| it.extensions[1] = usage(&[7, 0x80])) as Edit<'_>,
        ),
        ("certificate-64-extensions", "as many extensions as there may be", &many(64)),
        ("certificate-authority-no", "no authority, and it says so", &|it| {
            it.extensions[0] = constraints(&[1, 1, 0]);
        }),
        ("certificate-critical-no", "what nobody knows is not critical, and it says so", &|it| {
            it.extensions.push(extension(UNKNOWN, &[1, 1, 0], NULL));
        }),
        ("certificate-version-1", "a certificate of version 1", &|it| {
            (it.version, it.extensions) = (vec![], vec![]);
        }),
    ] {
        group.accept(name, About(about, &[]), &quoted(platforms, edit));
    }
    for (name, control, about, edit) in [
        (
            "certificate-authority-one",
            "certificate-authority-no",
            "an authority, if 1 is true",
            &(|it: &mut Unsigned| it.extensions[0] = constraints(&[1, 1, 1])) as Edit<'_>,
        ),
        (
            "certificate-critical-one",
            "certificate-critical-no",
            "what nobody knows is critical, if 1 is true",
            &|it| it.extensions.push(extension(UNKNOWN, &[1, 1, 1], NULL)),
        ),
        (
            "certificate-65-extensions",
            "certificate-64-extensions",
            "more extensions than there may be",
            &many(65),
        ),
        ("certificate-version-none", "tpm-certificate", "version 1 with extensions", &|it| {
            it.version = vec![];
        }),
        ("certificate-version-2", "tpm-certificate", "version 2 with extensions", &|it| {
            it.version = tlv(0xa0, &[&small(1)]);
        }),
        ("certificate-usage-empty", "certificate-usage-short", "a key usage without bits", &|it| {
            it.extensions[1] = usage(&[0]);
        }),
        ("certificate-usage-none", "certificate-usage-short", "a key usage for no use", &|it| {
            it.extensions[1] = usage(&[7, 0]);
        }),
        (
            "certificate-usage-unused",
            "certificate-usage-short",
            "a bit that is set and not used",
            &|it| it.extensions[1] = usage(&[6, 0x81]),
        ),
    ] {
        refuse(group, name, control, UNVERIFIED, about, &quoted(platforms, edit));
    }
}

fn bodies(group: &mut Group<'_>, platforms: &Platforms) {
    let from = |tag: u8, text: &str| {
        sequence(&[&tlv(tag, &[text.as_bytes()]), &tlv(0x17, &[b"491231235959Z"])])
    };
    let about = About("a certificate from the first second that there is", &[]);
    let first = quoted(platforms, &|it| it.validity = from(0x17, "700101000000Z"));
    group.accept("certificate-1970", about, &first);
    for (name, control, about, edit) in [
        (
            "certificate-1969",
            "certificate-1970",
            "a certificate from before there was time",
            &(|it: &mut Unsigned| it.validity = from(0x17, "691231235959Z")) as Edit<'_>,
        ),
        ("certificate-1969-long", "certificate-1970", "the same in the other form", &|it| {
            it.validity = from(0x18, "19691231235959Z");
        }),
        ("certificate-issuer-id", "tpm-certificate", "a unique identifier of the issuer", &|it| {
            it.between = tlv(0x81, &[&[0, 1]]);
        }),
        (
            "certificate-subject-id",
            "tpm-certificate",
            "a unique identifier of the subject",
            &|it| it.between = tlv(0x82, &[&[0, 1]]),
        ),
        ("certificate-subject", "tpm-certificate", "a subject that is no list of sets", &|it| {
            it.subject = sequence(&[&small(1)]);
        }),
        (
            "certificate-subject-longer",
            "tpm-certificate",
            "a third member of an attribute",
            &|it| {
                let name = [&common_name(b"a TPM")[2..], NULL].concat();
                it.subject = sequence(&[&set(&[&sequence(&[&name])])]);
            },
        ),
        (
            "certificate-key-parameters",
            "tpm-certificate",
            "an RSA key without its parameters",
            &|it| {
                let null = [oid(RSA), NULL.to_vec()].concat();
                let (head, bits) = it.key.split_at(4 + 2 + null.len());
                assert_eq!(head[6..], null);
                it.key = sequence(&[&sequence(&[&oid(RSA)]), bits]);
            },
        ),
    ] {
        refuse(group, name, control, UNVERIFIED, about, &quoted(platforms, edit));
    }
}

/// With which parameters authorities sign.
fn algorithms(group: &mut Group<'_>, platforms: &Platforms) {
    let rsa = |parameters: &[u8]| {
        let algorithm = sequence(&[&oid(RSA_WITH_SHA256), parameters]);
        quoted(platforms, &move |it| it.algorithm.clone_from(&algorithm))
    };
    let about = About("an RSA signature without parameters", &[]);
    group.accept("certificate-rsa-absent", about, &rsa(&[]));
    for (name, about, parameters) in [
        ("certificate-rsa-octets", "an RSA signature with other parameters", &[4, 0][..]),
        ("certificate-rsa-twice", "an RSA signature with parameters twice", &[5, 0, 5, 0]),
    ] {
        refuse(group, name, "certificate-rsa-absent", UNVERIFIED, about, &rsa(parameters));
    }

    let (ed25519, p256) = (Key::of("issuer"), Ecdsa::p256("maker"));
    let authority = |name: &str, key: &PublicKey| {
        pem(&platforms.root.certify(&Certified::new(name, true), key))
    };
    let policy = format!(
        "{}[platforms.makers]\nkind = \"tpm\"\nauthorities = [\"\"\"{}\"\"\", \"\"\"{}\"\"\"]\n",
        platforms.policy,
        authority("ed25519", &ed25519.public),
        authority("p256", &p256.public),
    );
    let random = &mut group.set.random;
    let mut cases = vec![];
    for (kind, algorithm) in [("ed25519", ED25519), ("p256", ECDSA_SHA256)] {
        for (name, parameters) in [("absent", &[][..]), ("null", NULL), ("octets", &[4, 0])] {
            let key = platforms.stranger.public_key();
            let mut unsigned = Unsigned::new(&certified(), &key.to_spki_der(), kind);
            unsigned.algorithm = sequence(&[&oid(algorithm), parameters]);
            let certificate = unsigned.signed(|message| match kind {
                "p256" => p256.sign(random, message),
                _ => ed25519.raw(message),
            });
            let mut attestation = attested(platforms, &certificate);
            attestation.platform = "makers".parse().unwrap();
            let case = Platforms::under(&policy, attestation);
            cases.push((kind, name, case));
        }
    }
    for (kind, name, case) in cases {
        let (full, control) =
            (format!("certificate-{kind}-{name}"), format!("certificate-{kind}-absent"));
        if name == "absent" || (kind, name) == ("p256", "null") {
            let about = format!("a certificate signed with {kind}, parameters: {name}");
            group.accept(&full, About(&about, &[]), &case);
        } else {
            let about = "parameters that its algorithm does not have";
            refuse(group, &full, &control, UNVERIFIED, about, &case);
        }
    }
}

/// Attested data with these certificates.
fn data(platforms: &Platforms, certificates: &[&[u8]]) -> What {
    let nonce = nonce(&Platforms::binding());
    let content = azure::content("02aab8a4-74ef-476e-8182-f6d2ba4166a6", &nonce, now());
    let cms = Cms {
        certificates: certificates.to_vec(),
        attributes: false,
        hash_is_signature: true,
        ..Cms::new(content.as_bytes(), &platforms.azure)
    };
    let attested = base64(&cms.bytes());
    platforms.case(attestation("azure", &[("attested", &attested)]))
}

fn host_names(group: &mut Group<'_>, platforms: &Platforms) {
    let Platforms { between, azure: signer, .. } = platforms;
    let case = |certified: &Certified, edit: Edit<'_>| {
        let mut unsigned = between.unsigned(certified, &signer.public_key());
        edit(&mut unsigned);
        let leaf = unsigned.signed(|message| between.sign(message));
        data(platforms, &[&leaf, between.certificate()])
    };
    let honest = azure::certified();
    let many = |count: usize| {
        let others = (1..count).map(|i| format!("host{i}.example.org"));
        let names = honest.names.iter().cloned().chain(others).collect();
        case(&Certified { names, ..honest.clone() }, &|_| {})
    };
    group.accept("certificate-64-names", About("as many names as there may be", &[]), &many(64));
    let about = "more names than there may be";
    refuse(group, "certificate-65-names", "certificate-64-names", UNVERIFIED, about, &many(65));
    let purposes = |count: u8| {
        let more = (1..count).map(|last| vec![0x2b, 6, 1, 5, 5, 7, 3, last + 1]);
        let purposes = honest.purposes.iter().cloned().chain(more).collect();
        case(&Certified { purposes, ..honest.clone() }, &|_| {})
    };
    let about = About("as many purposes as there may be", &[]);
    group.accept("certificate-64-purposes", about, &purposes(64));
    let (about, control) = ("more purposes than there may be", "certificate-64-purposes");
    refuse(group, "certificate-65-purposes", control, UNVERIFIED, about, &purposes(65));
    for (name, about, host) in [
        ("certificate-name-bytes", "a name that is no text", &b"\xff.metadata.azure.com"[..]),
        ("certificate-name-letter", "a letter of no host", "\u{e9}.metadata.azure.com".as_bytes()),
        ("certificate-name-nul", "a name with an end in it", b"example.org\0.metadata.azure.com"),
    ] {
        let names = extension(0x11, &[], &sequence(&[&tlv(0x82, &[host])]));
        let case = case(&honest, &|it| it.extensions[2].clone_from(&names));
        refuse(group, name, "azure", UNVERIFIED, about, &case);
    }
    let unlisted = Certified { names: vec![], ..honest.clone() };
    let (ours, other) =
        (common_name(b"westeurope.metadata.azure.com"), common_name(b"westeurope.example.org"));
    for (name, about, subject) in [
        (
            "certificate-common-names",
            "two common names, the right one before the other",
            [set(&[&ours]), set(&[&other])].concat(),
        ),
        (
            "certificate-common-names-last",
            "two common names, the right one after the other",
            [set(&[&other]), set(&[&ours])].concat(),
        ),
        ("certificate-common-names-one-set", "two common names at once", set(&[&ours, &other])),
    ] {
        let case = case(&unlisted, &|it| it.subject = sequence(&[&subject]));
        refuse(group, name, "azure-common-name", UNVERIFIED, about, &case);
    }
}

fn path_lengths(group: &mut Group<'_>, platforms: &Platforms) {
    let Platforms { root, between, azure: signer, .. } = platforms;
    let case = |length: &[u8]| {
        let certified = Certified::new("between", true);
        let mut unsigned = root.unsigned(&certified, &between.public_key());
        unsigned.extensions[0] = extension(0x13, TRUE, &sequence(&[TRUE, &tlv(2, &[length])]));
        let authority = unsigned.signed(|message| root.sign(message));
        data(platforms, &[signer.certificate(), &authority])
    };
    for (name, about, length) in [
        ("certificate-path-200", "a path of 200", &[0, 200][..]),
        (
            "certificate-path-huge",
            "a path longer than anybody counts",
            &[1, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
    ] {
        group.accept(name, About(about, &[]), &case(length));
    }
    for (name, about, length) in [
        ("certificate-path-negative", "a path of less than nothing", &[0xff][..]),
        ("certificate-path-padded", "a path in more bytes than it needs", &[0, 1]),
        ("certificate-path-empty", "a path that is no number", &[]),
    ] {
        refuse(group, name, "certificate-path-200", UNVERIFIED, about, &case(length));
    }
}
