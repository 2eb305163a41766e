//! Envelopes: whose signature counts, and how many.

use custody_core::Code;
use custody_core::encoding::base64;
use custody_core::envelope::{Envelope, Payload as _, PolicyText, Signature, pae};
use custody_core::key::PublicKey;
use custody_core::sshsig;
use custody_core::statement::Statement;
use custody_world::{Key, honest, signed};

use crate::case::{About, Group, Set, Signed, What, Who};
use crate::keys::{Ecdsa, Rsa};

/// A small statement, and one that machines sign.
pub(super) fn unsigned() -> Envelope {
    let payload = honest().envelopes["new/ship/authorization"].unverified_payload().to_vec();
    Envelope::unsigned::<Statement>(payload)
}

pub(super) fn with(signatures: &[Signature]) -> Envelope {
    let mut envelope = unsigned();
    for signature in signatures {
        envelope.add_signature(signature.clone());
    }
    envelope
}

pub(super) fn who(name: &'static str, is_person: bool, keys: &[&PublicKey]) -> Who {
    Who { name, is_person, keys: keys.iter().map(|key| (key.to_openssh(), false)).collect() }
}

fn machine(name: &'static str) -> Who {
    who(name, false, &[&Key::of(name).public])
}

pub(super) fn case(input: impl Into<Vec<u8>>, threshold: u64, keys: &[Who]) -> What {
    What::Envelope(Signed {
        input: input.into(),
        payload_type: Statement::TYPE,
        threshold,
        keys: keys.to_vec(),
        origins: Vec::new(),
    })
}

fn desk(input: impl Into<Vec<u8>>) -> What {
    case(input, 1, &[machine("desk"), machine("gate")])
}

fn both(input: impl Into<Vec<u8>>) -> What {
    case(input, 2, &[machine("desk"), machine("gate")])
}

fn policy_text(input: impl Into<Vec<u8>>) -> What {
    let What::Envelope(case) = desk(input) else { panic!("an envelope") };
    What::Envelope(Signed { payload_type: PolicyText::TYPE, ..case })
}

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("envelope");
    signatures(&mut group);
    hints(&mut group);
    thresholds(&mut group);
    payloads(&mut group);
    spelling(&mut group);
    algorithms(&mut group);
}

fn signatures(group: &mut Group<'_>) {
    let one = signed(unsigned(), &["desk"]);
    let good = one.signatures()[0].clone();
    group.accept("honest", About("one machine signed plainly", &[]), &desk(one.to_json()));
    let mut flipped = good.clone();
    flipped.sig[7] ^= 0x10;
    let about = About("one bit of the signature is flipped", &["env-sig-bitflip"]);
    let what = desk(with(&[flipped.clone()]).to_json());
    group.reject("signature-bit", "honest", Code::EnvSignatureInvalid, about, &what);
    let mut payload = one.unverified_payload().to_vec();
    payload[40] ^= 1;
    let mut changed = Envelope::unsigned::<Statement>(payload);
    changed.add_signature(good.clone());
    let about = About("one bit of the payload is flipped", &["env-payload-bitflip"]);
    let what = desk(changed.to_json());
    group.reject("payload-bit", "honest", Code::EnvSignatureInvalid, about, &what);
    let json = one.to_json();
    let head = json.split(",\"signatures\"").next().unwrap();
    let about = About("the list of signatures is empty", &["env-no-signatures"]);
    let what = desk(format!("{head},\"signatures\":[]}}"));
    group.reject("no-signatures", "honest", Code::EnvNoSignature, about, &what);
    let about = About("there is no list of signatures", &["env-no-signatures"]);
    group.reject(
        "signatures-absent",
        "honest",
        Code::EnvNoSignature,
        about,
        &desk(format!("{head}}}")),
    );
    for (name, list, code) in [
        ("signatures-null", "null", Code::ParseFieldType),
        ("signatures-object", "{}", Code::ParseFieldType),
        ("signature-array", "[[]]", Code::ParseFieldType),
        ("signature-without-sig", "[{}]", Code::ParseFieldMissing),
    ] {
        let about = About("the signatures have another JSON type", &["env-no-signatures"]);
        let what = desk(format!("{head},\"signatures\":{list}}}"));
        group.reject(name, "honest", code, about, &what);
    }
    let raw = Signature { sig: Key::of("desk").raw(one.unverified_payload()), ..good.clone() };
    let about = About("the payload was signed and not its PAE", &["env-signed-without-pae"]);
    let what = desk(with(&[raw]).to_json());
    group.reject("without-pae", "honest", Code::EnvSignatureInvalid, about, &what);
    let mut high = good.clone();
    add_group_order(&mut high.sig);
    let about =
        About("S of the Ed25519 signature has the group's order added", &["env-ed25519-high-s"]);
    let what = desk(with(&[high]).to_json());
    group.reject("high-s", "honest", Code::EnvSignatureInvalid, about, &what);
    let short = Signature { sig: good.sig[..63].to_vec(), ..good };
    let about = About("the signature lacks its last byte", &["env-sig-bitflip"]);
    let what = desk(with(&[short]).to_json());
    group.reject("short", "honest", Code::EnvSignatureInvalid, about, &what);
}

