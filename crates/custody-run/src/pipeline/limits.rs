//! What a step may use up, as the pipeline file says it.

use custody_core::Refusal;
use custody_core::statement::Limits;
use serde::Deserialize;
use toml::Spanned;

use super::file::Reader;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsTable {
    memory: Option<Spanned<String>>,
    processes: Option<Spanned<u64>>,
    output: Option<Spanned<String>>,
}

impl LimitsTable {
    pub(super) fn read(&self, reader: &Reader<'_>) -> Result<Limits, Refusal> {
        let size = |text: &Option<Spanned<String>>| {
            let read = |text: &Spanned<String>| {
                bytes(text.get_ref()).ok_or_else(|| {
                    reader.refuse(&text.span(), "a size like 512M or 2G", text.get_ref())
                })
            };
            text.as_ref().map(read).transpose()
        };
        let processes = |count: &Spanned<u64>| match *count.get_ref() {
            0 => Err(reader.refuse(&count.span(), "at least one process", "0")),
            count => Ok(count),
        };
        Ok(Limits {
            memory: size(&self.memory)?,
            processes: self.processes.as_ref().map(processes).transpose()?,
            output: size(&self.output)?,
        })
    }
}

/// A number above zero with K, M, G or T, each 1024 times the one before.
fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let shift = 10 * (1 + "KMGT".find(unit)?);
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|&number| digits && number > 0)?;
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_number_and_a_unit() {
        assert_eq!(bytes("1K"), Some(1024));
        assert_eq!(bytes("2G"), Some(2 << 30));
        assert_eq!(bytes("3T"), Some(3 << 40));
        for bad in
            ["", "G", "0G", "1", "1k", "1GB", "+1G", "-1G", "1.5G", " 1G", "1é", "99999999999T"]
        {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
