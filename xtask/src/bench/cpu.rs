//! CPU time of processes, from the kernel's own accounting.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// What `process`, all its threads and all its living descendants have used, in ns.
pub(super) fn used_ns(process: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        // One that ends meanwhile is not counted; those that matter here stay.
        sum += thread_ns(&thread).unwrap_or(0);
        let children = fs::read_to_string(thread.join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            sum += used_ns(child).unwrap_or(0);
        }
    }
    Ok(sum)
}

/// The first number of `schedstat`: time spent on a CPU, in ns.
fn thread_ns(thread: &Path) -> Result<u64> {
    let text = fs::read_to_string(thread.join("schedstat"))?;
    text.split_whitespace().next().context("schedstat is empty")?.parse().context("schedstat")
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn work_takes_time() -> Result<()> {
        let me = std::process::id();
        let before = used_ns(me)?;
        let mut number = 1_u64;
        while used_ns(me)? < before + 1_000_000 {
            number = black_box(number.wrapping_mul(3));
        }
        Ok(())
    }
}
