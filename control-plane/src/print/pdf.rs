//! The page as PDF.

use krilla::{
    Document,
    color::rgb,
    geom::{PathBuilder, Point, Rect},
    metadata::Metadata,
    num::NormalizedF32,
    page::PageSettings,
    paint::Fill,
    surface::Surface,
};
use thiserror::Error;

use super::{
    Sheet,
    font::Fonts,
    layout::{Ink, LEFT, Mark, PAGE, Pages, RIGHT, Style},
    sheet::Row,
};

const BODY: Style = Style::new(9.5);
const SMALL: Style = Style::new(8.0).ink(Ink::Grey);
/// Where the columns of the table end.
const ITEM_END: f32 = 265.0;
const QUANTITY_END: f32 = 378.0;
const PRICE_END: f32 = 455.0;
/// Between two columns.
const GAP: f32 = 8.0;

/// Why there is no PDF.
#[derive(Debug, Error)]
pub(super) enum PdfError {
    #[error("the fonts of the program can't be read")]
    Font,
    #[error("a page has no size")]
    Page,
    #[error("the PDF can't be written: {0}")]
    Write(String),
}

/// The same sheet makes the same bytes.
pub(super) fn render(sheet: &Sheet) -> Result<Vec<u8>, PdfError> {
    let fonts = Fonts::load()?;
    let mut document = Document::new();
    document.set_metadata(
        Metadata::new().title(name(sheet)).language("en".to_owned()).producer("Weir".to_owned()),
    );
    for marks in lay_out(sheet, &fonts) {
        let settings = PageSettings::from_wh(PAGE.0, PAGE.1).ok_or(PdfError::Page)?;
        let mut page = document.start_page_with(settings);
        let mut surface = page.surface();
        for mark in &marks {
            draw(&mut surface, &fonts, mark);
        }
        surface.finish();
        page.finish();
    }
    document.finish().map_err(|error| PdfError::Write(format!("{error:?}")))
}

/// What stands where, page by page.
fn lay_out(sheet: &Sheet, fonts: &Fonts) -> Vec<Vec<Mark>> {
    let mut pages = Pages::new(fonts);
    head(&mut pages, sheet);
    parties(&mut pages, sheet);
    table(&mut pages, sheet);
    note(&mut pages, sheet);
    pages.finish(&name(sheet))
}

fn name(sheet: &Sheet) -> String {
    format!("{} {}", sheet.title, sheet.number).trim().to_owned()
}

/// Who bills, and what this is.
fn head(pages: &mut Pages<'_>, sheet: &Sheet) {
    let start = pages.y;
    let title = Style::new(20.0).bold();
    pages.text_to(RIGHT, 240.0, title, sheet.title);
    pages.y += title.line_height();
    pages.text_to(RIGHT, 240.0, BODY.bold(), &sheet.number);
    pages.y += BODY.line_height();
    if let Some(stamp) = sheet.stamp {
        let style = Style::new(11.0).bold().ink(Ink::Red);
        pages.text_to(RIGHT, 240.0, style, stamp);
        pages.y += style.line_height();
    }
    let end = pages.y;
    pages.y = start;
    named(pages, LEFT, 240.0, &sheet.seller);
    pages.y = pages.y.max(end) + 28.0;
}

/// Who is billed, and when.
fn parties(pages: &mut Pages<'_>, sheet: &Sheet) {
    let start = pages.y;
    let page = pages.pages.len();
    for (name, value) in &sheet.facts {
        pages.text(320.0, BODY.ink(Ink::Grey), name);
        pages.text_to(RIGHT, 165.0, BODY, value);
        pages.y += BODY.line_height();
    }
    let end = pages.y;
    pages.y = start;
    pages.text(LEFT, SMALL, "Billed to");
    pages.y += SMALL.line_height();
    named(pages, LEFT, 240.0, &sheet.buyer);
    // A very long address goes on to the next page, and what follows it too.
    let below = if pages.pages.len() == page { pages.y.max(end) } else { pages.y };
    pages.y = below + 26.0;
}

/// Lines under a name.
fn named(pages: &mut Pages<'_>, x: f32, width: f32, lines: &[String]) {
    for (index, line) in lines.iter().enumerate() {
        let style = if index == 0 { BODY.bold() } else { BODY };
        pages.paragraph(x, width, style, line);
    }
}

fn table(pages: &mut Pages<'_>, sheet: &Sheet) {
    let amount = format!("Amount ({})", sheet.currency);
    pages.make_room(80.0);
    table_head(pages, &amount);
    for row in &sheet.rows {
        if pages.make_room(row_height(pages, row)) {
            table_head(pages, &amount);
        }
        table_row(pages, row);
    }
    if sheet.rows.is_empty() {
        pages.y += 6.0;
        pages.text(LEFT, BODY.ink(Ink::Grey), "Nothing is charged.");
        pages.y += BODY.line_height() + 6.0;
    }
    pages.make_room(40.0);
    pages.rule(1.0);
    pages.y += 7.0;
    let total = Style::new(11.0).bold();
    pages.text(LEFT, total, &format!("Total ({})", sheet.currency));
    pages.text_to(RIGHT, 300.0, total, &sheet.total);
    pages.y += total.line_height();
}