fn add_group_order(sig: &mut [u8]) {
    // little-endian
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0_u16;
    for (byte, add) in sig[32..].iter_mut().zip(order) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
}

fn hints(group: &mut Group<'_>) {
    let one = signed(unsigned(), &["desk"]);
    let good = one.signatures()[0].clone();
    let hinted = |keyid: Option<&str>| {
        let keyid = keyid.map(ToOwned::to_owned);
        desk(with(&[Signature { keyid, ..good.clone() }]).to_json())
    };
    let about = About("no key id", &["env-keyid-absent"]);
    group.accept("keyid-absent", about, &hinted(None));
    let about = About("an empty key id", &["env-keyid-absent"]);
    group.accept("keyid-empty", about, &hinted(Some("")));
    let about = About("a key id that is a path with line feed and NUL", &["env-keyid-hostile"]);
    group.accept("keyid-path", about, &hinted(Some("../../x\n\0")));
    let long = "f".repeat(257);
    let about = About("a key id of 257 bytes", &["env-keyid-hostile"]);
    group.reject(
        "keyid-long",
        "keyid-absent",
        Code::ParseSizeExceeded,
        about,
        &hinted(Some(&long)),
    );
    let gate = Key::of("gate").public.id().to_string();
    let about = About("the key id is another machine's of the list", &["env-keyid-wrong-signer"]);
    let wrong = hinted(Some(&gate));
    group.reject("keyid-of-another", "honest", Code::EnvSignatureInvalid, about, &wrong);
    let stranger = signed(unsigned(), &["mallory-machine"]);
    let about = About("only a key that is not listed signed", &["env-embedded-cert-or-jwk"]);
    let what = desk(stranger.to_json());
    group.reject("stranger", "honest", Code::EnvKeyUnknown, about, &what);
    let key = base64(&Key::of("mallory-machine").public.to_spki_der());
    let carries = format!("\"cert\":\"{key}\",\"jwk\":{{\"kty\":\"OKP\"}},\"sig\"");
    let about = About("the signature brings its own key", &["env-embedded-cert-or-jwk"]);
    let what = desk(stranger.to_json().replace("\"sig\"", &carries));
    group.reject("own-key", "honest", Code::EnvKeyUnknown, about, &what);
    let about = About("a good signature that names another algorithm", &["env-alg-from-message"]);
    let what = desk(one.to_json().replace("\"sig\"", "\"alg\":\"none\",\"sig\""));
    group.accept("names-an-algorithm", about, &what);
    let about = About("a stranger's signature beside a good one", &["env-unknown-key-extra"]);
    let what = desk(signed(unsigned(), &["mallory-machine", "desk"]).to_json());
    group.accept("stranger-beside", about, &what);
    let mut broken = signed(unsigned(), &["gate"]).signatures()[0].clone();
    broken.sig[3] ^= 1;
    let about =
        About("a broken signature of a listed key before a good one", &["env-bad-then-good"]);
    let what = desk(with(&[broken.clone(), good.clone()]).to_json());
    group.accept("broken-before", about, &what);
    let about =
        About("a broken signature of a listed key after a good one", &["env-bad-then-good"]);
    let what = desk(with(&[good, broken]).to_json());
    group.accept("broken-after", about, &what);
}

