//! Parameters and buffers as values of a graph, and where a layer finds its
//! own.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::graph::{Builder, DType, GraphError, Result, ScopeGuard, Value};

/// Named values of one graph. A layer that renews a buffer puts the new value
/// in the old one's place, so that the next application sees it.
#[derive(Debug, Default)]
pub struct Variables {
    values: RefCell<BTreeMap<String, Value>>,
}

impl Variables {
    pub fn new(values: impl IntoIterator<Item = (String, Value)>) -> Self {
        Self {
            values: RefCell::new(values.into_iter().collect()),
        }
    }

    /// # Errors
    /// If no variable has this name.
    pub fn get(&self, name: &str) -> Result<Value> {
        let found = self.values.borrow().get(name).copied();
        found.ok_or_else(|| GraphError::Invalid(format!("there is no variable '{name}'")))
    }

    pub fn set(&self, name: &str, value: Value) {
        self.values.borrow_mut().insert(name.to_owned(), value);
    }
}

/// Whether statistics are those of the batch or the running ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The batch's; running ones are renewed.
    Train,
    /// The running ones.
    Evaluate,
}

/// Where in a model a layer is applied.
#[derive(Clone)]
pub struct Site<'a> {
    pub b: &'a Builder,
    pub variables: &'a Variables,
    /// Type of activations and matrix products.
    pub compute: DType,
    pub mode: Mode,
    path: String,
}

impl<'a> Site<'a> {
    pub fn new(b: &'a Builder, variables: &'a Variables, compute: DType, mode: Mode) -> Self {
        Self {
            b,
            variables,
            compute,
            mode,
            path: String::new(),
        }
    }

    /// The part `name` of what stands here.
    pub fn at(&self, name: &str) -> Self {
        let path = self.full_name(name);
        Self {
            path,
            ..self.clone()
        }
    }

    /// Names the ops that follow after the last part of the path.
    pub fn enter(&self) -> ScopeGuard<'a> {
        let last = self.path.rsplit('.').next().unwrap_or_default();
        self.b.scope(last)
    }

    fn full_name(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    /// The variable `name` of what stands here.
    pub fn get(&self, name: &str) -> Result<Value> {
        self.variables.get(&self.full_name(name))
    }

    /// As [`Site::get`], none where there is no such variable.
    pub fn find(&self, name: &str) -> Option<Value> {
        self.get(name).ok()
    }

    pub fn set(&self, name: &str, value: Value) {
        self.variables.set(&self.full_name(name), value);
    }
}
