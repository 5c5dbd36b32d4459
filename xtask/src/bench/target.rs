//! What a number should be.

/// A number and its target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    name: &'static str,
    value: f64,
    bound: f64,
    is_at_most: bool,
}

impl Target {
    pub(super) fn at_most(name: &'static str, value: f64, bound: f64) -> Self {
        Self { name, value, bound, is_at_most: true }
    }

    pub(super) fn at_least(name: &'static str, value: f64, bound: f64) -> Self {
        Self { name, value, bound, is_at_most: false }
    }

    fn is_met(&self) -> bool {
        if self.is_at_most { self.value <= self.bound } else { self.value >= self.bound }
    }

    /// One line: the number, the target, and whether it is met.
    pub(super) fn print(&self) {
        let sign = if self.is_at_most { '≤' } else { '≥' };
        let verdict = if self.is_met() { "met" } else { "MISSED" };
        println!(
            "  {:<43}{:>8.3}   target {sign} {:<8}{verdict}",
            self.name, self.value, self.bound
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_on_its_own_side() {
        assert!(
            Target::at_most("a", 1.0, 1.0).is_met() && !Target::at_most("a", 1.1, 1.0).is_met()
        );
        assert!(
            Target::at_least("a", 1.0, 1.0).is_met() && !Target::at_least("a", 0.9, 1.0).is_met()
        );
    }
}
