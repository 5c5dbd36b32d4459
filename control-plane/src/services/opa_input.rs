//! What callers of the data API say, in the words that OpenClaw's rating engine uses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use weir_domain::id::TenantId;

use super::store::Key;
use crate::problem::ApiError;

const DOOR: &str = "data_api";
const MAX_KEY_LEN: usize = 200;

/// The document `input`. What else is in it is left alone, as by OPA.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Asked {
    /// Whose tokens are taken; without it, or where there is no such tenant, nothing is allowed.
    #[serde(default)]
    pub tenant_id: Option<String>,
    #[serde(default)]
    pub model: Option<String>,
    #[serde(default)]
    pub method: Option<String>,
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default)]
    pub prompt_tokens: Option<u64>,
    #[serde(default)]
    pub max_output_tokens: Option<u64>,
    /// Those that the active policy names are enough.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Names the request, so that a repeat counts once and is answered the same. 1 to 200 visible
    /// characters. A name that is used twice lets two requests pass for the price of one.
    #[serde(default, skip_serializing)]
    pub request_id: Option<String>,
}

impl Asked {
    /// Reads a body; `None` without the key `input`.
    pub fn read(body: &[u8]) -> Result<Option<Self>, ApiError> {
        if body.is_empty() {
            return Ok(None);
        }
        let body: Value = serde_json::from_slice(body).map_err(|error| {
            ApiError::bad_request(format!("body contains malformed input document: {error}"))
        })?;
        let Value::Object(mut body) = body else {
            return Err(ApiError::bad_request("body must be an object with the key \"input\""));
        };
        let Some(input) = body.remove("input") else { return Ok(None) };
        if !input.is_object() {
            return Ok(Some(Self::default()));
        }
        serde_path_to_error::deserialize(input).map(Some).map_err(|error| {
            ApiError::bad_request(format!("input.{}: {}", error.path(), error.inner()))
        })
    }

    /// `None` for what cannot be a tenant.
    pub fn tenant(&self) -> Option<TenantId> {
        self.tenant_id.as_deref().and_then(|id| TenantId::new(id).ok())
    }

    /// What names this request of `tenant`; a request without a name is never a repeat.
    pub fn key(&self, tenant: &TenantId) -> Result<Option<Key>, ApiError> {
        let Some(id) = &self.request_id else { return Ok(None) };
        if id.is_empty()
            || id.len() > MAX_KEY_LEN
            || !id.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(ApiError::bad_request(
                "input.request_id: must have 1 to 200 visible ASCII characters, and no spaces",
            ));
        }
        let asked = serde_json::to_vec(self).map_err(ApiError::internal)?;
        let asked = Sha256::digest(asked).into();
        Ok(Some(Key { door: DOOR, key: format!("{tenant}/{id}"), asked }))
    }
}
