# A token for each thousand tokens of the prompt that have begun, and at least one.
package weir.rating

allow := true

default cost := 1

cost := max({1, ceil(input.prompt_tokens / 1000)})
