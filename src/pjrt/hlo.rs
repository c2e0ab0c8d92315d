//! A program's HLO, before and after XLA's optimisations, in XLA's own text.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::error;
use super::proto::{CompileOptions, OptionValue};

/// HLO text of one compilation.
#[derive(Clone, Debug)]
pub struct HloText {
    /// As XLA receives it: still the global program.
    pub before_optimizations: String,
    /// As it runs: partitioned, fused, scheduled.
    pub after_optimizations: String,
    /// (name, text) after each optimisation pass asked for, in their order.
    pub passes: Vec<(String, String)>,
}

/// Compiles with `compile`, a call of [`super::Client::compile`] or
/// [`super::Topology::compile`], and gives the HLO beside its result.
///
/// `passes` is a regular expression on names of XLA passes; the HLO is then
/// also given at their ends (`.*`: all, which is much).
pub fn export_hlo<T>(
    options: &CompileOptions,
    passes: Option<&str>,
    compile: impl FnOnce(&CompileOptions) -> error::Result<T>,
) -> Result<(T, HloText)> {
    let folder = tempfile::tempdir().context("cannot make a folder for XLA's dump")?;
    let dump_to = folder
        .path()
        .to_str()
        .context("the folder for temporary files is no UTF-8")?;
    let mut options = options.clone();
    let mut set = |name: &str, value| options.env_overrides.push((name.to_owned(), value));
    set("xla_dump_to", OptionValue::Text(dump_to.to_owned()));
    set("xla_dump_hlo_as_text", OptionValue::Bool(true));
    if let Some(passes) = passes {
        set("xla_dump_hlo_pass_re", OptionValue::Text(passes.to_owned()));
    }
    let compiled = compile(&options)?;
    Ok((compiled, read_dump(folder.path())?))
}

/// XLA names its files `module_0001.main.cpu_after_optimizations.txt`, and
/// those of passes `module_0001.main.0007.simplification.after_dce.before_cse.txt`.
fn read_dump(folder: &Path) -> Result<HloText> {
    let mut names: Vec<String> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(name)).with_context(|| format!("cannot read {name}"))
    };
    let the_one = |suffix: &str| match names.iter().find(|name| name.ends_with(suffix)) {
        Some(name) => read(name),
        None => bail!(
            "the plugin wrote no HLO that ends in {suffix} (does it honour xla_dump_to?); \
             it wrote {names:?}"
        ),
    };
    let passes = names
        .iter()
        .filter_map(|name| Some((name, pass_of(name)?)))
        .map(|(name, pass)| Ok((pass.to_owned(), read(name)?)))
        .collect::<Result<_>>()?;
    Ok(HloText {
        before_optimizations: the_one("before_optimizations.txt")?,
        after_optimizations: the_one("after_optimizations.txt")?,
        passes,
    })
}

/// `0007.simplification.after_dce.before_cse` of the second name above.
fn pass_of(name: &str) -> Option<&str> {
    let stem = name.strip_suffix(".txt")?;
    if !stem.contains(".after_") {
        return None;
    }
    let number = stem
        .split('.')
        .find(|part| part.len() == 4 && part.bytes().all(|b| b.is_ascii_digit()))?;
    Some(&stem[number.as_ptr() as usize - stem.as_ptr() as usize..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_passes_from_other_files() {
        assert_eq!(
            pass_of("module_0001.main.0007.simplification.after_dce.before_cse.txt"),
            Some("0007.simplification.after_dce.before_cse")
        );
        assert_eq!(
            pass_of("module_0001.main.cpu_after_optimizations.txt"),
            None
        );
        assert_eq!(
            pass_of("module_0001.main.cpu_after_optimizations-buffer-assignment.txt"),
            None
        );
    }

    #[test]
    fn a_plugin_that_dumps_nothing_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("m.before_optimizations.txt"),
            "HloModule m",
        )
        .unwrap();
        let error = read_dump(folder.path()).unwrap_err().to_string();
        assert!(error.contains("after_optimizations"), "{error}");
    }
}
