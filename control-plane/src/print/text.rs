//! The page as text, for a terminal.

use super::{Sheet, sheet::Row};

/// How wide names and amounts are at least, in characters.
const NAME: usize = 28;
const AMOUNT: usize = 16;

pub(super) fn render(sheet: &Sheet) -> String {
    let mut text = format!("{} {}", sheet.title, sheet.number).trim_end().to_owned() + "\n";
    let stamp = sheet.stamp.iter().map(|stamp| format!("{stamp}\n"));
    let facts = sheet.facts.iter().map(|(name, fact)| format!("  {name:<10}{fact}\n"));
    text.extend(stamp.chain(facts));
    text.push('\n');
    text.extend(sheet.rows.iter().map(row));
    text.push_str(&line(&format!("Total {}", sheet.currency), &sheet.total));
    text
}

fn row(row: &Row) -> String {
    let mut text = line(&row.name, &row.amount);
    let times = match (row.quantity.is_empty(), row.unit_price.is_empty()) {
        (false, false) => format!("{} × {}", row.quantity, row.unit_price),
        _ => row.quantity.clone(),
    };
    for detail in [times, row.details.clone()] {
        if !detail.is_empty() {
            text.push_str(&format!("    {detail}\n"));
        }
    }
    text
}

fn line(name: &str, amount: &str) -> String {
    format!("  {name:<NAME$}{amount:>AMOUNT$}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_reads_line_by_line() {
        let row = |name: &str, quantity: &str, unit_price: &str, amount: &str| Row {
            name: name.to_owned(),
            details: String::new(),
            quantity: quantity.to_owned(),
            unit_price: unit_price.to_owned(),
            amount: amount.to_owned(),
        };
        let sheet = Sheet {
            title: "Draft invoice",
            number: String::new(),
            stamp: Some("Draft"),
            facts: vec![("Account", "acme".to_owned())],
            seller: Vec::new(),
            buyer: Vec::new(),
            currency: "USD".to_owned(),
            rows: vec![
                row("Base fee", "", "", "49.00"),
                row("Tokens", "1,250 tokens", "0.0001", "0.12"),
            ],
            total: "49.12".to_owned(),
            note: Vec::new(),
        };
        let expected = "\
Draft invoice
Draft
  Account   acme

  Base fee                               49.00
  Tokens                                  0.12
    1,250 tokens × 0.0001
  Total USD                              49.12
";
        assert_eq!(render(&sheet), expected);
    }
}
