//! The rim: Envoy's callbacks, handed to the [`Worker`].

use std::{cell::RefCell, rc::Rc};

use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext, RootContext},
    types::{Action, BufferType, ContextType, LogLevel, MapType},
};
use weir_domain::{
    quantity::Amount,
    rate_limit_fields::{POLICY_FIELD, REMAINING_FIELD},
};

use crate::{
    config::{Config, Identity},
    host,
    http_call::Answer,
    refusal::{REASON_FIELD, Refused},
    stats::Counter,
    tenants::Index,
    worker::{AnswerFields, Call, Decision, Worker},
};

type Shared = Rc<RefCell<Option<Worker>>>;

/// The plugin in one worker.
pub struct Root {
    id: u32,
    worker: Shared,
}

impl Root {
    pub fn new(id: u32) -> Self {
        Self { id, worker: Rc::default() }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let json = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, size).ok().flatten();
        match Config::parse(json.as_deref()) {
            Ok(config) => {
                let mut worker = Worker::new(config, self.id);
                // The first tick is the place to start: this VM may be one that only checks the
                // configuration.
                worker.set_tick(std::time::Duration::from_millis(1));
                self.worker.replace(Some(worker));
                true
            }
            Err(error) => {
                host::log(LogLevel::Error, &error.to_string());
                false
            }
        }
    }

    fn on_tick(&mut self) {
        if let Some(worker) = self.worker.borrow_mut().as_mut() {
            worker.on_tick();
        }
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request {
            id,
            worker: Rc::clone(&self.worker),
            waits_for: None,
            fields: None,
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Context for Root {
    fn on_http_call_response(
        &mut self,
        token: u32,
        num_headers: usize,
        body_size: usize,
        _: usize,
    ) {
        let answer = Answer::take(num_headers, body_size);
        let now_ns = host::now_ns();
        let mut worker = self.worker.borrow_mut();
        let Some(worker) = worker.as_mut() else {
            return;
        };
        #[cfg(feature = "trap")]
        if matches!(worker.calls.get(&token), Some(Call::Leases(_))) {
            crate::trap::on_leases();
        }
        match worker.calls.remove(&token) {
            Some(Call::Leases(asked)) => worker.on_leases(asked, &answer, now_ns),
            Some(Call::Usage) => worker.on_usage(&answer, now_ns),
            Some(Call::Orphan { place, batch }) => {
                worker.on_orphan(place, &batch, &answer, now_ns);
            }
            Some(Call::Config) => worker.on_config(&answer, now_ns),
            None => {}
        }
    }

    fn on_done(&mut self) -> bool {
        if let Some(worker) = self.worker.borrow_mut().as_mut() {
            return worker.on_done(host::now_ns());
        }
        true
    }
}

/// One request.
struct Request {
    id: u32,
    worker: Shared,
    /// The tenant for whose lease it is, or was, paused.
    waits_for: Option<Index>,
    fields: Option<AnswerFields>,
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let mut shared = self.worker.borrow_mut();
        let Some(worker) = shared.as_mut() else {
            Refused::ControlPlaneUnreachable.send(host::now_ns());
            return Action::Pause;
        };
        if is_exempt(worker) {
            worker.stats.count(Counter::Exempt);
            return Action::Continue;
        }
        let Identity::Header { name } = &worker.config.identity;
        let decision = match request_header(name) {
            Some(credential) if !credential.is_empty() => {
                let cost = Amount::request(worker.config.cost);
                worker.decide(self.id, &credential, cost)
            }
            _ => Decision::Refuse(Refused::MissingCredential),
        };
        #[cfg(feature = "trap")]
        crate::trap::on_request(worker);
        match decision {
            Decision::Admit(fields) => {
                self.fields = fields;
                Action::Continue
            }
            Decision::Wait(index) => {
                self.waits_for = Some(index);
                Action::Pause
            }
            Decision::Refuse(refused) if worker.note_refusal(&refused) => {
                refused.send(host::now_ns());
                Action::Pause
            }
            Decision::Refuse(_) => Action::Continue,
        }
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if self.waits_for.is_some() {
            self.fields =
                self.worker.borrow_mut().as_mut().and_then(|w| w.resumed.remove(&self.id));
        }
        let set = |name, value| {
            let _ = hostcalls::set_map_value(MapType::HttpResponseHeaders, name, Some(value));
        };
        match self.fields.take() {
            Some(AnswerFields::RateLimit { policy, remaining }) => {
                set(POLICY_FIELD, &policy);
                set(REMAINING_FIELD, &remaining);
            }
            Some(AnswerFields::Unleased(unleased)) => set(REASON_FIELD, unleased.reason()),
            None => {}
        }
        Action::Continue
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(index) = self.waits_for
            && let Ok(mut worker) = self.worker.try_borrow_mut()
            && let Some(worker) = worker.as_mut()
        {
            worker.forget_waiter(self.id, index);
        }
    }
}

fn is_exempt(worker: &Worker) -> bool {
    if worker.config.exempt.is_empty() {
        return false;
    }
    let method = request_header(":method").unwrap_or_default();
    let path = request_header(":path").unwrap_or_default();
    worker.config.exempt.iter().any(|rule| rule.matches(&method, &path))
}

fn request_header(name: &str) -> Option<Vec<u8>> {
    hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, name).ok().flatten()
}