fn thresholds(group: &mut Group<'_>) {
    let two = signed(unsigned(), &["desk", "gate"]);
    group.accept("two-of-two", About("two machines signed", &[]), &both(two.to_json()));
    let one = signed(unsigned(), &["desk"]);
    let about = About("one of two signed", &["env-dup-signature"]);
    group.reject("one-of-two", "two-of-two", Code::EnvThresholdNotMet, about, &both(one.to_json()));
    let json = one.to_json();
    let entry = json.split_once("\"signatures\":[").unwrap().1.strip_suffix("]}").unwrap();
    let repeated = json.replace(entry, &format!("{entry},{entry}"));
    let about = About("one signature stands twice", &["env-dup-signature"]);
    group.reject("one-twice", "two-of-two", Code::EnvThresholdNotMet, about, &both(repeated));
    let gate = Key::of("gate").public.id().to_string();
    let good = one.signatures()[0].clone();
    let copy = Signature { keyid: Some(gate), ..good.clone() };
    let about = About(
        "one signature stands twice, once under the other's key id",
        &["env-dup-signature-other-keyid"],
    );
    let what = both(with(&[good, copy]).to_json());
    group.reject("under-another-keyid", "two-of-two", Code::EnvThresholdNotMet, about, &what);
    let desk = who("desk", false, &[&Key::of("desk").public, &Key::of("desk-2").public]);
    let what = case(signed(unsigned(), &["desk", "desk-2"]).to_json(), 2, &[desk, machine("gate")]);
    let about = About("two keys of one machine signed", &["env-one-key-two-keyids"]);
    group.reject("two-keys-of-one", "two-of-two", Code::EnvThresholdNotMet, about, &what);
    let flood: Vec<Signature> =
        (0..63_u8).map(|n| Signature { keyid: None, sig: vec![n; 64] }).collect();
    let full: Vec<Signature> = flood.iter().cloned().chain([one.signatures()[0].clone()]).collect();
    let about = About("64 signatures, the last of them good", &["env-signature-flood"]);
    let what = case(with(&full).to_json(), 1, &[machine("desk")]);
    group.accept("signatures-64", about, &what);
    let more: Vec<Signature> =
        [Signature { keyid: None, sig: vec![99; 64] }].into_iter().chain(full).collect();
    let about = About("65 signatures, the last of them good", &["env-signature-flood"]);
    let what = case(with(&more).to_json(), 1, &[machine("desk")]);
    group.reject("signatures-65", "signatures-64", Code::ParseCountExceeded, about, &what);
}

/// An envelope whose payload is anything, rightly signed.
fn signed_bytes(payload: &[u8]) -> String {
    signed(Envelope::unsigned::<Statement>(payload), &["desk"]).to_json()
}

fn payloads(group: &mut Group<'_>) {
    let one = signed(unsigned(), &["desk"]);
    let rows = &["env-malformed-payload-valid-sig"];
    for (name, payload, code) in [
        ("payload-empty", "", Code::ParseJsonInvalid),
        ("payload-truncated", "{\"_type\":", Code::ParseJsonInvalid),
        ("payload-null", "null", Code::ParseFieldType),
        ("payload-list", "[]", Code::ParseFieldType),
        ("payload-string", "\"x\"", Code::ParseFieldType),
    ] {
        let about = About("a good signature over what is no statement", rows);
        group.reject(name, "honest", code, about, &desk(signed_bytes(payload.as_bytes())));
    }
    let foreign = |kind: &str, json: String| json.replace(Statement::TYPE, kind);
    let about =
        About("the payload type was changed and not signed again", &["env-payload-type-swapped"]);
    let what = desk(foreign("application/json", one.to_json()));
    group.reject("type-swapped", "honest", Code::EnvPayloadType, about, &what);
    let sig = Key::of("desk").raw(&pae("application/json", one.unverified_payload()));
    let json = with(&[Signature { keyid: None, sig }]).to_json();
    let about =
        About("the statement was signed under another payload type", &["env-payload-type-foreign"]);
    let what = desk(foreign("application/json", json));
    group.reject("type-foreign", "honest", Code::EnvPayloadType, about, &what);
    let text = |bytes: &[u8]| signed(Envelope::unsigned::<PolicyText>(bytes), &["desk"]).to_json();
    let about = About(
        "the text of a policy, with letters that are not ASCII: lengths count bytes",
        &["env-pae-length-in-chars"],
    );
    group.accept("policy-text", about, &policy_text(text("version = 1 # é漢\n".as_bytes())));
    let letters = "version = 1 # é漢\n";
    let counted = format!(
        "DSSEv1 {} {} {} {letters}",
        PolicyText::TYPE.len(),
        PolicyText::TYPE,
        letters.chars().count()
    );
    let mut in_characters = Envelope::unsigned::<PolicyText>(letters);
    let (keyid, sig) =
        (Key::of("desk").public.id().to_string(), Key::of("desk").raw(counted.as_bytes()));
    in_characters.add_signature(Signature { keyid: Some(keyid), sig });
    let about =
        About("lengths of characters and not of bytes were signed", &["env-pae-length-in-chars"]);
    let what = policy_text(in_characters.to_json());
    group.reject("pae-in-characters", "policy-text", Code::EnvSignatureInvalid, about, &what);
    let about = About("the text of a policy is not UTF-8", rows);
    let what = policy_text(text(b"version = 1 # \xff\n"));
    group.reject("policy-not-utf8", "policy-text", Code::ParseUnicodeInvalid, about, &what);
    let about = About("a policy where a statement is wanted", &["chain-type-confusion"]);
    let what = desk(text(b"version = 1\n"));
    group.reject("policy-for-statement", "honest", Code::EnvPayloadType, about, &what);
}

