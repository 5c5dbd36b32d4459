//! All headers of a request, as Envoy hands them to a VM: how many there are, the lengths of the name and the
//! value of each, then the names and values, each with a zero behind it. Numbers are u32, little-endian.

use crate::host::Value;

/// The values of these headers, in the order of their names; of one that comes several times, the first.
pub(super) fn find(all: &[u8], names: &[&str]) -> Vec<Option<Value>> {
    let mut values: Vec<Option<Value>> = names.iter().map(|_| None).collect();
    let mut left = names.len();
    for (name, value) in pairs(all) {
        let wanted = names.iter().zip(&mut values).filter(|(wanted, _)| wanted.as_bytes() == name);
        for (_, found) in wanted.filter(|(_, found)| found.is_none()) {
            *found = Some(value.into());
            left -= 1;
        }
        if left == 0 {
            break;
        }
    }
    values
}

/// None where the bytes are not what they should be.
fn pairs(all: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let count = number(all, 0).unwrap_or_default();
    let mut at = length_at(count);
    (0..count).map_while(move |index| {
        let mut take = |length: usize| {
            let bytes = all.get(at..at.checked_add(length)?)?;
            at = at.saturating_add(length).saturating_add(1);
            Some(bytes)
        };
        let lengths = length_at(index);
        let name = take(number(all, lengths)?)?;
        Some((name, take(number(all, lengths.saturating_add(4))?)?))
    })
}

/// Where the lengths of the pair with this index stand.
fn length_at(index: usize) -> usize {
    index.saturating_mul(8).saturating_add(4)
}

fn number(all: &[u8], at: usize) -> Option<usize> {
    let bytes = all.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pairs: &[(&str, &str)]) -> Vec<u8> {
        let length = |text: &str| (text.len() as u32).to_le_bytes();
        let mut all = (pairs.len() as u32).to_le_bytes().to_vec();
        for (name, value) in pairs {
            all.extend([length(name), length(value)].concat());
        }
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            all.extend(text.as_bytes());
            all.push(0);
        }
        all
    }

    fn found(all: &[u8], names: &[&str]) -> Vec<Option<String>> {
        let text = |value: Value| String::from_utf8(value.into()).unwrap();
        find(all, names).into_iter().map(|value| value.map(text)).collect()
    }

    #[test]
    fn the_first_of_each_name_is_found() {
        let long = "x".repeat(200);
        let all = written(&[(":path", "/a"), ("x-empty", ""), ("x-b", &long), (":path", "/b")]);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            found(&all, &["x-b", ":path", "x-c", "x-empty", ":path"]),
            [some(&long), some("/a"), None, some(""), some("/a")]
        );
        assert_eq!(found(&all, &[]), []);
    }

    /// Envoy does not send these; nothing may come of them but that headers are missing.
    #[test]
    fn what_is_broken_has_no_headers() {
        let all = written(&[(":path", "/a"), ("x-b", "b")]);
        for end in 0..all.len() {
            let _ = found(&all[..end], &[":path", "x-b"]);
        }
        assert_eq!(found(&[0xff; 40], &[":path"]), [None]);
        assert_eq!(found(&all[..all.len() - 2], &[":path", "x-b"]), [Some("/a".to_owned()), None]);
    }
}
