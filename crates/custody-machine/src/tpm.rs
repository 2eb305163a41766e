//! TPM 2.0: a quote of platform configuration registers (TPM 2.0 Library, part 2: `TPMS_ATTEST`,
//! `TPMT_SIGNATURE`).

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use custody_core::Refusal;
use custody_core::crypto::{Scheme, signature_fits};
use custody_core::digest::Sha256;
use custody_core::json;
use custody_core::key::PublicKey;
use custody_core::statement::Attestation;

use crate::certificate::Certificate;
use crate::{Context, Proven, mismatch, only, required, shown, unreadable, unverified};

/// Whose quotes count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tpm {
    /// Attestation keys: restricted signing keys, which sign nothing that looks like a quote and is none.
    pub keys: Vec<PublicKey>,
    /// Authorities that certify attestation keys.
    pub authorities: Vec<Certificate>,
}

/// `TPM_GENERATED_VALUE` and `TPM_ST_ATTEST_QUOTE`
const QUOTE: [u8; 6] = [0xff, 0x54, 0x43, 0x47, 0x80, 0x18];
const SHA256: u16 = 0x000b;
const RSASSA: u16 = 0x0014;
const RSAPSS: u16 = 0x0016;
const ECDSA: u16 = 0x0018;

/// There are 24 registers.
const REGISTERS: u8 = 24;
/// Largest list of registers, in bytes.
const PCRS_BYTES: usize = 4 << 10;

/// tcg-kp-AIKCertificate
const ATTESTATION: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x03];

impl Tpm {
    pub(crate) fn verify(
        &self,
        attestation: &Attestation,
        context: &Context,
    ) -> Result<Proven, Refusal> {
        only(attestation, &["quote", "signature", "pcrs", "certificate"])?;
        let quoted = required(attestation, "quote")?;
        let signature = Signature::read(required(attestation, "signature")?).ok_or_else(|| {
            unverified("signature", "RSASSA, RSAPSS or ECDSA with SHA-256", "another")
        })?;
        let key = self.signer(attestation, quoted, &signature, context)?;
        let quote =
            Quote::read(quoted).ok_or_else(|| unverified("quote", "a TPM's quote", "another"))?;
        if quote.extra != context.binding.as_bytes() {
            let expected = context.binding.to_string();
            return Err(mismatch("quote.extraData", expected, shown(quote.extra)));
        }
        let registers = registers(required(attestation, "pcrs")?)?;
        let selected: Vec<u8> = registers.iter().map(|(index, _)| *index).collect();
        if quote.selected != selected {
            let expected = format!("the registers {:?}", quote.selected);
            return Err(unverified("pcrs", expected, format!("{selected:?}")));
        }
        let values: Vec<u8> = registers.iter().flat_map(|(_, value)| *value.as_bytes()).collect();
        let digest = Sha256::of(&values);
        if quote.digest != digest.as_bytes() {
            return Err(unverified("pcrs", shown(quote.digest), digest.to_string()));
        }
        let mut proven = Proven::from([
            ("key".into(), key.id().to_string()),
            ("firmware".into(), format!("{:016x}", quote.firmware)),
            ("reset-count".into(), quote.resets.to_string()),
            ("restart-count".into(), quote.restarts.to_string()),
        ]);
        let facts = registers.iter().map(|(i, value)| (format!("pcr-{i}"), value.to_string()));
        proven.extend(facts);
        Ok(proven)
    }

    /// The key that signed: one that the policy pins, or one that an authority of the policy certified.
    fn signer(
        &self,
        attestation: &Attestation,
        quoted: &[u8],
        signature: &Signature,
        context: &Context,
    ) -> Result<PublicKey, Refusal> {
        let pinned = self.keys.iter().find(|key| signature.fits(key, quoted));
        if let Some(key) = pinned {
            return Ok(key.clone());
        }
        let other = || {
            let expected = "a signature by an attestation key that the policy pins";
            unverified("signature", expected, "another signature")
        };
        let der = attestation.part("certificate").ok_or_else(other)?;
        let certificate = Certificate::from_der(der).map_err(unreadable("certificate"))?;
        if !certificate.signs_for(ATTESTATION)
            || !certificate.leads_to(&self.authorities, &[], context.at)
        {
            let expected = format!(
                "an attestation key's certificate by an authority that the policy pins, good on {}",
                context.at
            );
            let found = format!("another, good from {}", certificate.period());
            return Err(unverified("certificate", expected, found));
        }
        let certified = certificate.strong_key().filter(|key| signature.fits(key, quoted));
        certified.cloned().ok_or_else(other)
    }
}

