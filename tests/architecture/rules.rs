//! The rules, one row for each module of the crate.

use super::source::{below, below_super, program, words};

/// What a module of the crate may do.
pub struct Module {
    pub name: &'static str,
    /// Modules it may use; `a::b` for one item of a module; `*` for all.
    uses: &'static [&'static str],
    /// Whether it may touch files, processes or the network.
    io: bool,
    /// Whether all it does must follow from its arguments: no clock, no
    /// environment, no map whose order varies, no threads.
    pure: bool,
}

const fn pure(name: &'static str, uses: &'static [&'static str]) -> Module {
    Module {
        name,
        uses,
        io: false,
        pure: true,
    }
}

const fn with_io(name: &'static str, uses: &'static [&'static str]) -> Module {
    Module {
        name,
        uses,
        io: true,
        pure: false,
    }
}

pub const MODULES: &[Module] = &[
    pure("error", &[]),
    pure("rng", &[]),
    with_io("hash", &[]),
    Module {
        name: "pickle",
        uses: &[],
        io: false,
        pure: false,
    },
    // The compiler's side: each line may use the lines above it.
    pure("graph", &[]),
    Module {
        name: "config",
        uses: &["error", "hash"],
        io: false,
        pure: false,
    },
    pure("nn", &["graph", "rng"]),
    pure("optim", &["graph", "config"]),
    pure("models", &["nn", "graph", "config", "error"]),
    pure("methods", &["models", "nn", "graph", "config", "error"]),
    pure(
        "programs",
        &[
            "methods",
            "models",
            "nn",
            "optim",
            "graph",
            "config",
            // Which column of a row means what.
            "data::augment",
            "error",
            "rng",
        ],
    ),
    // The host's side: none of these knows what a model is.
    with_io("pjrt", &["graph::DType", "error", "hash"]),
    with_io(
        "data",
        &[
            "config::Augment",
            "config::RandAugment",
            "error",
            "hash",
            "pickle",
            "rng",
        ],
    ),
    with_io("checkpoint", &["error", "hash"]),
    pure("monitor", &["config"]),
    with_io("report", &["checkpoint", "config", "error", "monitor"]),
    // What ties them together.
    Module {
        name: "eval",
        uses: &[
            "checkpoint",
            "config",
            "data",
            "error",
            "graph",
            // Where features are read.
            "models::Tap",
            "pjrt",
            "programs",
            "report",
        ],
        io: false,
        pure: false,
    },
    with_io(
        "plan",
        &[
            "checkpoint::atomic",
            "config",
            "error",
            "graph",
            "hash",
            "models",
            "pjrt",
            "programs",
        ],
    ),
    with_io(
        "convert",
        &[
            "checkpoint",
            "config",
            "error",
            "graph",
            "hash",
            "methods",
            "models",
            "nn",
            "pickle",
            "pjrt",
            "programs",
        ],
    ),
    with_io("ledger", &["checkpoint", "data", "error", "report"]),
    with_io("train", &["*"]),
    with_io("cli", &["*"]),
];

/// The one file of `config` that reads files.
const CONFIG_READER: &str = "src/config/read.rs";

/// Words that no pure module has.
const IMPURE: &[&str] = &[
    "HashMap",
    "HashSet",
    "RandomState",
    "SystemTime",
    "Instant",
    "thread",
    "Mutex",
    "static",
];

/// Macros that no library code calls: results go through `cli::print`, logs
/// through `tracing`, and nothing is left for later.
const MACROS: &[&str] = &[
    "println!",
    "print!",
    "eprintln!",
    "eprint!",
    "dbg!",
    "todo!",
    "unimplemented!",
];

/// What is wrong with a source file, by its path from the package's root.
/// Tests inside of it are bound by no rule.
pub fn violations(file: &str, text: &str) -> Vec<String> {
    let path = module_path(file);
    if path.contains(&"tests") {
        return vec![];
    }
    let program = program(text);
    let mut found = Vec::new();
    let mut refuse = |what: String| found.push(format!("{file}: {what}"));

    for word in words(&program) {
        if MACROS.contains(&word) {
            refuse(format!("calls {word}"));
        }
        if word == "unsafe" && !file.starts_with("src/pjrt/ffi") {
            refuse("`unsafe` belongs into src/pjrt/ffi".into());
        }
    }
    // main.rs and lib.rs are of no module.
    let Some(name) = path.first() else {
        return found;
    };
    let Some(module) = MODULES.iter().find(|module| module.name == *name) else {
        refuse(format!("the module {name} has no rules"));
        return found;
    };

    let mut used = below(&program, "crate");
    used.extend(below(&program, "xla_moco"));
    used.extend(below_super(&program, &path));
    used.sort();
    used.dedup();
    for used in used {
        if !module.may_use(&used) {
            refuse(format!("{name} may not use {used}"));
        }
    }

    let std = below(&program, "std");
    let has = |what: &str| {
        std.iter()
            .find(|path| path.split("::").next() == Some(what))
    };
    if !module.io && file != CONFIG_READER {
        for what in ["fs", "net", "process"] {
            if has(what).is_some() {
                refuse(format!("{name} does no IO, but uses std::{what}"));
            }
        }
    }
    if module.pure {
        if let Some(path) = has("env") {
            refuse(format!("{name} is pure, but uses std::{path}"));
        }
        for word in words(&program).filter(|word| IMPURE.contains(word)) {
            refuse(format!("{name} is pure, but uses {word}"));
        }
    }
    found
}

impl Module {
    fn may_use(&self, used: &str) -> bool {
        // The macro lies at the crate's root.
        let used = if used == "bad_input" { "error" } else { used };
        let first = used.split("::").next().unwrap_or(used);
        let fits =
            |allowed: &&str| matches!(*allowed, "*") || *allowed == first || *allowed == used;
        first == self.name || self.uses.iter().any(fits)
    }
}

/// The module that a file holds: `src/graph/ops/mod.rs` is `graph::ops`.
fn module_path(file: &str) -> Vec<&str> {
    let inner = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut path: Vec<&str> = inner.split('/').collect();
    if matches!(path[..], [.., "mod"] | ["main"] | ["lib"]) {
        path.pop();
    }
    path
}
