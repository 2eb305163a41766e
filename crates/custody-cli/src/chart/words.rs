//! Words and numbers for pictures: how wide they are, and how they are written.

/// About how wide a text is, in pixels, in a sans-serif face of this size. Nobody knows the reader's
/// fonts; it is rather too wide than too narrow.
pub(super) fn width(text: &str, size: i64) -> i64 {
    let thousandths = |c: char| match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '|' | '!' | '\'' | ' ' => 320,
        'f' | 'r' | 't' | 'I' | '(' | ')' | '[' | ']' | '/' | '-' => 420,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '—' | '…' => 940,
        'A'..='Z' | '_' | '→' | '✓' | '✗' | '×' | '+' | '=' => 720,
        _ if c.is_ascii() => 620,
        '\u{a0}' => 320,
        _ => 1000,
    };
    text.chars().map(thousandths).sum::<i64>() * size / 1000
}

/// The text in lines of this width, broken at blanks, and within words where it must be. What does not
/// fit into so many lines ends with `…`.
pub(super) fn wrap(text: &str, size: i64, room: i64, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let words = text.split(' ').filter(|word| !word.is_empty());
    for word in words {
        for piece in pieces(word, size, room) {
            let last = lines
                .last_mut()
                .filter(|last| last.is_empty() || width(&format!("{last} {piece}"), size) <= room);
            match last {
                Some(last) if last.is_empty() => *last = piece,
                Some(last) => *last = format!("{last} {piece}"),
                None => lines.push(piece),
            }
        }
    }
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            while width(&format!("{last}…"), size) > room && last.pop().is_some() {}
            last.push('…');
        }
    }
    lines
}

/// A word, or parts of one that is too long: broken after a slash where that is not too early.
fn pieces(word: &str, size: i64, room: i64) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for c in word.chars() {
        let fits = |piece: &&mut String| width(&format!("{piece}{c}"), size) <= room;
        if let Some(piece) = pieces.last_mut().filter(fits) {
            piece.push(c);
            continue;
        }
        let last = pieces.last_mut().map(|last| {
            let slash = last.rfind('/').map_or(0, |slash| slash + 1);
            last.split_off(if slash > last.len() / 2 { slash } else { last.len() })
        });
        pieces.push(last.unwrap_or_default() + c.encode_utf8(&mut [0; 4]));
    }
    pieces
}

/// `5,000`.
pub(super) fn number(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `3 artifacts`.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// A size as people say it: `20 bytes`, `1.5 MB`.
pub(super) fn size(bytes: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} {}", if bytes == 1 { "byte" } else { "bytes" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_write_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([1, 1500, 2_000_000].map(size), ["1 byte", "1.5 kB", "2.0 MB"]);
        assert_eq!(counted(1, "artifact", "artifacts"), "1 artifact");
    }

    #[test]
    fn no_line_is_wider_than_its_room() {
        let long = "https://example.org/".repeat(9);
        for text in
            ["a b c", "approved by bob (releng), carol (releng)", long.as_str(), "", "日本語"]
        {
            for most in [1, 2, 40] {
                let lines = wrap(text, 12, 100, most);
                assert!(!lines.is_empty() && lines.len() <= most, "{lines:?}");
                assert!(lines.iter().all(|line| width(line, 12) <= 100), "{lines:?}");
            }
        }
        let lines = wrap(&long, 12, 100, 40);
        assert_eq!(lines.concat(), long);
        assert!(wrap(&long, 12, 100, 2)[1].ends_with('…'));
    }
}
