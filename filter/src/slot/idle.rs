//! For how long leases and slices may be unused.

use weir_domain::protocol::MAX_TTL_MS;

use super::LEASE_SPAN_NS;

/// For how long a lease that was to last `ttl_ns` may be unused before it goes back to the control plane.
/// One that lasts for long is of a tenant with plenty, who does not miss it elsewhere. Among very many
/// tenants most come rarely, and to have the lease of one renewed for an hour costs less than one request
/// that has to wait for another.
pub fn idle_lease_ns(ttl_ns: u64) -> u64 {
    if ttl_ns > LONG_TTL_NS {
        return LONG_IDLE_NS;
    }
    (ttl_ns / 4).max(LEASE_SPAN_NS / 2)
}

/// For how long a lease may be unused at most.
pub const LONG_IDLE_NS: u64 = 900_000_000_000;

/// What a lease lasts for at most whose tenant has no plenty.
pub const LONG_TTL_NS: u64 = MAX_TTL_MS * 1_000_000;

/// The same for a slice of it, which goes back to its slot: soon, but for that of a long lease, which its
/// siblings don't miss either. To draw one and to put it back costs more than a request does.
pub fn idle_slice_ns(ttl_ns: u64) -> u64 {
    if ttl_ns > LONG_TTL_NS {
        return idle_lease_ns(ttl_ns);
    }
    (ttl_ns / 20).max(LEASE_SPAN_NS / 10)
}

/// The length of a lease for these two. One may have grown since it was found to be little of what is
/// left, and its end is never moved forward.
pub fn idle_ttl_ns(ttl_ns: u64, holds_little: bool) -> u64 {
    if holds_little { ttl_ns } else { ttl_ns.min(LONG_TTL_NS) }
}
