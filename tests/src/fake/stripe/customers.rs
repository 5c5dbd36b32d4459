//! Customers of Stripe's: making one, and finding it a minute later.

use serde_json::{Value, json};

use super::{Customer, Request, SEARCH_LAG_S, Stripe, answers::metadata};

impl Stripe {
    pub(super) fn create_customer(&mut self, request: &Request, now_s: u64) -> Value {
        let id = self.id("cus");
        let metadata = metadata(request, "metadata");
        let email = request.param("email").to_owned();
        let answer = json!({ "id": id, "object": "customer", "metadata": metadata });
        self.places.insert(id.clone(), self.customers.len());
        self.customers.push(Customer { id, email, metadata, made_at_s: now_s, balance_minor: 0 });
        answer
    }

    pub(super) fn search_customers(&self, request: &Request, now_s: u64) -> Value {
        let wanted: Vec<(String, String)> = request
            .param("query")
            .split(" AND ")
            .filter_map(|term| {
                term.strip_prefix("metadata['")?.strip_suffix('\'')?.split_once("']:'")
            })
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let fits = |customer: &&Customer| {
            customer.made_at_s + SEARCH_LAG_S <= now_s
                && wanted
                    .iter()
                    .all(|(name, value)| customer.metadata.get(name) == Some(&json!(value)))
        };
        let found = self.customers.iter().filter(fits);
        let data: Vec<_> = found
            .map(|customer| json!({ "id": customer.id, "metadata": customer.metadata }))
            .collect();
        json!({ "object": "search_result", "data": data, "has_more": false })
    }
}
