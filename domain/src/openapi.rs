//! The OpenAPI schemas of types whose JSON is narrower than their fields say.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, Schema, Type},
    },
};

use crate::{
    billing_period::Days,
    currency::Currency,
    id::{self, CreditName, LimitName, Meter, PlanId, PolicyId, TenantId},
    price::ModelPattern,
    quantity::Quantity,
};

impl PartialSchema for Quantity {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0))
            .maximum(Some(Quantity::MAX.get()))
            .description(Some("A number of tokens or of requests, at most 2^53 - 1."))
            .into()
    }
}

impl ToSchema for Quantity {}

impl PartialSchema for Currency {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[A-Z]{3}$"))
            .description(Some("A currency code of ISO 4217, such as USD."))
            .into()
    }
}

impl ToSchema for Currency {}

impl PartialSchema for ModelPattern {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(r"^[^*]+\*?$"))
            .max_length(Some(128))
            .description(Some("A model's name or, with * at the end, the beginning of names."))
            .into()
    }
}

impl ToSchema for ModelPattern {}

impl PartialSchema for Days {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(Days::MAX))
            .description(Some("How many days a billing period has."))
            .into()
    }
}

impl ToSchema for Days {}

macro_rules! id_schema {
    ($($name:ident: $description:literal),* $(,)?) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern(Some("^[A-Za-z0-9._-]+$"))
                    .min_length(Some(1))
                    .max_length(Some(id::MAX_LEN))
                    .description(Some($description))
                    .into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    )*};
}

id_schema! {
    TenantId: "Who is limited and billed.",
    PolicyId: "A rating policy.",
    PlanId: "A versioned set of limits and prices.",
    LimitName: "The name of a limit, unique in its plan.",
    CreditName: "The name of a credit, unique among the tenant's.",
    Meter: "What usage is counted on; `default` without a rating policy.",
}
