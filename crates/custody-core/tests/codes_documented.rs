//! The table of docs/formats/codes.md says what the code says.

use custody_core::Code;

#[test]
fn the_table_of_codes_is_the_catalogue() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/formats/codes.md");
    let text = std::fs::read_to_string(path).unwrap();
    let documented: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let row = |code: &Code| {
        let exit = if code.undecided() { 3 } else { 1 };
        let (meaning, remedy, example) = (code.meaning(), code.remedy(), code.example());
        format!("| `{}` | {exit} | {meaning} | {remedy} | {example} |", code.name())
    };
    let known: Vec<String> = Code::ALL.iter().map(row).collect();
    assert_eq!(documented, known);
}
