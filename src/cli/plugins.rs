//! `xla-moco plugins`: which PJRT plugins there are, fetching them, trying
//! them.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use serde_json::{Map, Value as Json, json};

use super::print;
use crate::bad_input;
use crate::graph::DType;
use crate::pjrt::install::{self, KNOWN, KnownPlugin, Need, ResolveOptions};
use crate::pjrt::{
    Arg, Client, ClientOptions, CompileOptions, Plugin, Program, tpu_deviceless_env, tpu_is_present,
};

/// List, fetch or try PJRT plugins: the compilers and runtimes of devices
#[derive(Args, Debug)]
#[command(after_help = "Example: xla-moco plugins check cpu")]
pub struct PluginsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// The known plugins, and which are installed
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Fetch a plugin with pip into the cache folder
    ///
    /// Says first what it fetches, and how much that is. One that was
    /// interrupted goes on with the files that it has.
    #[command(after_long_help = "Examples:
  xla-moco plugins install cpu
  xla-moco plugins install gpu                   # with all of CUDA that it needs: 2.5 GB
  xla-moco plugins install gpu --compile-only    # for `compile --target gpu:h100:8`: 257 MB")]
    Install {
        /// cpu, gpu, tpu, rocm, or a package of `plugins list`
        name: String,
        /// Only what compiling for devices that are not there takes
        #[arg(long)]
        compile_only: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Load a plugin, find its devices, run a small program on one
    Check {
        /// cpu, gpu, tpu, rocm, a package of `plugins list`, or a path
        name: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs `xla-moco plugins`.
pub fn run(args: PluginsArgs) -> Result<()> {
    let mut options = ResolveOptions::default();
    match args.action {
        Action::List { json } => list(&options, json),
        Action::Install {
            name,
            compile_only,
            json,
        } => {
            if compile_only {
                options.need = Need::Compile;
            }
            install(&name, &options, json)
        }
        Action::Check { name, json } => check(&name, json),
    }
}

fn list(options: &ResolveOptions, as_json: bool) -> Result<()> {
    let mut rows = Vec::new();
    let light = ResolveOptions {
        need: Need::Compile,
        ..options.clone()
    };
    for known in KNOWN.iter() {
        let whole = install::installed(known, options)?;
        let path = match &whole {
            Some(path) => Some(path.clone()),
            None => install::installed(known, &light)?,
        };
        let path = path.filter(|_| known.fits_this_machine());
        rows.push((known, path, whole.is_some()));
    }
    if as_json {
        let plugins: Vec<Json> = rows
            .iter()
            .map(|(known, path, runs)| {
                let mut plugin = described(known);
                plugin.insert("installed".into(), json!(path.is_some()));
                plugin.insert("compile_only".into(), json!(path.is_some() && !runs));
                plugin.insert("path".into(), json!(path));
                Json::Object(plugin)
            })
            .collect();
        return print(&format!("{}\n", json!({ "plugins": plugins })));
    }
    let columns = "TARGET MACHINE PACKAGE VERSION API SIZE STATE";
    let mut table = vec![columns.split(' ').map(str::to_owned).collect::<Vec<_>>()];
    for (known, path, runs) in &rows {
        let state = match path {
            Some(_) if *runs => "installed",
            Some(_) => "installed to compile only",
            None if known.fits_this_machine() => "not installed",
            None => "other machine",
        };
        table.push(vec![
            known.target.to_owned(),
            format!("{} {}", known.os, known.arch),
            known.package().to_owned(),
            known.version().to_owned(),
            known
                .api
                .map_or("?".to_owned(), |(major, minor)| format!("{major}.{minor}")),
            known.download_in_words(Need::Run),
            state.to_owned(),
        ]);
    }
    let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..table[0].len()).map(width).collect();
    let mut text = String::new();
    for (index, row) in table.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(text, "{}", cells.join("  ").trim_end())?;
        if let Some((known, path, _)) = index.checked_sub(1).map(|i| &rows[i]) {
            writeln!(text, "     licence: {}; {}", known.licence, known.note)?;
            if !known.runtime.is_empty() {
                let light = known.download_in_words(Need::Compile);
                writeln!(
                    text,
                    "     to compile only: {light} (install --compile-only)"
                )?;
            }
            if let Some(path) = path {
                writeln!(text, "     {}", path.display())?;
            }
        }
    }
    print(&text)
}

