//! TPM 2.0 quotes without a TPM.

use custody_core::crypto::sha256;
use custody_core::encoding::hex;

use crate::Signer;

/// The parts of a quote.
pub struct Quote {
    pub quote: Vec<u8>,
    pub signature: Vec<u8>,
    pub pcrs: String,
}

/// A quote of these registers, counting up, in the bank of SHA-256, signed by RSASSA.
pub fn quote(signer: &Signer, extra: &[u8], registers: &[(u8, [u8; 32])]) -> Quote {
    let quote = attest(extra, registers);
    Quote { signature: signature(&signer.sign(&quote)), quote, pcrs: pcrs(registers) }
}

/// `TPMS_ATTEST`
pub fn attest(extra: &[u8], registers: &[(u8, [u8; 32])]) -> Vec<u8> {
    let mut bits = [0_u8; 3];
    for (index, _) in registers {
        bits[usize::from(index / 8)] |= 1 << (index % 8);
    }
    let values: Vec<u8> = registers.iter().flat_map(|(_, value)| *value).collect();
    let extra_size = u16::try_from(extra.len()).unwrap().to_be_bytes();
    [
        &b"\xffTCG\x80\x18"[..],
        // the qualified name of the key
        &[0, 2, 0, 0x0b],
        &extra_size,
        extra,
        // clock, resets, restarts, whether it is safe, firmware
        &[0, 0, 0, 0, 0, 1, 0xe2, 0x40],
        &[0, 0, 0, 3],
        &[0, 0, 0, 1],
        &[1],
        &[0x20, 0x19, 0x10, 0x23, 0, 0x16, 0x36, 0x36],
        &[0, 0, 0, 1, 0, 0x0b, 3],
        &bits,
        &[0, 32],
        &sha256(&values),
    ]
    .concat()
}

/// `TPMT_SIGNATURE` of RSASSA with SHA-256.
pub fn signature(bytes: &[u8]) -> Vec<u8> {
    let size = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0, 0x14, 0, 0x0b][..], &size, bytes].concat()
}

/// The registers, as an attestation has them.
pub fn pcrs(registers: &[(u8, [u8; 32])]) -> String {
    let member = |(index, value): &(u8, [u8; 32])| format!("\"{index}\":\"{}\"", hex(value));
    let members: Vec<String> = registers.iter().map(member).collect();
    format!("{{\"sha256\":{{{}}}}}", members.join(","))
}
