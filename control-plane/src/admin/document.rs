//! The OpenAPI document, made from the handlers themselves.

use std::sync::LazyLock;

use axum::Json;
use utoipa::{
    OpenApi,
    openapi::{
        self, ContentBuilder, Ref, RefOr, ResponseBuilder,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{PREFIX, resources};
use crate::{app::App, opa, problem::Problem, services};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get))
}

static DOCUMENT: LazyLock<openapi::OpenApi> = LazyLock::new(document);

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "openapi", responses((status = 200, body = serde_json::Value)))]
async fn get() -> Json<&'static openapi::OpenApi> {
    Json(&DOCUMENT)
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Weir admin API",
        description = "Rating policies, plans, tenants, credentials, buckets, usage, invoices and their delivery.\n\nTimes are RFC 3339 in UTC, quantities are integers up to 2^53 - 1, money is decimal text.",
    ),
    components(schemas(Problem))
)]
struct Base;

/// All endpoints; each needs an operator's token, and each may answer with a problem.
fn document() -> openapi::OpenApi {
    let mut document = OpenApiRouter::with_openapi(Base::openapi())
        .nest(PREFIX, resources())
        .nest(opa::PREFIX, opa::resources())
        .merge(services::resources())
        .into_openapi();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "WEIR_ADMIN_TOKEN, or an access token with the role admin; for reports of usage and the \
             data API, an access token with the role usage",
        ))
        .build();
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("bearer", SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new("bearer", [""; 0])]);
    for (path, item) in &mut document.paths.paths {
        let operations = [
            ("get", &mut item.get),
            ("put", &mut item.put),
            ("post", &mut item.post),
            ("patch", &mut item.patch),
            ("delete", &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                operation.operation_id = Some(operation_id(method, path));
                describe_answers(operation);
                add_problems(operation);
            }
        }
    }
    document
}

/// A name for an operation that no other has, such as `get_tenants_by_tenant_api_keys`.
fn operation_id(method: &str, path: &str) -> String {
    let mut id = method.to_owned();
    for segment in path.trim_start_matches(PREFIX).split('/').filter(|text| !text.is_empty()) {
        let segment = segment.replace(['-', '.'], "_").replace('{', "by_").replace('}', "");
        id.push('_');
        id.push_str(&segment);
    }
    id
}

/// OpenAPI wants a description of every answer; most need no other than what their status means.
fn describe_answers(operation: &mut Operation) {
    for (status, answer) in &mut operation.responses.responses {
        if let RefOr::T(answer) = answer
            && answer.description.is_empty()
        {
            let meaning = match status.as_str() {
                "201" => "Made.",
                "202" => "It will be done.",
                "204" => "Done.",
                _ => "As asked for.",
            };
            meaning.clone_into(&mut answer.description);
        }
    }
}

fn add_problems(operation: &mut Operation) {
    let answers = [
        ("401", "The token is missing, unknown, revoked, or of another role."),
        ("default", "The call was not carried out; `detail` says why and what to do."),
    ];
    for (status, description) in answers {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new()
            .description(description)
            .content("application/problem+json", problem)
            .build();
        operation.responses.responses.entry(status.to_owned()).or_insert(response.into());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = serde_json::to_value(document()).unwrap();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.contains("#/components/schemas/Problem"));
        for reference in found {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }
}