/// Numbers and sized bytes, most significant byte first.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn short(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn long(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A `TPM2B`.
    fn sized(&mut self) -> Option<&'a [u8]> {
        let size = self.short()?;
        self.take(size.into())
    }

    fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

struct Quote<'a> {
    extra: &'a [u8],
    resets: u32,
    restarts: u32,
    firmware: u64,
    selected: Vec<u8>,
    digest: &'a [u8],
}

impl<'a> Quote<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes.strip_prefix(&QUOTE)?);
        cursor.sized()?;
        let extra = cursor.sized()?;
        // the clock
        cursor.take(8)?;
        let (resets, restarts) = (cursor.long()?, cursor.long()?);
        // whether the clock can be relied on
        cursor.take(1)?;
        let firmware = cursor.array().map(u64::from_be_bytes)?;
        if cursor.long()? != 1 || cursor.short()? != SHA256 {
            return None;
        }
        let [size] = cursor.array()?;
        let bits = cursor.take(size.into())?;
        let digest = cursor.sized()?;
        cursor.end()?;
        let is_selected = |index: &u8| {
            let byte = bits.get(usize::from(index / 8)).copied().unwrap_or_default();
            byte >> (index % 8) & 1 == 1
        };
        let beyond = bits.get(3..).unwrap_or_default().iter().any(|byte| *byte != 0);
        let selected: Vec<u8> = (0..REGISTERS).filter(is_selected).collect();
        (!beyond).then_some(Self { extra, resets, restarts, firmware, selected, digest })
    }
}

struct Signature {
    scheme: Scheme,
    bytes: Vec<u8>,
}

impl Signature {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        let algorithm = cursor.short()?;
        if cursor.short()? != SHA256 {
            return None;
        }
        let (scheme, bytes) = match algorithm {
            RSASSA => (Scheme::RsaPkcs1Sha256, cursor.sized()?.to_vec()),
            RSAPSS => (Scheme::RsaPssSha256, cursor.sized()?.to_vec()),
            ECDSA => {
                let mut both = Vec::new();
                for _ in 0..2 {
                    let number = cursor.sized()?;
                    let padding = 32_usize.checked_sub(number.len())?;
                    both.extend(core::iter::repeat_n(0, padding));
                    both.extend_from_slice(number);
                }
                (Scheme::EcdsaP256Fixed, both)
            }
            _ => return None,
        };
        cursor.end()?;
        Some(Self { scheme, bytes })
    }

    fn fits(&self, key: &PublicKey, message: &[u8]) -> bool {
        signature_fits(key, self.scheme, message, &self.bytes)
    }
}

/// `{"sha256": {"0": "HEX", …}}`, registers counting up.
fn registers(part: &[u8]) -> Result<Vec<(u8, Sha256)>, Refusal> {
    let fault = unreadable("pcrs");
    let mut banks = json::parse(part, PCRS_BYTES, PCRS_BYTES)
        .and_then(|v| v.into_object(""))
        .map_err(&fault)?;
    let values = banks.map("sha256").map_err(&fault)?;
    banks.finish().map_err(&fault)?;
    let mut registers: Vec<(u8, Sha256)> = Vec::new();
    for (name, value) in values {
        let last = registers.last().map(|(index, _)| *index);
        let index = (0..REGISTERS).find(|index| index.to_string() == name);
        let index = index.filter(|index| last.is_none_or(|last| last < *index));
        let expected = "registers from 0 to 23, counting up";
        let index = index.ok_or_else(|| unverified("pcrs", expected, name))?;
        registers.push((index, value.parse().map_err(&fault)?));
    }
    Ok(registers)
}
