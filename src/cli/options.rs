//! Options that several subcommands share.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use clap::Args;

use crate::bad_input;
use crate::config::{Override, RunConfig};

/// Which configuration, and what it is told on the command line.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The configuration file, such as configs/quickstart.json
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// Set one key of the configuration, such as optimizer.base_lr=1e-3
    ///
    /// The value is JSON; a bare word is taken as a string, null as the
    /// default. May be given several times, and wins over --data, --seed and
    /// --devices.
    #[arg(long, value_name = "KEY=JSON")]
    pub set: Vec<Override>,

    /// The training pictures, in place of the configuration's
    ///
    /// A folder (with class folders or without), a tar file, a folder of tar
    /// files or the published CIFAR files; or "synthetic".
    #[arg(long, value_name = "PATH")]
    pub data: Option<String>,

    /// The seed of every random draw
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Devices that share the batch (mesh.data): a number, or for `train` all
    /// that the plugin has
    #[arg(long, value_name = "N|all")]
    pub devices: Option<Devices>,
}

/// How many devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    Number(usize),
    /// All that the plugin has, on all hosts.
    All,
}

impl FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("all", _) => Ok(Self::All),
            (_, Ok(number)) => Ok(Self::Number(number)),
            _ => Err(format!("found {text:?}; expected a number, or all")),
        }
    }
}

impl ConfigArgs {
    /// Reads, resolves and checks the configuration; warns of what looks like
    /// a slip.
    ///
    /// # Errors
    /// As [`RunConfig::load`].
    pub fn load(&self) -> Result<RunConfig> {
        let mut overrides = Vec::new();
        if let Some(path) = &self.data {
            overrides.push(Override::new("data.path", path.as_str()));
            // The file's test split belongs to the file's pictures.
            overrides.push(Override::new("data.test", serde_json::Value::Null));
            overrides.push(Override::new("data.labelled", serde_json::Value::Null));
        }
        overrides.extend(self.seed.map(|seed| Override::new("seed", seed)));
        match self.devices {
            None => {}
            Some(Devices::Number(number)) => overrides.push(Override::new("mesh.data", number)),
            Some(Devices::All) => {
                return Err(bad_input!(
                    "--devices all asks the plugin that `train` runs on; here give a number"
                ));
            }
        }
        overrides.extend(self.set.iter().cloned());
        let config = RunConfig::load(&self.config, &overrides)?;
        crate::models::check_accumulate(&config)?;
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        Ok(config)
    }
}

/// Which compiler and devices.
#[derive(Clone, Debug, Args)]
pub struct PjrtArgs {
    /// The PJRT plugin: cpu, gpu, tpu, or the path of a plugin's library
    #[arg(long, value_name = "PLUGIN", default_value = "cpu")]
    pub pjrt: String,

    /// Compile anew, and keep nothing of it
    #[arg(long)]
    pub no_compile_cache: bool,
}
