# Reading is free, and so is health; on the plan "free" large prompts are not for sale.
package weir.rating

default allow := true

allow := false if too_large

too_large if {
    input.plan == "free"
    input.prompt_tokens > 8000
}

default cost := 1

cost := 0 if input.method in {"GET", "HEAD", "OPTIONS"}

reason := "prompts of more than 8000 tokens need a paid plan" if too_large
