//! The fonts of a PDF: how wide text is, and its glyphs.
//!
//! Characters are set one after the other, which is right for Latin, Greek, Cyrillic and the like.
//! What the font has no glyph for shows as a box.

use krilla::text::{Font, GlyphId, KrillaGlyph};
use skrifa::{FontRef, MetadataProvider, instance::LocationRef, prelude::Size};

use super::pdf::PdfError;

/// DejaVu Sans Condensed: free to be part of documents (fonts/LICENSE), and it knows many alphabets.
const REGULAR: &[u8] = include_bytes!("../../fonts/DejaVuSansCondensed.ttf");
const BOLD: &[u8] = include_bytes!("../../fonts/DejaVuSansCondensed-Bold.ttf");

pub(super) struct Fonts {
    pub(super) regular: Face,
    pub(super) bold: Face,
}

pub(super) struct Face {
    pub(super) font: Font,
    outlines: FontRef<'static>,
}

impl Fonts {
    pub(super) fn load() -> Result<Self, PdfError> {
        Ok(Self { regular: Face::load(REGULAR)?, bold: Face::load(BOLD)? })
    }
}

impl Face {
    fn load(data: &'static [u8]) -> Result<Self, PdfError> {
        let font = Font::new(data.into(), 0).ok_or(PdfError::Font)?;
        let outlines = FontRef::from_index(data, 0).map_err(|_| PdfError::Font)?;
        Ok(Self { font, outlines })
    }

    /// The glyphs of `text`, one for each character.
    pub(super) fn glyphs(&self, text: &str) -> Vec<KrillaGlyph> {
        let glyphs = self.outlines.charmap();
        let advances = self.outlines.glyph_metrics(Size::new(1.0), LocationRef::default());
        text.char_indices()
            .map(|(at, character)| {
                let id = glyphs.map(character).unwrap_or_default();
                let advance = advances.advance_width(id).unwrap_or_default();
                let range = at..at + character.len_utf8();
                KrillaGlyph::new(GlyphId::new(id.to_u32()), advance, 0.0, 0.0, 0.0, range, None)
            })
            .collect()
    }

    /// In points.
    pub(super) fn width(&self, text: &str, size: f32) -> f32 {
        let glyphs = self.outlines.charmap();
        let advances = self.outlines.glyph_metrics(Size::new(size), LocationRef::default());
        let ids = text.chars().map(|character| glyphs.map(character).unwrap_or_default());
        ids.map(|id| advances.advance_width(id).unwrap_or_default()).sum()
    }

    /// `text` in lines that are at most `width` points wide, broken between words where possible.
    pub(super) fn wrap(&self, text: &str, size: f32, width: f32) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = String::new();
        for word in text.split_whitespace() {
            let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
            if self.width(&longer, size) <= width {
                line = longer;
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            for character in word.chars() {
                line.push(character);
                if self.width(&line, size) > width && line.chars().count() > 1 {
                    line.pop();
                    lines.push(std::mem::replace(&mut line, character.to_string()));
                }
            }
        }
        if !line.is_empty() {
            lines.push(line);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_long_words_anywhere() {
        let fonts = Fonts::load().unwrap();
        let width = fonts.regular.width("0000000000", 10.0);
        let wrap = |text| fonts.regular.wrap(text, 10.0, width);
        assert_eq!(wrap("00000 00 00000"), ["00000 00", "00000"]);
        assert_eq!(wrap("0 000000000000000"), ["0", "0000000000", "00000"]);
        assert!(wrap(" ").is_empty());
        for line in wrap("a quick brown fox jumps over the lazy dog, Zürich, Ελλάδα, Москва")
        {
            assert!(fonts.regular.width(&line, 10.0) <= width, "{line}");
        }
    }

    #[test]
    fn many_alphabets_have_glyphs() {
        let fonts = Fonts::load().unwrap();
        for face in [&fonts.regular, &fonts.bold] {
            for character in "AzÄßéŁğșΩжЇ−–’×€£¥".chars() {
                assert!(face.outlines.charmap().map(character).is_some(), "{character}");
            }
        }
    }
}
