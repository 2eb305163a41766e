//! A FIDO2 key in software behind OpenSSH's `sk-api.h`, version 10: what `ssh-keygen -w` loads.
//!
//! A handle is the private key and one byte: the flags that every signature will carry, taken from
//! `SECURITY_KEY_FLAGS` when the key is made. So keys that nobody touches, or that check nobody, are
//! made at will. Without the variable a signature carries the flags that it was asked for.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::Read as _;
use std::{env, fs::File, ptr, slice};

use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};

const ECDSA: u32 = 0;
const ED25519: u32 = 1;
const AS_ASKED: u8 = 0xff;
/// User present and user verified.
const MAY_BE_ASKED: u8 = 0x05;
const GENERAL_FAULT: c_int = -1;
const UNSUPPORTED: c_int = -2;

/// OpenSSH frees what it is given with `free`.
#[repr(C)]
pub struct Bytes {
    start: *mut u8,
    length: usize,
}

unsafe extern "C" {
    fn calloc(count: usize, size: usize) -> *mut c_void;
}

impl Bytes {
    fn new(bytes: &[u8]) -> Self {
        // SAFETY: the block has room for all bytes and nobody else knows it yet.
        unsafe {
            let start = calloc(bytes.len().max(1), 1).cast::<u8>();
            ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len());
            Self { start, length: bytes.len() }
        }
    }
}

/// `struct sk_enroll_response`
#[repr(C)]
pub struct Enrolled {
    flags: u8,
    public_key: Bytes,
    key_handle: Bytes,
    signature: Bytes,
    attestation_cert: Bytes,
    authdata: Bytes,
}

/// `struct sk_sign_response`
#[repr(C)]
pub struct Signature {
    flags: u8,
    counter: u32,
    r: Bytes,
    s: Bytes,
}

/// Moves the value to where OpenSSH looks for it.
///
/// # Safety
/// `place` can be written to.
unsafe fn give<T>(place: *mut *mut T, value: T) -> c_int {
    unsafe {
        let block = calloc(1, size_of::<T>()).cast::<T>();
        block.write(value);
        place.write(block);
    }
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn sk_api_version() -> u32 {
    0x000a_0000
}

fn public_key(algorithm: u32, seed: &[u8; 32]) -> Option<Vec<u8>> {
    match algorithm {
        ED25519 => {
            Some(ed25519_dalek::SigningKey::from_bytes(seed).verifying_key().to_bytes().into())
        }
        ECDSA => {
            let key = p256::ecdsa::SigningKey::from_slice(seed).ok()?;
            Some(key.verifying_key().to_sec1_point(false).as_bytes().into())
        }
        _ => None,
    }
}

/// # Safety
/// As `sk-api.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sk_enroll(
    algorithm: u32,
    _challenge: *const u8,
    _challenge_length: usize,
    _application: *const c_char,
    flags: u8,
    _pin: *const c_char,
    _options: *mut *mut c_void,
    response: *mut *mut Enrolled,
) -> c_int {
    let mut seed = [0; 32];
    if File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed)).is_err() {
        return GENERAL_FAULT;
    }
    let Some(public_key) = public_key(algorithm, &seed) else { return UNSUPPORTED };
    let forced = env::var("SECURITY_KEY_FLAGS").ok().and_then(|text| text.parse().ok());
    let mut handle = seed.to_vec();
    handle.push(forced.unwrap_or(AS_ASKED));
    let enrolled = Enrolled {
        flags,
        public_key: Bytes::new(&public_key),
        key_handle: Bytes::new(&handle),
        signature: Bytes::new(&[]),
        attestation_cert: Bytes::new(&[]),
        authdata: Bytes::new(&[]),
    };
    unsafe { give(response, enrolled) }
}

/// r and s; of Ed25519 only one part.
fn sign(algorithm: u32, seed: &[u8; 32], message: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    match algorithm {
        ED25519 => {
            let signature = ed25519_dalek::SigningKey::from_bytes(seed).sign(message);
            Some((signature.to_bytes().into(), Vec::new()))
        }
        ECDSA => {
            let key = p256::ecdsa::SigningKey::from_slice(seed).ok()?;
            let signature: p256::ecdsa::Signature = key.sign(message);
            let (r, s) = signature.split_bytes();
            Some((r.to_vec(), s.to_vec()))
        }
        _ => None,
    }
}

/// # Safety
/// As `sk-api.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sk_sign(
    algorithm: u32,
    data: *const u8,
    data_length: usize,
    application: *const c_char,
    handle: *const u8,
    handle_length: usize,
    asked: u8,
    _pin: *const c_char,
    _options: *mut *mut c_void,
    response: *mut *mut Signature,
) -> c_int {
    let (data, handle, application) = unsafe {
        (
            slice::from_raw_parts(data, data_length),
            slice::from_raw_parts(handle, handle_length),
            CStr::from_ptr(application),
        )
    };
    let Some((seed, &[forced])) = handle.split_first_chunk::<32>() else { return GENERAL_FAULT };
    let flags = if forced == AS_ASKED { asked & MAY_BE_ASKED } else { forced };
    let counter = 1_u32;
    let mut message = Sha256::digest(application.to_bytes()).to_vec();
    message.push(flags);
    message.extend(counter.to_be_bytes());
    message.extend(Sha256::digest(data));
    let Some((r, s)) = sign(algorithm, seed, &message) else { return UNSUPPORTED };
    unsafe { give(response, Signature { flags, counter, r: Bytes::new(&r), s: Bytes::new(&s) }) }
}

/// # Safety
/// As `sk-api.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sk_load_resident_keys(
    _pin: *const c_char,
    _options: *mut *mut c_void,
    _keys: *mut *mut *mut c_void,
    _count: *mut usize,
) -> c_int {
    UNSUPPORTED
}
