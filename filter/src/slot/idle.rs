//! For how long leases and slices may be unused.

use weir_domain::protocol::{MAX_PERIODIC_TTL_MS, MAX_TTL_MS};

use super::LEASE_SPAN_NS;

/// For how long a lease may be unused at most.
const LONG_IDLE_NS: u64 = 900_000_000_000;

/// Whether a lease that was to last `ttl_ns` is of a tenant that had plenty then.
pub fn had_plenty(ttl_ns: u64) -> bool {
    ttl_ns > MAX_TTL_MS * 1_000_000
}

/// Whether such a lease is to be renewed for as long as may be: its end is not that of its period yet, and
/// its tenant has not come to have less, when renewals do not move the end.
pub fn is_long(ttl_ns: u64) -> bool {
    // An answer may have been lost, and come again with what is left.
    const NEARLY_NS: u64 = (MAX_PERIODIC_TTL_MS - MAX_TTL_MS) * 1_000_000;
    ttl_ns >= NEARLY_NS
}

/// For how long a lease that was to last `ttl_ns` may be unused before it goes back to the control plane.
/// Who has plenty does not miss a long one elsewhere. Among very many tenants most come rarely, and to have
/// their leases renewed, a hundred in a call, costs less than the calls that their requests would wait for.
pub fn idle_lease_ns(ttl_ns: u64) -> u64 {
    if is_long(ttl_ns) { LONG_IDLE_NS } else { (ttl_ns / 4).max(LEASE_SPAN_NS / 2) }
}

/// The same for a slice of it, which goes back to its slot: soon, but for that of a long lease, which its
/// siblings don't miss either. To draw one and to put it back costs more than a request does.
pub fn idle_slice_ns(ttl_ns: u64) -> u64 {
    if is_long(ttl_ns) { LONG_IDLE_NS } else { (ttl_ns / 20).max(LEASE_SPAN_NS / 10) }
}

/// The length of a lease for these two. One may have grown since it was found to be little of what is
/// left, and its end is never moved forward.
pub fn idle_ttl_ns(ttl_ns: u64, holds_little: bool) -> u64 {
    if holds_little { ttl_ns } else { ttl_ns.min(MAX_TTL_MS * 1_000_000) }
}
