use super::Story;
pub(crate) fn page(_: &Story<'_>) -> String { String::new() }
