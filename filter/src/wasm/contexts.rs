//! The rim: what Envoy tells a VM of its configuration, the time and its calls, handed to the
//! [`Worker`]. Requests come in by [`requests`].

use std::{cell::RefCell, mem::take, rc::Rc, time::Duration};

use proxy_wasm::traits::{Context, RootContext};

use super::{host as envoy, requests};
use crate::{
    config::Config,
    ending::Ending,
    host::{self, Level},
    http_call::Answer,
    streams::Verdict,
    worker::Worker,
};

/// Each callback for bodies costs, also where no body is read.
#[cfg(target_arch = "wasm32")]
const NOT_TOLD_OF_BODIES: &str = "weir: the plugin configuration is wrong at llm: this module reads no bodies; \
     load weir_filter_llm.wasm instead, with allow_on_headers_stop_iteration: true";

/// A worker, once it is configured and until it has ended.
pub type Shared = Rc<RefCell<Option<Worker>>>;

/// The plugin in one worker.
pub struct Root {
    id: u32,
    worker: Shared,
}

impl Root {
    pub fn new(id: u32) -> Self {
        let worker = Shared::default();
        requests::serve(id, &worker);
        Self { id, worker }
    }

    /// Has those go on who have waited for a verdict. Without holding the worker: what Envoy does then
    /// may come back to it.
    fn deliver(&self) {
        let verdicts = self.worker.borrow_mut().as_mut().map(|worker| take(&mut worker.verdicts));
        for (context, verdict) in verdicts.into_iter().flatten() {
            host::with_stream(context, self.id, || match verdict {
                Verdict::Pass => host::resume(),
                Verdict::Refuse(refused) => refused.send(),
                Verdict::Look => {}
            });
        }
    }

    /// Nothing is asked of a worker that has ended.
    fn drop_ended(&self) {
        if self.worker.borrow().as_ref().is_some_and(|worker| worker.ending == Ending::Ended) {
            self.leave();
        }
    }

    /// Envoy goes on calling `on_tick` of a root context that is gone, so that is ended too.
    fn leave(&self) {
        self.worker.replace(None);
        requests::leave(self.id);
        host::set_tick(Duration::ZERO);
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let json = Some(envoy::configuration(size)).filter(|json| !json.is_empty());
        match Config::parse(json.as_deref()) {
            #[cfg(target_arch = "wasm32")]
            Ok(config) if config.llm.is_some() && !super::exports::is_told_of_bodies() => {
                host::log(Level::Error, NOT_TOLD_OF_BODIES);
                false
            }
            Ok(config) => {
                let mut worker = Worker::new(config, self.id);
                // The first tick is the place to start: this VM may be one that only checks the
                // configuration.
                worker.set_tick(Duration::from_millis(1));
                self.worker.replace(Some(worker));
                true
            }
            Err(error) => {
                host::log(Level::Error, &error.to_string());
                false
            }
        }
    }

    fn on_tick(&mut self) {
        if let Some(worker) = self.worker.borrow_mut().as_mut() {
            worker.on_tick();
        }
        self.deliver();
        self.drop_ended();
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
        let (status, body) = envoy::answer(num_headers, body_size);
        if let Some(worker) = self.worker.borrow_mut().as_mut() {
            worker.on_answer(token, &Answer::new(status, body));
        }
        self.deliver();
    }

    fn on_done(&mut self) -> bool {
        let done =
            self.worker.borrow_mut().as_mut().is_none_or(|worker| worker.on_done(host::now_ns()));
        if done {
            self.leave();
        }
        done
    }
}