fn spelling(group: &mut Group<'_>) {
    let json = signed(unsigned(), &["desk"]).to_json();
    let rows = &["env-envelope-malleability"];
    let about = About("blanks and line feeds between members", rows);
    group.accept("spaced", about, &desk(json.replace(':', " :\n\t")));
    let about = About("members that DSSE does not define", rows);
    group.accept(
        "junk-members",
        about,
        &desk(json.replacen('{', "{\"junk\":[{\"a\":null}],\"Payload\":\"AAAA\",", 1)),
    );
    let about = About("a member's name spelled with an escape", rows);
    group.accept(
        "escaped-name",
        about,
        &desk(json.replace("\"payloadType\"", "\"payload\\u0054ype\"")),
    );
    let about = About("two envelopes in one file", &["env-two-envelopes-one-file"]);
    let what = desk(format!("{json}\n{json}"));
    group.reject("two-envelopes", "honest", Code::ParseTrailingData, about, &what);
    let about = About("a NUL after the envelope", &["json-trailing-data"]);
    group.reject("nul-after", "honest", Code::ParseTrailingData, about, &desk(format!("{json}\0")));
    let rows = &["json-dup-key-envelope"];
    let about = About("the payload stands twice", rows);
    let what = desk(json.replacen('{', "{\"payload\":\"AAAA\",", 1));
    group.reject("payload-twice", "honest", Code::ParseDuplicateKey, about, &what);
    let about = About("the payload stands twice, once spelled with an escape", rows);
    let what = desk(json.replacen('{', "{\"p\\u0061yload\":\"AAAA\",", 1));
    group.reject("payload-twice-escaped", "honest", Code::ParseDuplicateKey, about, &what);
    let about = About("the signatures stand twice", rows);
    let what = desk(json.replacen('{', "{\"signatures\":[],", 1));
    group.reject("signatures-twice", "honest", Code::ParseDuplicateKey, about, &what);
    let about = About("a byte order mark", &["json-encoding"]);
    let what = desk(format!("\u{feff}{json}"));
    group.reject("byte-order-mark", "honest", Code::ParseUnicodeInvalid, about, &what);
    let utf16: Vec<u8> = json.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let about = About("UTF-16", &["json-encoding"]);
    group.reject("utf16", "honest", Code::ParseJsonInvalid, about, &desk(utf16));
    let about = About("the envelope stands in a list", &["json-object-from-array"]);
    group.reject("in-a-list", "honest", Code::ParseFieldType, about, &desk(format!("[{json}]")));
    let about = About("YAML", &["json-yaml-alias-bomb"]);
    let yaml = "payloadType: application/vnd.in-toto+json\npayload: AAAA\n";
    group.reject("yaml", "honest", Code::ParseJsonInvalid, about, &desk(yaml));
    base64_forms(group);
}

