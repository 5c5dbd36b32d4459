//! One rule of a program, gone through instruction by instruction.

use regorus::rvm::{Instruction, instructions::LiteralOrRegister};

use super::{
    Known, MAX_CALLS, MAX_FACTORS, MAX_RANK, MAX_RANK_COMPARED, Rules, Shape,
    functions::{self, FUNCTIONS, Gives},
};
use crate::compile::CompileError;

/// One rule, as its instructions are gone through in their order.
pub(super) struct Scope<'s, 'p> {
    rules: &'s Rules<'p>,
    /// By register.
    shapes: Vec<Shape>,
    /// Comprehensions that are open: where what they build is.
    building: Vec<u8>,
    /// How deep the calls are nested that it makes.
    height: usize,
    known: &'s mut Known,
    calls: usize,
}

impl<'s, 'p> Scope<'s, 'p> {
    pub(super) fn new(rules: &'s Rules<'p>, known: &'s mut Known, calls: usize) -> Self {
        let shapes = vec![Shape::PLAIN; 256];
        Self { rules, shapes, building: Vec::new(), height: 0, known, calls }
    }

    pub(super) fn height(&self) -> usize {
        self.height
    }

    pub(super) fn get(&self, register: u8) -> Shape {
        self.shapes.get(usize::from(register)).copied().unwrap_or(Shape::PLAIN)
    }

    fn set(&mut self, register: u8, shape: Shape) {
        if let Some(place) = self.shapes.get_mut(usize::from(register)) {
            *place = shape;
        }
    }

    fn all_of(&self, registers: &[u8]) -> Shape {
        registers.iter().fold(Shape::PLAIN, |all, register| all.or(self.get(*register)))
    }

    /// `register` now has, among others, something of this shape in it.
    fn put_in(&mut self, at: usize, register: u8, part: Shape) -> Result<(), CompileError> {
        let shape = self.get(register).or(Shape { rank: part.rank + 1, ..part });
        self.bounded(at, shape)?;
        self.set(register, shape);
        Ok(())
    }

    fn bounded(&self, at: usize, shape: Shape) -> Result<(), CompileError> {
        if shape.rank > MAX_RANK {
            return Err(self.rules.error(at, "what is built here is nested too deep"));
        }
        if shape.factors > MAX_FACTORS {
            let message =
                format!("more than {MAX_FACTORS} numbers are multiplied with each other here");
            return Err(self.rules.error(at, message));
        }
        Ok(())
    }

    /// A value of this rank is compared, or handed to a function.
    fn compared(&self, at: usize, registers: &[u8]) -> Result<(), CompileError> {
        if self.all_of(registers).rank > MAX_RANK_COMPARED {
            return Err(self.rules.error(
                at,
                "what is built here is nested too deep to be compared, used as a key or handed to a \
                 function; compare its parts",
            ));
        }
        Ok(())
    }

    /// The shape of what a rule gives, called with `arguments`.
    fn call(&mut self, at: usize, rule: u16, arguments: &[u8]) -> Result<Shape, CompileError> {
        if self.calls >= MAX_CALLS {
            let message = "rules call each other too deep here, or in a circle";
            return Err(self.rules.error(at, message));
        }
        let (given, height) = self.rules.look_at(usize::from(rule), self.known, self.calls + 1)?;
        self.height = self.height.max(height + 1);
        // Arguments may be compared inside.
        self.compared(at, arguments)?;
        let arguments = self.all_of(arguments);
        let shape = Shape {
            rank: given.rank + arguments.rank,
            factors: given.factors.saturating_mul(arguments.factors),
        };
        self.bounded(at, shape)?;
        Ok(shape)
    }

