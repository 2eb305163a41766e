//! Quotes of TPMs.

use custody_core::digest::Sha256;
use custody_core::encoding::base64;
use custody_core::statement::Attestation;
use custody_platforms::{Certified, attestation, tpm};

use super::{MISMATCH, Platforms, REGISTERS, UNVERIFIED, plain, refuse};
use crate::case::{About, Group};
use crate::keys::Rsa;

pub(super) fn quotes(group: &mut Group<'_>, platforms: &Platforms) {
    let binding = Platforms::binding();
    let quote = tpm::attest(binding.as_bytes(), &REGISTERS);
    let pcrs = tpm::pcrs(&REGISTERS);
    let case = |quote: &[u8], signature: &[u8], pcrs: &str| {
        let parts =
            [("quote", &quote as &dyn AsRef<[u8]>), ("signature", &signature), ("pcrs", &pcrs)];
        platforms.case(attestation("tpm", &parts))
    };
    let sized =
        |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    // RSASSA by a key of the policy: that of the issuers
    let signed = |quote: &[u8]| tpm::signature(&platforms.amazon.sign(quote));
    group.accept(
        "tpm-rsa",
        About("a quote with RSASSA", &[]),
        &case(&quote, &signed(&quote), &pcrs),
    );
    let random = &mut group.set.random;
    let ecdsa = plain(&platforms.tpm.sign(random, &quote), 32);
    let ecdsa = [&[0, 0x18, 0, 0x0b][..], &sized(&ecdsa[..32]), &sized(&ecdsa[32..])].concat();
    let pss = [&[0, 0x16, 0, 0x0b][..], &sized(&Rsa::new().pss(random, &quote))].concat();
    group.accept("tpm-ecdsa", About("a quote with ECDSA", &[]), &case(&quote, &ecdsa, &pcrs));
    group.accept("tpm-pss", About("a quote with RSAPSS", &[]), &case(&quote, &pss, &pcrs));

    let other = tpm::attest(Sha256::of(b"another run").as_bytes(), &REGISTERS);
    let about = About("a quote of another run", &["wrk-iid-replayed"]);
    let replayed = case(&other, &signed(&other), &pcrs);
    group.reject("tpm-replayed", "tpm-rsa", MISMATCH, about, &replayed);
    let strange = tpm::signature(&platforms.stranger.sign(&quote));
    let about = About("by a key that nobody pins", &["wrk-imds-spoofed"]);
    group.reject("tpm-strange", "tpm-rsa", UNVERIFIED, about, &case(&quote, &strange, &pcrs));
    for (name, about, registers) in [
        ("tpm-value", "another value of a register", pcrs.replace("02", "09")),
        ("tpm-register", "the value of another register", pcrs.replace("\"7\"", "\"8\"")),
        ("tpm-fewer", "fewer registers", tpm::pcrs(&REGISTERS[..2])),
        (
            "tpm-order",
            "registers that do not count up",
            tpm::pcrs(&[REGISTERS[1], REGISTERS[0], REGISTERS[2]]),
        ),
        ("tpm-spelling", "a register spelled otherwise", pcrs.replace("\"7\"", "\"07\"")),
        ("tpm-bank", "another bank", pcrs.replace("sha256", "sha1")),
    ] {
        let case = case(&quote, &signed(&quote), &registers);
        refuse(group, name, "tpm-rsa", UNVERIFIED, about, &case);
    }
    let changed = |at: usize, byte: u8| {
        let mut changed = quote.clone();
        changed[at] = byte;
        changed
    };
    let selection = quote.len() - 34 - 10;
    for (name, about, quote) in [
        ("tpm-magic", "what no TPM made", changed(0, 0xfe)),
        ("tpm-certify", "no quote", changed(5, 0x17)),
        ("tpm-two-banks", "two banks", changed(selection + 3, 2)),
        ("tpm-hash", "a bank of another hash", changed(selection + 5, 4)),
        ("tpm-longer", "something after it", [&quote[..], &[0]].concat()),
    ] {
        let case = case(&quote, &signed(&quote), &pcrs);
        refuse(group, name, "tpm-rsa", UNVERIFIED, about, &case);
    }
    let none = tpm::attest(binding.as_bytes(), &[]);
    let about = About("a quote of no register proves the key", &[]);
    group.accept("tpm-no-registers", about, &case(&none, &signed(&none), &tpm::pcrs(&[])));
    let null = case(&none, &signed(&none), "{\"sha256\":null}");
    let about = "null instead of no registers";
    refuse(group, "tpm-null-registers", "tpm-no-registers", UNVERIFIED, about, &null);
    let [r, s] = [&ecdsa[6..38], &ecdsa[40..]].map(|number| sized(&[&[0][..], number].concat()));
    let long = case(&quote, &[&ecdsa[..4], &r, &s].concat(), &pcrs);
    let about = "numbers of more than 32 bytes";
    refuse(group, "tpm-ecdsa-long", "tpm-ecdsa", UNVERIFIED, about, &long);
    certified_quotes(group, platforms, &quote, &pcrs);
}

/// What the certificate of an attestation key says.
pub(super) fn certified() -> Certified {
    Certified {
        purposes: vec![vec![0x67, 0x81, 0x05, 0x08, 0x03]],
        ..Certified::new("a TPM", false)
    }
}

/// A quote by a key that has this certificate.
pub(super) fn with_certificate(
    platforms: &Platforms,
    quote: &[u8],
    pcrs: &str,
    certificate: &[u8],
) -> Attestation {
    let signature = tpm::signature(&platforms.stranger.sign(quote));
    let parts = [
        ("quote", &quote as &dyn AsRef<[u8]>),
        ("signature", &signature),
        ("pcrs", &pcrs),
        ("certificate", &certificate),
    ];
    attestation("tpm", &parts)
}

/// The key of the quote has a certificate of an authority that the policy pins.
fn certified_quotes(group: &mut Group<'_>, platforms: &Platforms, quote: &[u8], pcrs: &str) {
    let (signer, honest) = (&platforms.stranger, certified());
    let case =
        |certificate: &[u8]| platforms.case(with_certificate(platforms, quote, pcrs, certificate));
    let certify = |certified: &Certified| platforms.root.certify(certified, &signer.public_key());
    let good = certify(&honest);
    group.accept("tpm-certificate", About("a key with a certificate", &[]), &case(&good));
    let about = "the certificate in base64";
    let text = case(base64(&good).as_bytes());
    refuse(group, "tpm-certificate-base64", "tpm-certificate", UNVERIFIED, about, &text);
    let below = platforms.between.certify(&honest, &signer.public_key());
    for (name, about, certificate) in [
        (
            "tpm-certificate-own",
            "a certificate by itself",
            signer.certify(&honest, &signer.public_key()),
        ),
        ("tpm-certificate-below", "an authority between", below),
        (
            "tpm-certificate-authority",
            "an authority",
            certify(&Certified { authority: true, ..honest.clone() }),
        ),
        (
            "tpm-certificate-purpose",
            "another purpose",
            certify(&Certified {
                purposes: vec![vec![0x2b, 6, 1, 5, 5, 7, 3, 1]],
                ..honest.clone()
            }),
        ),
        (
            "tpm-certificate-not-yet",
            "a certificate of tomorrow",
            certify(&Certified { not_before: "2026-03-02T00:00:00Z".parse().unwrap(), ..honest }),
        ),
    ] {
        refuse(group, name, "tpm-certificate", UNVERIFIED, about, &case(&certificate));
    }
}
