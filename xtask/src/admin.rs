//! The admin API, as far as the demo and the bench need it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::stack::Stack;

pub(crate) struct Admin {
    client: reqwest::Client,
    /// The control plane.
    url: String,
    token: String,
}

impl Admin {
    pub(crate) fn new(stack: &Stack) -> Result<Self> {
        let control_plane =
            stack.control_planes.first().context("the stack has no control plane")?;
        Ok(Self {
            client: reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?,
            url: control_plane.url(),
            token: stack.admin_token.clone(),
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.call(self.admin(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str) -> Result<Value> {
        self.call(self.admin(Method::POST, path)).await
    }

    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(self.admin(Method::POST, path).json(body)).await
    }

    pub(crate) async fn put_json(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(self.admin(Method::PUT, path).json(body)).await
    }

    /// Puts a rating policy, and has all gateways rate by it.
    pub(crate) async fn rate_by(&self, policy: &str, rego: &'static str) -> Result<()> {
        let put = self.request(Method::PUT, &format!("/v1/policies/{policy}"));
        self.call(put.header("content-type", "text/plain").body(rego)).await?;
        self.put_json("/rating-policy", &json!({ "gateways": policy, "data_api": null })).await?;
        Ok(())
    }

    fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, &format!("/admin/v1{path}"))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    async fn call(&self, request: RequestBuilder) -> Result<Value> {
        let answer = request.send().await?;
        let (url, status) = (answer.url().clone(), answer.status());
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{url} answered {status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("{url} answered {text}"))
    }
}