    pub(super) fn step(&mut self, at: usize) -> Result<(), CompileError> {
        use Instruction as I;
        let program = self.rules.program;
        let data = &program.instruction_data;
        let Some(instruction) = program.instructions.get(at) else { return Ok(()) };
        match *instruction {
            I::Load { dest, .. }
            | I::LoadTrue { dest }
            | I::LoadFalse { dest }
            | I::LoadNull { dest }
            | I::LoadBool { dest, .. }
            | I::LoadData { dest }
            | I::LoadInput { dest }
            | I::ArrayNew { dest }
            | I::SetNew { dest }
            | I::Count { dest, .. }
            | I::Not { dest, .. } => self.set(dest, Shape::PLAIN),
            I::Move { dest, src } => self.set(dest, self.get(src)),
            I::Add { dest, left, right }
            | I::Sub { dest, left, right }
            | I::Div { dest, left, right }
            | I::Mod { dest, left, right }
            | I::And { dest, left, right }
            | I::Or { dest, left, right } => {
                self.compared(at, &[left, right])?;
                self.set(dest, self.all_of(&[left, right]));
            }
            I::Mul { dest, left, right } => {
                let factors = self.get(left).factors + self.get(right).factors;
                let product = Shape { factors, ..Shape::PLAIN };
                self.bounded(at, product)?;
                self.set(dest, product);
            }
            I::Eq { dest, left, right }
            | I::Ne { dest, left, right }
            | I::Lt { dest, left, right }
            | I::Le { dest, left, right }
            | I::Gt { dest, left, right }
            | I::Ge { dest, left, right } => {
                self.compared(at, &[left, right])?;
                self.set(dest, Shape::PLAIN);
            }
            I::AssertEq { left, right } => self.compared(at, &[left, right])?,
            I::Contains { dest, collection, value } => {
                self.compared(at, &[collection, value])?;
                self.set(dest, Shape::PLAIN);
            }
            I::ArrayPush { arr, value } => self.put_in(at, arr, self.get(value))?,
            I::SetAdd { set, value } => {
                self.compared(at, &[value])?;
                self.put_in(at, set, self.get(value))?;
            }
            I::ObjectSet { obj, key, value } => {
                self.compared(at, &[key])?;
                self.put_in(at, obj, self.all_of(&[key, value]))?;
            }
            I::Index { dest, container, key } => {
                self.compared(at, &[key])?;
                self.set(dest, self.get(container).inside());
            }
            I::IndexLiteral { dest, container, .. } => self.set(dest, self.get(container).inside()),
            I::CallRule { dest, rule_index } => {
                let shape = self.call(at, rule_index, &[])?;
                self.set(dest, shape);
            }
            I::FunctionCall { params_index } => {
                if let Some(call) = data.get_function_call_params(params_index) {
                    let shape = self.call(at, call.func_rule_index, call.arg_registers())?;
                    self.set(call.dest, shape);
                }
            }
            I::BuiltinCall { params_index } => self.function(at, params_index)?,
            I::ObjectCreate { .. } | I::ArrayCreate { .. } | I::SetCreate { .. } => {
                self.create(at, instruction)?
            }
            I::ChainedIndex { params_index } => {
                if let Some(index) = data.get_chained_index_params(params_index) {
                    for component in &index.path_components {
                        if let LiteralOrRegister::Register(key) = component {
                            self.compared(at, &[*key])?;
                        }
                    }
                    self.set(index.dest, self.get(index.root).inside());
                }
            }
            I::LoopStart { params_index } => {
                if let Some(of) = data.get_loop_params(params_index) {
                    let part = self.get(of.collection).inside();
                    self.set(of.key_reg, part);
                    self.set(of.value_reg, part);
                }
            }
            I::ComprehensionBegin { params_index } => {
                if let Some(begin) = data.get_comprehension_begin_params(params_index) {
                    let part = self.get(begin.collection_reg).inside();
                    self.set(begin.key_reg, part);
                    self.set(begin.value_reg, part);
                    self.set(begin.result_reg, Shape::PLAIN);
                    self.building.push(begin.result_reg);
                }
            }
            I::ComprehensionYield { value_reg, key_reg } => {
                let key = self.all_of(key_reg.as_slice());
                self.compared(at, key_reg.as_slice())?;
                if let Some(result) = self.building.last().copied() {
                    self.put_in(at, result, key.or(self.get(value_reg)))?;
                }
            }
            I::ComprehensionEnd {} => {
                self.building.pop();
            }
            I::LoopNext { .. }
            | I::Guard { .. }
            | I::RuleInit { .. }
            | I::RuleReturn {}
            | I::DestructuringSuccess {}
            | I::Return { .. }
            | I::Halt {} => {}
            I::VirtualDataDocumentLookup { .. } => {
                return Err(self
                    .rules
                    .error(at, "a rule is named by its name; it can't be computed here"));
            }
            _ => return Err(self.rules.error(at, "this is not supported in a rating policy")),
        }
        Ok(())
    }

    fn create(&mut self, at: usize, instruction: &Instruction) -> Result<(), CompileError> {
        use Instruction as I;
        let data = &self.rules.program.instruction_data;
        let (dest, parts) = match *instruction {
            I::ObjectCreate { params_index } => {
                let Some(new) = data.get_object_create_params(params_index) else { return Ok(()) };
                let keys: Vec<u8> = new.field_pairs().iter().map(|(key, _)| *key).collect();
                self.compared(at, &keys)?;
                let values = new.literal_key_field_pairs().iter().map(|(_, value)| *value);
                (
                    new.dest,
                    values
                        .chain(new.field_pairs().iter().flat_map(|(key, value)| [*key, *value]))
                        .collect(),
                )
            }
            I::ArrayCreate { params_index } => {
                let Some(new) = data.get_array_create_params(params_index) else { return Ok(()) };
                (new.dest, new.elements.clone())
            }
            I::SetCreate { params_index } => {
                let Some(new) = data.get_set_create_params(params_index) else { return Ok(()) };
                self.compared(at, &new.elements)?;
                (new.dest, new.elements.clone())
            }
            _ => return Ok(()),
        };
        let parts = self.all_of(&parts);
        self.set(dest, Shape::PLAIN);
        self.put_in(at, dest, parts)
    }

    fn function(&mut self, at: usize, params_index: u16) -> Result<(), CompileError> {
        let program = self.rules.program;
        let Some(call) = program.instruction_data.get_builtin_call_params(params_index) else {
            return Ok(());
        };
        let name =
            program.get_builtin_info(call.builtin_index).map_or("", |info| info.name.as_str());
        let Some((gives, _)) = FUNCTIONS.iter().find(|(_, names)| names.contains(&name)) else {
            let message = format!(
                "the function `{name}` can't be used in a rating policy; these can: {}",
                functions::names()
            );
            return Err(self.rules.error(at, message));
        };
        self.compared(at, call.arg_registers())?;
        let given = self.all_of(call.arg_registers());
        let shape = match gives {
            Gives::Plain => Shape { rank: 0, ..given },
            Gives::Parts => Shape { rank: 1, ..given },
            Gives::Inside => given.inside(),
            Gives::Whole => given,
        };
        self.set(call.dest, shape);
        Ok(())
    }
}
