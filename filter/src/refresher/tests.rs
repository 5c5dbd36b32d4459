use super::*;

fn answer(revision: u64, reset: bool, tenants: &[&str]) -> ConfigAnswer {
    ConfigAnswer {
        revision,
        reset,
        tenants: tenants.iter().map(|id| TenantId::new(*id).unwrap()).collect(),
        now_ms: 0,
        policy: None,
    }
}

#[test]
fn workers_catch_up_on_what_they_missed() {
    let mut changes = Changes::default();
    changes.add(&answer(5, true, &[]), 1);
    changes.add(&answer(6, false, &["a", "b"]), 2);
    assert_eq!(changes.all_changed_ns, 1);
    assert_eq!((changes.revision, changes.sequence), (6, 3));
    assert_eq!(changes.since(3), Some(&[][..]));
    assert_eq!(changes.since(2).unwrap().len(), 1);
    assert_eq!(changes.since(0).unwrap().first(), Some(&None), "all changed");
    assert_eq!(changes.since(4), None, "a sequence of another life");
}

#[test]
fn who_missed_too_much_hears_that_all_changed() {
    let mut changes = Changes::default();
    for revision in 0..1_000 {
        changes.add(&answer(revision, false, &["a"]), revision);
    }
    assert_eq!(changes.recent.len(), MAX_RECENT);
    assert!(changes.since(1_000 - MAX_RECENT as u64).is_some());
    assert_eq!(changes.since(1_000 - MAX_RECENT as u64 - 1), None);
}