fn base64_forms(group: &mut Group<'_>) {
    // in base64 this has both letters that differ between the alphabets, and padding
    let text = "version = 1 # ???>>>~~~\n";
    let envelope = signed(Envelope::unsigned::<PolicyText>(text), &["desk"]);
    let json = envelope.to_json();
    let payload = base64(text.as_bytes());
    assert!(payload.contains('/') && payload.contains('+') || payload.contains("Pz8/"));
    let rows = &["env-base64-noncanonical"];
    let spelled = |other: &str| policy_text(json.replace(&payload, other));
    group.accept("base64", About("the standard alphabet", rows), &spelled(&payload));
    let url = payload.replace('/', "_").replace('+', "-");
    group.accept("base64-url", About("the URL-safe alphabet", rows), &spelled(&url));
    for (name, other) in [
        ("base64-blank", format!(" {payload}")),
        ("base64-line-feed", format!("{}\\n{}", &payload[..8], &payload[8..])),
        ("base64-unpadded", "dmVyc2lvbg".to_owned()),
        ("base64-overpadded", format!("{payload}====")),
        ("base64-loose-bits", "dmVyc2lvbh==".to_owned()),
        ("base64-mixed", "-_+/".to_owned()),
    ] {
        let about = About("base64 in a form that is not the one", rows);
        group.reject(name, "base64", Code::ParseBase64Invalid, about, &spelled(&other));
    }
}

fn algorithms(group: &mut Group<'_>) {
    let (p256, p384, rsa) = (Ecdsa::p256("desk"), Ecdsa::p384("desk"), Rsa::new());
    let message = unsigned().pae().to_vec();
    let by = |key: &PublicKey, sig: Vec<u8>| {
        with(&[Signature { keyid: Some(key.id().to_string()), sig }]).to_json()
    };
    let machine = |key: &PublicKey, sig| case(by(key, sig), 1, &[who("desk", false, &[key])]);
    let sig = p256.sign(&mut group.set.random, &message);
    group.accept("p256", About("ECDSA P-256, in DER", &[]), &machine(&p256.public, sig.clone()));
    let numbers = p256.sign_ssh(&mut group.set.random, &message);
    let about = About("ECDSA P-256 in another form than DER", &["env-alg-from-message"]);
    group.reject(
        "p256-not-der",
        "p256",
        Code::EnvSignatureInvalid,
        about,
        &machine(&p256.public, numbers),
    );
    let sig = p384.sign(&mut group.set.random, &message);
    group.accept("p384", About("ECDSA P-384, in DER", &[]), &machine(&p384.public, sig));
    let sig = rsa.pss(&mut group.set.random, &message);
    group.accept("rsa-pss", About("RSASSA-PSS with SHA-256", &[]), &machine(&rsa.public, sig));
    let about = About("RSA with the padding of PKCS#1 v1.5", &["env-weak-rsa"]);
    let sig = rsa.pkcs1(false, &message);
    group.reject(
        "rsa-pkcs1",
        "rsa-pss",
        Code::EnvSignatureInvalid,
        about,
        &machine(&rsa.public, sig),
    );
    let about = About("a machine signed as people do", &["env-alg-from-message"]);
    let sig = Key::of("desk").ssh(&unsigned()).sig;
    let what = machine(&Key::of("desk").public, sig);
    group.reject("machine-with-sshsig", "honest", Code::EnvAlgForbidden, about, &what);
    // the identity as key: one signature would fit every message
    let mut identity = [0; 32];
    identity[0] = 1;
    let weak = PublicKey::Ed25519(identity);
    let sig = [&identity[..], &[0; 32]].concat();
    let about = About("a key of small order", &["env-small-order-key"]);
    group.reject("small-order-key", "honest", Code::PolicyKeyWeak, about, &machine(&weak, sig));
    let blob = sshsig::from_raw(&Key::of("bob").public, &[0; 64]);
    let about = About("SSHSIG bytes that fit nothing", &["env-sig-bitflip"]);
    let bob = &Key::of("bob").public;
    let what = case(by(bob, blob), 1, &[who("bob", true, &[bob])]);
    group.reject("sshsig-of-zeros", "people/ed25519", Code::EnvSignatureInvalid, about, &what);
}
