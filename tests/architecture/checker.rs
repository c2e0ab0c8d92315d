//! The checker itself, on made-up sources: it must be able to fail.

use super::rules::violations;
use super::source::{below, below_super, program};

#[test]
fn each_rule_refuses_what_breaks_it() {
    for (file, text, expected) in [
        (
            "src/graph/vjp.rs",
            "use crate::pjrt::Client;",
            "graph may not use pjrt::Client",
        ),
        (
            "src/graph/vjp.rs",
            "use crate::{error, rng};",
            "graph may not use error",
        ),
        (
            "src/graph/vjp.rs",
            "fn f() { crate::nn::linear() }",
            "graph may not use nn::linear",
        ),
        (
            "src/graph/ops/dot.rs",
            "use super::super::super::config;",
            "graph may not use config",
        ),
        (
            "src/graph/mod.rs",
            "use super::{config, graph};",
            "graph may not use config",
        ),
        ("src/graph/vjp.rs", "use crate::*;", "graph may not use *"),
        (
            "src/nn/norm.rs",
            "use crate::\n    models\n    ::vit;",
            "nn may not use models::vit",
        ),
        (
            "src/optim/adamw.rs",
            "use crate::nn::linear;",
            "optim may not use nn::linear",
        ),
        (
            "src/pjrt/client.rs",
            "use crate::graph::{DType, Shape};",
            "pjrt may not use graph::Shape",
        ),
        (
            "src/data/loader.rs",
            "use crate::config::RunConfig;",
            "data may not use config::RunConfig",
        ),
        (
            "src/checkpoint/state.rs",
            "use crate::graph::DType;",
            "checkpoint may not use graph::DType",
        ),
        (
            "src/config/mod.rs",
            "let x = ::std::fs::read(p);",
            "config does no IO",
        ),
        (
            "src/models/vit.rs",
            "use std::{fmt, fs::File};",
            "models does no IO",
        ),
        (
            "src/programs/mod.rs",
            "use std::process::Command;",
            "programs does no IO",
        ),
        (
            "src/graph/emit.rs",
            "let m = HashMap::new();",
            "uses HashMap",
        ),
        (
            "src/graph/emit.rs",
            "let t = std::time::Instant::now();",
            "uses Instant",
        ),
        (
            "src/methods/x.rs",
            "let v = std::env::var(k);",
            "uses std::env::var",
        ),
        ("src/nn/mod.rs", "static X: u8 = 0;", "uses static"),
        ("src/data/pool.rs", "unsafe { f() }", "`unsafe` belongs"),
        ("src/pjrt/client.rs", "unsafe { f() }", "`unsafe` belongs"),
        ("src/report/html.rs", "println!(\"x\");", "calls println!"),
        ("src/train/mod.rs", "todo!()", "calls todo!"),
        ("src/main.rs", "dbg!(1);", "calls dbg!"),
        ("src/novel/mod.rs", "", "the module novel has no rules"),
    ] {
        let found = violations(file, text);
        assert!(
            found.iter().any(|line| line.contains(expected)),
            "{file}, {text}: {found:?} lacks {expected:?}"
        );
    }
}

#[test]
fn what_keeps_the_rules_passes() {
    for (file, text) in [
        (
            "src/graph/ops/dot.rs",
            "use super::super::Shape; use crate::graph::{ops, vjp};",
        ),
        (
            "src/models/vit.rs",
            "use crate::nn; return Err(crate::bad_input!(\"x\"))",
        ),
        ("src/pjrt/client.rs", "use crate::graph::DType;"),
        ("src/pjrt/ffi/buffer.rs", "unsafe { f() }"),
        ("src/config/read.rs", "use std::fs::File;"),
        (
            "src/train/mod.rs",
            "use crate::{config, data, pjrt}; use std::fs;",
        ),
        // Neither comments nor strings nor tests count.
        (
            "src/graph/vjp.rs",
            "// use crate::pjrt;\n/* unsafe /* dbg! */ todo!() */ fn f<'a>() {}",
        ),
        (
            "src/graph/vjp.rs",
            r####"f("crate::pjrt", r#"" unsafe "#, '"', 'x', "\" dbg!");"####,
        ),
        (
            "src/graph/vjp.rs",
            "#[cfg(test)]\nmod tests { use crate::rng; fn f() { dbg!(1) } }",
        ),
        ("src/graph/vjp.rs", "#[cfg(test)]\nuse crate::rng;"),
        ("src/graph/tests.rs", "use crate::pjrt;"),
        // Parts of longer words.
        (
            "src/graph/vjp.rs",
            "let unsafe_count = mycrate::pjrt; let x = a::crate_::pjrt;",
        ),
    ] {
        assert_eq!(violations(file, text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_blanked_text_keeps_its_code_and_its_lines() {
    let text = "let a = 'x'; // b\n/* c\n */ let d: &'static str = \"e\\\"f\"; br\"g\";\n\
                #[cfg(test)]\nmod tests {\n  fn x() {}\n}\nlet h = 1;";
    let found = program(text);
    assert_eq!(found.lines().count(), text.lines().count());
    for kept in ["let a =", "let d: &        str =", "let h = 1;"] {
        assert!(found.contains(kept), "{found}");
    }
    for gone in ["'x'", "// b", "* c", "e\\", "g\"", "fn x"] {
        assert!(!found.contains(gone), "{gone} in {found}");
    }
}

#[test]
fn paths_are_taken_apart() {
    let text =
        "use crate::{a, b::{c, d::e}, f::*}; crate::g::h::i(); pub(crate) fn x(); $crate::j!()";
    assert_eq!(
        below(text, "crate"),
        ["a", "b::c", "b::d", "f::*", "g::h", "j"]
    );
    let text =
        "use super::super::{x, y::z}; super::super::w(); super::v(); super::super::super::u();";
    assert_eq!(
        below_super(text, &["m", "n"]),
        ["x", "y::z", "w", "super::u"]
    );
}
