# The plain token bucket: each request costs one token, and passes while tokens are left.
#
# There is nothing to ask about the bucket: the gateway takes the cost only where there is enough, and
# answers 429 where there is not. It is also what holds without a policy.
package weir.rating

allow := true

cost := 1