/// A known plugin in JSON.
fn described(known: &KnownPlugin) -> Map<String, Json> {
    let description = json!({
        "target": known.target,
        "os": known.os,
        "arch": known.arch,
        "package": known.package(),
        "version": known.version(),
        "api_version": known.api.map(|(major, minor)| format!("{major}.{minor}")),
        "licence": known.licence,
        "download_bytes": known.download_size(Need::Run),
        "compile_only_bytes": known.download_size(Need::Compile),
        "note": known.note,
    });
    match description {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}

fn install(name: &str, options: &ResolveOptions, as_json: bool) -> Result<()> {
    let known = install::candidates(name)?[0];
    let there = install::installed(known, options)?.is_some();
    let path = install::install(known, options)?;
    if as_json {
        let mut plugin = described(known);
        plugin.insert("installed".into(), json!(true));
        plugin.insert("path".into(), json!(path));
        print(&format!("{}\n", Json::Object(plugin)))
    } else {
        let verb = if there {
            "already installed"
        } else {
            "installed"
        };
        print(&format!("{verb}: {}\n", path.display()))
    }
}

fn check(name: &str, as_json: bool) -> Result<()> {
    // Trying a plugin must not fetch one unasked.
    let installed_only = ResolveOptions {
        offline: true,
        ..ResolveOptions::default()
    };
    let path = install::resolve(name, &installed_only)?;
    let say = |line: String| match as_json {
        true => Ok(()),
        false => print(&(line + "\n")),
    };
    say(format!("plugin    {}", path.display()))?;
    let is_tpu = KNOWN
        .iter()
        .any(|k| k.target == "tpu" && path.ends_with(k.library));
    if is_tpu && !tpu_is_present() {
        // Else libtpu asks for minutes after a machine that is not there.
        tpu_deviceless_env()?;
    }
    let plugin = Plugin::load(&path)?;
    let (major, minor) = plugin.api_version();
    say(format!("PJRT API  {major}.{minor}"))?;
    let attributes = plugin.attributes()?;
    for (name, value) in &attributes {
        say(format!("          {name} {value}"))?;
    }
    let client = Client::new(&plugin, &ClientOptions::default())?;
    say(format!(
        "platform  {}: {}",
        client.platform_name(),
        client.platform_version()
    ))?;
    for device in client.devices() {
        say(format!("device    {} {}", device.id(), device.kind()))?;
    }
    add_one(&client).context("the plugin loads, but does not compute")?;
    say("x + 1     right".to_owned())?;
    if as_json {
        let attributes: Map<String, Json> = attributes
            .into_iter()
            .map(|(name, value)| (name, json!(value.to_string())))
            .collect();
        let devices: Vec<Json> = client
            .devices()
            .iter()
            .map(|device| json!({ "id": device.id(), "kind": device.kind() }))
            .collect();
        let report = json!({
            "path": path,
            "api_version": format!("{major}.{minor}"),
            "attributes": attributes,
            "platform": client.platform_name(),
            "platform_version": client.platform_version(),
            "devices": devices,
            "computes": true,
        });
        print(&format!("{report}\n"))?;
    }
    Ok(())
}

/// Runs x + 1 on the first device and compares.
fn add_one(client: &Client) -> Result<()> {
    const TEXT: &str = r#"module {
  func.func public @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %one = "stablehlo.constant"() {value = dense<1.0> : tensor<4xf32>} : () -> tensor<4xf32>
    %y = "stablehlo.add"(%x, %one) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    "func.return"(%y) : (tensor<4xf32>) -> ()
  }
}"#;
    let device = client
        .devices()
        .first()
        .ok_or_else(|| bad_input!("the {} plugin has no device here", client.platform_name()))?;
    let program = client.compile(&Program { text: TEXT }, &CompileOptions::default())?;
    let bytes = |values: [f32; 4]| values.map(f32::to_le_bytes).concat();
    let x = bytes([0.0, 1.0, -2.5, 1e6]);
    let x = client.buffer_from_host(&x, DType::F32, &[4], device)?;
    let run = program.execute(vec![vec![Arg::Donate(x)]])?;
    let y = run.buffers[0][0].to_host()?;
    ensure!(
        y == bytes([1.0, 2.0, -1.5, 1_000_001.0]),
        "x + 1 gave the bytes {y:?}"
    );
    Ok(())
}
