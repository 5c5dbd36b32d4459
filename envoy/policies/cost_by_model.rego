# Models of more worth cost more tokens. What no line names costs as much as the dearest.
package weir.rating

allow := true

prices := {
    "gpt-4.1": 20,
    "gpt-4.1-mini": 4,
    "claude-sonnet-4-5": 15,
    "claude-haiku-4-5": 5,
}

default cost := 20

cost := prices[input.model]

# Usage of language models is counted and priced apart from other requests.
default meter := "requests"

meter := "llm" if input.model
