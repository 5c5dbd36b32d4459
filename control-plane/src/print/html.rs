//! The page as HTML that needs nothing else.

use askama::Template;

use super::Sheet;

#[derive(Template)]
#[template(path = "print/invoice.html")]
struct Page<'a> {
    sheet: &'a Sheet,
    style: &'static str,
}

pub(super) fn render(sheet: &Sheet) -> Result<String, askama::Error> {
    Page { sheet, style: include_str!("../../templates/print/style.css") }.render()
}
