//! Evaluation, within a budget.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use regorus::{
    Value,
    rvm::{RegoVM, vm::VmError},
    utils::limits::ExecutionTimerConfig,
};
use thiserror::Error;
use weir_domain::{
    id::{IdError, Meter},
    quantity::Quantity,
};

use crate::{
    compile::Policy,
    contract::{Buckets, Decision, Field, Input, MAX_REASON, Part},
};

/// The most instructions that one decision takes. The same everywhere, so that a policy that is within
/// it at one place is so at all.
pub const MAX_STEPS: usize = 20_000;
/// How long a decision may take, for what `check` does not see. Far more than [`MAX_STEPS`] need, so
/// that a busy machine makes no difference to what a policy says.
pub const TIME_LIMIT: Duration = Duration::from_secs(1);
/// The longest text in an input, in bytes: what a step takes grows with its length.
pub const MAX_TEXT: usize = 4_096;
/// After so many steps the time is looked at.
const STEPS_PER_LOOK: NonZeroU32 = NonZeroU32::MIN.saturating_add(63);

/// Why a policy said nothing that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    #[error("the decision took more than {MAX_STEPS} steps")]
    Steps,
    #[error("the decision took longer than {} ms", TIME_LIMIT.as_millis())]
    Time,
    #[error("line {line}: {cause}")]
    Evaluation { line: u32, cause: &'static str },
    #[error(
        "`{rule}` is undefined for this input, or has two values; add `default {rule} := …`, and make \
         one rule of those that overlap"
    )]
    Undefined { rule: &'static str },
    #[error("`{field}` has more than {MAX_TEXT} bytes")]
    Text { field: String },
    #[error("`cost` must be a whole number from 0 to 9007199254740991")]
    Cost,
    #[error("`{rule}` must be {expected}")]
    Type { rule: &'static str, expected: &'static str },
    #[error("`meter` is not an id: {0}")]
    Meter(IdError),
}

/// What the rules said, before it is looked at.
#[derive(Default)]
struct Said {
    allow: Option<Value>,
    cost: Option<Value>,
    meter: Option<Value>,
    reason: Option<Value>,
}

impl Policy {
    /// What the policy says of `input`.
    pub fn decide(&self, input: &Input<'_>) -> Result<Decision, Failure> {
        self.decide_knowing(input, None)
    }

    /// What it says where it can read what the tenant has left.
    pub fn decide_knowing(
        &self,
        input: &Input<'_>,
        buckets: Option<&Buckets>,
    ) -> Result<Decision, Failure> {
        let is_long = |field: &&Field| matches!(field.of(input), Some(Part::Text(text)) if text.len() > MAX_TEXT);
        if let Some(field) = self.reads.iter().find(is_long) {
            return Err(Failure::Text { field: field.to_string() });
        }
        let mut vm = RegoVM::new();
        vm.load_program(self.program.clone());
        vm.set_max_instructions(MAX_STEPS);
        vm.set_execution_timer_config(Some(ExecutionTimerConfig {
            limit: TIME_LIMIT,
            check_interval: STEPS_PER_LOOK,
        }));
        vm.set_input(document(&self.reads, input));
        let data = buckets.map_or_else(Value::new_object, |buckets| data(input, buckets));
        vm.set_data(data).map_err(|error| failure(&vm, &error))?;
        let said = vm.execute_entry_point_by_index(0).map_err(|error| failure(&vm, &error))?;
        self.read(&said)
    }

