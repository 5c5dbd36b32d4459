//! Forms as providers read them: every parameter must be known, and those that are needed be there.

use reqwest::Url;

pub(crate) fn parse(text: &str) -> Vec<(String, String)> {
    let url = Url::parse(&format!("http://form/?{text}"));
    url.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default()
}

/// `lines[3][metadata][line_id]` is `lines[#][metadata][*]`.
fn pattern(name: &str) -> String {
    let mut parts = name.split('[');
    let mut pattern = parts.next().unwrap_or("").to_owned();
    let mut free = pattern == "metadata";
    for part in parts {
        let part = part.trim_end_matches(']');
        let number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        pattern += match (free, number) {
            (true, _) => "[*]",
            (false, true) => "[#]",
            (false, false) => "",
        };
        if !free && !number {
            pattern += &format!("[{part}]");
        }
        free = part == "metadata";
    }
    pattern
}

/// The name of the first parameter that is unknown, missing or given twice.
pub(crate) fn check(
    params: &[(String, String)],
    needed: &[&str],
    known: &[&str],
) -> Result<(), (&'static str, String)> {
    for (index, (name, value)) in params.iter().enumerate() {
        let pattern = pattern(name);
        if !needed.contains(&pattern.as_str()) && !known.contains(&pattern.as_str()) {
            return Err(("parameter_unknown", name.clone()));
        }
        if params[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(("parameter_twice", name.clone()));
        }
        if value.is_empty() {
            return Err(("parameter_invalid_empty", name.clone()));
        }
    }
    let missing =
        needed.iter().find(|wanted| !params.iter().any(|(name, _)| pattern(name) == **wanted));
    missing.map_or(Ok(()), |name| Err(("parameter_missing", (*name).to_owned())))
}

#[test]
fn unknown_missing_and_repeated_parameters_are_found() {
    assert_eq!(pattern("lines[3][metadata][line_id]"), "lines[#][metadata][*]");
    assert_eq!(pattern("metadata[7]"), "metadata[*]");
    assert_eq!(pattern("created[gte]"), "created[gte]");
    let check = |text: &str| check(&parse(text), &["a"], &["b[#]"]).map_err(|(code, _)| code);
    assert_eq!(check("a=1&b[0]=2&b[1]=%C3%A9"), Ok(()));
    assert_eq!(check("a=1&c=2"), Err("parameter_unknown"));
    assert_eq!(check("b[0]=1"), Err("parameter_missing"));
    assert_eq!(check("a=1&a=1"), Err("parameter_twice"));
    assert_eq!(check("a="), Err("parameter_invalid_empty"));
}
