//! Which of its formats a caller gets: `?format=` says so, else the header `Accept`.

use axum::http::{HeaderMap, header};

/// The format that is asked for: `asked`, or the one of `known` that the caller accepts best, or
/// `otherwise`.
pub fn format<F: Copy>(
    asked: Option<F>,
    headers: &HeaderMap,
    known: &[(&str, F)],
    otherwise: F,
) -> F {
    if let Some(asked) = asked {
        return asked;
    }
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|text| text.to_str().ok());
    let mut best = (otherwise, 0);
    for range in accepted.flat_map(|text| text.split(',')) {
        let (media_type, quality) = parse(range);
        match known.iter().find(|(name, _)| *name == media_type) {
            Some((_, format)) if quality > best.1 => best = (*format, quality),
            _ => {}
        }
    }
    best.0
}

/// `text/csv;q=0.5` as its media type in lower case and its quality in thousandths.
fn parse(range: &str) -> (String, u16) {
    let mut parts = range.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1_000, thousandths);
    (media_type, quality)
}

/// `1`, `0.5`, `0.125`; 0 for what is none.
fn thousandths(text: &str) -> u16 {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{rest:0<3}");
    if rest.len() > 3 { 0 } else { digits.parse().unwrap_or(0).min(1_000) }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn chosen(accept: Option<&'static str>, asked: Option<char>) -> char {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        let known = [("application/json", 'j'), ("text/csv", 'c'), ("text/html", 'h')];
        format(asked, &headers, &known, 'j')
    }

    #[test]
    fn the_query_wins_and_then_the_best_known_type() {
        for (accept, asked, expected) in [
            (None, None, 'j'),
            (None, Some('c'), 'c'),
            (Some("text/html"), Some('c'), 'c'),
            (Some("*/*"), None, 'j'),
            (Some("Text/CSV"), None, 'c'),
            (Some("text/html;q=0.5, text/csv;q=0.9;x=y"), None, 'c'),
            (Some("text/html, text/csv"), None, 'h'),
            (Some("text/csv;q=0"), None, 'j'),
            (Some("text/html;q=0.25,text/csv;q=0.125,*/*;q=0.8"), None, 'h'),
            (Some("image/png, ;;,"), None, 'j'),
        ] {
            assert_eq!(chosen(accept, asked), expected, "{accept:?}");
        }
    }
}