    fn read(&self, said: &Value) -> Result<Decision, Failure> {
        let mut by_name = Said::default();
        for pair in said.as_set().into_iter().flat_map(|set| set.iter()) {
            let Ok(pair) = pair.as_array() else { continue };
            let (Some(name), Some(value)) = (pair.get(0), pair.get(1)) else { continue };
            match name.as_string().map(|name| &**name) {
                Ok("allow") => by_name.allow = Some(value.clone()),
                Ok("cost") => by_name.cost = Some(value.clone()),
                Ok("meter") => by_name.meter = Some(value.clone()),
                Ok("reason") => by_name.reason = Some(value.clone()),
                _ => {}
            }
        }
        let [_, says_cost, says_meter, _] = self.says;
        let allow = match by_name.allow {
            None => false,
            Some(Value::Bool(allow)) => allow,
            Some(_) => return Err(Failure::Type { rule: "allow", expected: "true or false" }),
        };
        let reason = by_name.reason.as_ref().map(reason).transpose()?;
        if !allow {
            return Ok(Decision { allow, cost: Quantity::ZERO, meter: Meter::default(), reason });
        }
        let cost = match by_name.cost {
            None if says_cost => return Err(Failure::Undefined { rule: "cost" }),
            None => Quantity::ONE,
            Some(cost) => quantity(&cost)?,
        };
        let meter = match by_name.meter {
            None if says_meter => return Err(Failure::Undefined { rule: "meter" }),
            None => Meter::default(),
            Some(meter) => {
                let text = meter
                    .as_string()
                    .map_err(|_| Failure::Type { rule: "meter", expected: "a string" })?;
                Meter::new(&**text).map_err(Failure::Meter)?
            }
        };
        Ok(Decision { allow, cost, meter, reason })
    }
}

fn quantity(cost: &Value) -> Result<Quantity, Failure> {
    let number = cost.as_number().map_err(|_| Failure::Cost)?;
    // A float that is a whole number is one.
    let whole = number.is_integer().then(|| number.as_u64()).flatten().ok_or(Failure::Cost)?;
    Quantity::new(whole).map_err(|_| Failure::Cost)
}

fn reason(reason: &Value) -> Result<String, Failure> {
    let text =
        reason.as_string().map_err(|_| Failure::Type { rule: "reason", expected: "a string" })?;
    Ok(text.chars().take(MAX_REASON).collect())
}

/// Names the line. What the error says of values is left out: they may be large.
fn failure(vm: &RegoVM, error: &VmError) -> Failure {
    let cause = match error {
        VmError::InstructionLimitExceeded { .. } => return Failure::Steps,
        VmError::TimeLimitExceeded { .. } => return Failure::Time,
        VmError::NumericOverflow { .. } => "a number is too large",
        _ => "this can't be computed with such values",
    };
    let span = vm.get_program().get_instruction_span(vm.get_pc());
    Failure::Evaluation {
        line: span.map_or(1, |span| u32::try_from(span.line).unwrap_or(1)),
        cause,
    }
}

/// The document `input`, with what is read of it.
fn document(reads: &[Field], input: &Input<'_>) -> Value {
    let mut top = BTreeMap::new();
    let (mut headers, mut time) = (BTreeMap::new(), BTreeMap::new());
    for field in reads {
        let Some(part) = field.of(input) else { continue };
        let value = match part {
            Part::Text(text) => Value::from(text),
            Part::Number(number) => Value::from(number),
        };
        let (object, name) = match field {
            Field::Tenant => (&mut top, "tenant"),
            Field::Plan => (&mut top, "plan"),
            Field::Method => (&mut top, "method"),
            Field::Path => (&mut top, "path"),
            Field::Model => (&mut top, "model"),
            Field::PromptTokens => (&mut top, "prompt_tokens"),
            Field::MaxOutputTokens => (&mut top, "max_output_tokens"),
            Field::Hour => (&mut time, "hour"),
            Field::Weekday => (&mut time, "weekday"),
            Field::Header(name) => (&mut headers, name.as_str()),
        };
        object.insert(Value::from(name), value);
    }
    top.insert(Value::from("headers"), Value::from(headers));
    top.insert(Value::from("time"), Value::from(time));
    Value::from(top)
}

/// The document `data`.
fn data(input: &Input<'_>, buckets: &Buckets) -> Value {
    let mut left = BTreeMap::new();
    for (name, quantity) in [("tokens", buckets.tokens), ("requests", buckets.requests)] {
        if let Some(quantity) = quantity {
            left.insert(Value::from(name), Value::from(quantity.get()));
        }
    }
    let one = |name: &str, value: BTreeMap<Value, Value>| {
        BTreeMap::from([(Value::from(name), Value::from(value))])
    };
    Value::from(one("buckets", one(&input.tenant, left)))
}
