//! SVG and HTML in the making. Only literals of this program get in as markup; whatever else comes in
//! is text, and is escaped.

use std::fmt::Display;

use crate::tree::shown;

/// Markup whose every text is escaped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Markup(String);

impl Markup {
    /// Markup of our own.
    pub(super) fn raw(&mut self, literal: &'static str) -> &mut Self {
        self.0.push_str(literal);
        self
    }

    /// Text, also within an attribute between double quotes. Control characters and those that turn
    /// the direction of writing become visible.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        for c in shown(&text.to_string()).chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                _ => self.0.push(c),
            }
        }
        self
    }

    pub(super) fn append(&mut self, other: &Self) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    /// `<NAME>text</NAME>`, where the first two are ours.
    pub(super) fn element(
        &mut self,
        open: &'static str,
        text: impl Display,
        close: &'static str,
    ) -> &mut Self {
        self.raw(open).text(text).raw(close)
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        let mut markup = Markup::default();
        let evil = "</style><script>alert('x')</script>\" onload=\"&amp;\u{202e}\u{1b}\u{0}";
        markup.element("<b title=\"", evil, "\">").text(evil);
        let made = markup.into_string();
        let inside = made.strip_prefix("<b title=\"").unwrap();
        assert_eq!(inside.matches('<').count() + inside.matches('"').count(), 1, "{made}");
        assert!(made.contains("&lt;script&gt;") && made.contains("&amp;amp;"), "{made}");
        assert!(!made.chars().any(|c| c.is_control() || c == '\u{202e}'), "{made}");
    }
}
