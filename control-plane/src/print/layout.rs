//! Where things stand on the pages of a PDF: top to bottom, on as many A4 pages as it takes.

use super::font::{Face, Fonts};

/// A4, in points of 1/72 inch.
pub(super) const PAGE: (f32, f32) = (595.0, 842.0);
pub(super) const LEFT: f32 = 50.0;
pub(super) const RIGHT: f32 = 545.0;
const TOP: f32 = 56.0;
/// Below it stands only the foot of the page.
const BOTTOM: f32 = 776.0;
const FOOT: f32 = 805.0;

/// A colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Black,
    Grey,
    Red,
}

/// How text looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) size: f32,
    pub(super) bold: bool,
    pub(super) ink: Ink,
}

/// Something on a page; `y` is counted from its top, and is where text stands on.
#[derive(Debug)]
pub(super) enum Mark {
    Text {
        x: f32,
        y: f32,
        style: Style,
        text: String,
    },
    /// A line across the page.
    Rule {
        y: f32,
        thickness: f32,
    },
}

/// Pages that are being filled.
pub(super) struct Pages<'a> {
    fonts: &'a Fonts,
    pub(super) pages: Vec<Vec<Mark>>,
    /// How far the last page is filled.
    pub(super) y: f32,
}

impl Style {
    pub(super) const fn new(size: f32) -> Self {
        Self { size, bold: false, ink: Ink::Black }
    }

    pub(super) const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub(super) const fn ink(self, ink: Ink) -> Self {
        Self { ink, ..self }
    }

    /// From one line to the next.
    pub(super) fn line_height(self) -> f32 {
        self.size * 1.4
    }
}

impl<'a> Pages<'a> {
    pub(super) fn new(fonts: &'a Fonts) -> Self {
        Self { fonts, pages: vec![Vec::new()], y: TOP }
    }

    pub(super) fn face(&self, style: Style) -> &'a Face {
        if style.bold { &self.fonts.bold } else { &self.fonts.regular }
    }

    /// Starts a new page where less than `height` is left of this one; whether it did.
    pub(super) fn make_room(&mut self, height: f32) -> bool {
        let full = self.y + height > BOTTOM && self.y > TOP;
        if full {
            self.pages.push(Vec::new());
            self.y = TOP;
        }
        full
    }

    /// Text that starts at `x`, on the current line.
    pub(super) fn text(&mut self, x: f32, style: Style, text: &str) {
        let y = self.y + style.size;
        self.mark(Mark::Text { x, y, style, text: text.to_owned() });
    }

    /// Text that ends at `right` and is at most `width` wide: a number is never broken, but made
    /// smaller.
    pub(super) fn text_to(&mut self, right: f32, width: f32, style: Style, text: &str) {
        let face = self.face(style);
        let natural = face.width(text, style.size);
        let size = if natural > width { style.size * width / natural } else { style.size };
        let x = right - face.width(text, size);
        let y = self.y + style.size;
        self.mark(Mark::Text { x, y, style: Style { size, ..style }, text: text.to_owned() });
    }

    /// Text that starts at `x`, in as many lines as it takes, and the pages too.
    pub(super) fn paragraph(&mut self, x: f32, width: f32, style: Style, text: &str) {
        for line in self.face(style).wrap(text, style.size, width) {
            self.make_room(style.line_height());
            self.text(x, style, &line);
            self.y += style.line_height();
        }
    }

    pub(super) fn rule(&mut self, thickness: f32) {
        self.mark(Mark::Rule { y: self.y, thickness });
    }

    /// Writes `name` and the page's number at the foot of each page.
    pub(super) fn finish(mut self, name: &str) -> Vec<Vec<Mark>> {
        let style = Style::new(8.0).ink(Ink::Grey);
        let count = self.pages.len();
        for (number, page) in (1..).zip(&mut self.pages) {
            let text = format!("Page {number} of {count}");
            let x = RIGHT - self.fonts.regular.width(&text, style.size);
            page.push(Mark::Text { x: LEFT, y: FOOT, style, text: name.to_owned() });
            page.push(Mark::Text { x, y: FOOT, style, text });
        }
        self.pages
    }

    fn mark(&mut self, mark: Mark) {
        if let Some(page) = self.pages.last_mut() {
            page.push(mark);
        }
    }
}