fn table_head(pages: &mut Pages<'_>, amount: &str) {
    let style = SMALL.bold();
    pages.text(LEFT, style, "Item");
    for (right, text) in [(QUANTITY_END, "Quantity"), (PRICE_END, "Unit price"), (RIGHT, amount)] {
        pages.text_to(right, 90.0, style, text);
    }
    pages.y += style.line_height() + 3.0;
}

fn row_height(pages: &Pages<'_>, row: &Row) -> f32 {
    let height = |style: Style, text: &str| {
        let lines = pages.face(style).wrap(text, style.size, ITEM_END - LEFT);
        lines.iter().map(|_| style.line_height()).sum::<f32>()
    };
    height(BODY, &row.name) + height(SMALL, &row.details) + 11.0
}

fn table_row(pages: &mut Pages<'_>, row: &Row) {
    pages.rule(0.5);
    pages.y += 5.0;
    pages.text_to(QUANTITY_END, QUANTITY_END - ITEM_END - GAP, BODY, &row.quantity);
    pages.text_to(PRICE_END, PRICE_END - QUANTITY_END - GAP, BODY, &row.unit_price);
    pages.text_to(RIGHT, RIGHT - PRICE_END - GAP, BODY, &row.amount);
    pages.paragraph(LEFT, ITEM_END - LEFT, BODY, &row.name);
    pages.paragraph(LEFT, ITEM_END - LEFT, SMALL, &row.details);
    pages.y += 6.0;
}

fn note(pages: &mut Pages<'_>, sheet: &Sheet) {
    pages.y += 24.0;
    for line in &sheet.note {
        pages.paragraph(LEFT, RIGHT - LEFT, BODY, line);
    }
}

fn draw(surface: &mut Surface<'_>, fonts: &Fonts, mark: &Mark) {
    match mark {
        Mark::Text { x, y, style, text } => {
            surface.set_fill(Some(fill(style.ink)));
            let face = if style.bold { &fonts.bold } else { &fonts.regular };
            let start = Point::from_xy(*x, *y);
            surface.draw_glyphs(
                start,
                &face.glyphs(text),
                face.font.clone(),
                text,
                style.size,
                false,
            );
        }
        Mark::Rule { y, thickness } => {
            surface.set_fill(Some(fill(Ink::Grey)));
            let mut path = PathBuilder::new();
            if let Some(bar) = Rect::from_xywh(LEFT, *y, RIGHT - LEFT, *thickness) {
                path.push_rect(bar);
            }
            if let Some(path) = path.finish() {
                surface.draw_path(&path);
            }
        }
    }
}

fn fill(ink: Ink) -> Fill {
    let color = match ink {
        Ink::Black => rgb::Color::new(23, 33, 43),
        Ink::Grey => rgb::Color::new(81, 96, 111),
        Ink::Red => rgb::Color::new(179, 38, 30),
    };
    Fill { paint: color.into(), opacity: NormalizedF32::ONE, ..Fill::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(rows: usize) -> Sheet {
        let row = |index: usize| Row {
            name: format!("Item {index} {}", "with a long name ".repeat(index % 5)),
            details: "1,000 included; 0.01 up to 50, 0.005 for each further one".repeat(index % 3),
            quantity: "9,007,199,254,740,991 requests".to_owned(),
            unit_price: "0.000000000001".to_owned(),
            amount: "92,233,720,368,547,758.07".to_owned(),
        };
        Sheet {
            title: "Invoice",
            number: "INV-000001".to_owned(),
            stamp: Some("Void"),
            facts: vec![("Date", "1 January 2026".to_owned())],
            seller: vec!["Weir".to_owned()],
            buyer: vec!["Łódź ∂ 株式会社".to_owned(), "x".repeat(5_000)],
            currency: "USD".to_owned(),
            rows: (0..rows).map(row).collect(),
            total: "92,233,720,368,547,758.07".to_owned(),
            note: vec!["Thank you".to_owned()],
        }
    }

    #[test]
    fn all_of_the_sheet_stands_on_the_pages() {
        let fonts = Fonts::load().unwrap();
        for (rows, pages) in [(0, 1), (1, 1), (60, 4)] {
            let sheet = sheet(rows);
            let marks = lay_out(&sheet, &fonts);
            assert!(marks.len() >= pages, "{rows} rows on {} pages", marks.len());
            let mut amounts = 0;
            for mark in marks.iter().flatten() {
                let Mark::Text { x, y, style, text } = mark else { continue };
                let face = if style.bold { &fonts.bold } else { &fonts.regular };
                let end = x + face.width(text, style.size);
                assert!(*x >= LEFT - 0.1 && end <= RIGHT + 0.1, "{text} from {x} to {end}");
                assert!(*y > 0.0 && *y < PAGE.1, "{text} at {y}");
                amounts += usize::from(*text == sheet.total);
            }
            assert_eq!(amounts, rows + 1, "each amount, and the total");
        }
    }

    #[test]
    fn a_sheet_makes_the_same_pdf_again() {
        let file = render(&sheet(30)).unwrap();
        assert!(file.starts_with(b"%PDF-1."));
        assert_eq!(file, render(&sheet(30)).unwrap());
    }
}
