//! Weights matched to a model of ours, tensor by tensor.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};

use super::folder::{self, Contents};
use super::infer::{self, Hints, Shapes};
use super::names::{Layout, Place};
use super::source::Source;
use crate::bad_input;
use crate::checkpoint::{Dtype, HostTensor};
use crate::config::RunConfig;
use crate::nn::{Spec, materialise};
use crate::{methods, models};

/// Positions that differ by no more than this from the fixed ones are these:
/// the public code computes them in f32.
const SAME_POSITION: f32 = 1e-4;

/// A backbone, and what its file has beside it. All tensors are f32.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The model, its normalisation (`augment.mean`, `augment.std`) and its
    /// heads. Of the rest only a run's own says something.
    pub config: RunConfig,
    /// In the order of [`models::specs`], under its names.
    pub backbone: Vec<HostTensor>,
    /// Heads, momentum encoder, predictor, under their full names.
    pub beside: Vec<HostTensor>,
    pub found: Found,
}

/// Where weights were found, and what else was.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub path: PathBuf,
    /// SHA-256 of the file, or of the checkpoint's state.
    pub sha256: String,
    pub layout: Layout,
    /// How the number of heads is known.
    pub heads_by: String,
    /// Whether a configuration came with them: all of the model's section is
    /// told then, and not inferred.
    pub has_config: bool,
    /// Tensors that are left aside: what they are, and how many.
    pub aside: BTreeMap<&'static str, usize>,
}

/// Reads weights from a file, a run, a checkpoint, or a folder of timm,
/// Hugging Face or `convert`.
///
/// # Errors
/// [`bad_input!`]: what [`Source::open`] refuses; tensors of the backbone that
/// are missing, left over or of another shape, by name; and where the number of
/// heads is not known, or known to be another than the hints say.
pub fn read(path: &Path, from: Option<Layout>, hints: &Hints) -> Result<Weights> {
    let contents = folder::open(path)?;
    matched(path, contents, from, hints)
        .with_context(|| format!("the weights in {}", path.display()))
}

/// Of each tensor of ours, the entries of the file that it consists of.
type Parts = BTreeMap<String, Vec<Option<usize>>>;

fn matched(
    path: &Path,
    mut contents: Contents,
    from: Option<Layout>,
    hints: &Hints,
) -> Result<Weights> {
    let source = &mut contents.source;
    let layout = from.unwrap_or_else(|| Layout::of(&source.entries));
    let (mut parts, mut beside, mut aside) = (Parts::new(), Parts::new(), BTreeMap::new());
    let mut nowhere = Vec::new();
    for (index, entry) in source.entries.iter().enumerate() {
        let (group, name, third, of) = match layout.place(&entry.name) {
            Place::Backbone(name) => (&mut parts, name, 0, 1),
            Place::Third(name, third) => (&mut parts, name, third, 3),
            Place::Beside(name) => (&mut beside, name, 0, 1),
            Place::Nowhere => {
                nowhere.push(entry.name.as_str());
                continue;
            }
            Place::Aside(what) => {
                *aside.entry(what).or_insert(0) += 1;
                continue;
            }
        };
        let slots = group.entry(name.clone()).or_insert_with(|| vec![None; of]);
        match slots.get_mut(third) {
            Some(slot @ None) => *slot = Some(index),
            _ => return Err(bad_input!("two of its tensors are {name}")),
        }
    }
    if let Some(some) = nowhere.chunks(8).next() {
        return Err(bad_input!(
            "{} of its {} tensors are left over, they have no place in the {} layout: {}{}. Is \
             --from the right one?",
            nowhere.len(),
            source.entries.len(),
            layout.name(),
            some.join(", "),
            if nowhere.len() > some.len() {
                ", .."
            } else {
                ""
            }
        ));
    }
    let shapes = shapes(source, &parts);
    let (config, heads_by) = config(path, &contents, layout, hints, &shapes)?;
    let source = &mut contents.source;
    let config = with_heads(config, &contents.config, &self::shapes(source, &beside))?;
    let specs = models::specs(&config.model);
    check(&specs, &shapes, layout)?;
    let mut backbone = Vec::new();
    for spec in &specs {
        backbone.push(tensor(source, &spec.name, &spec.dims, &parts[&spec.name])?);
    }
    let config = match contents.config {
        Some(_) => config,
        None => with_position(config, &backbone)?,
    };
    Ok(Weights {
        beside: read_beside(source, &config, &beside)?,
        config,
        backbone,
        found: Found {
            path: path.to_owned(),
            sha256: contents.sha256,
            layout,
            heads_by,
            has_config: contents.config.is_some(),
            aside,
        },
    })
}

/// The shapes of tensors of so many parts, which lie above each other.
fn shapes(source: &Source, parts: &Parts) -> Shapes {
    let shape = |slots: &Vec<Option<usize>>| {
        let mut first = source.entries[slots.iter().flatten().next().copied()?]
            .shape
            .clone();
        if let Some(rows) = first.first_mut() {
            *rows = rows.saturating_mul(slots.len());
        }
        Some(first)
    };
    let shapes = parts
        .iter()
        .filter_map(|(name, slots)| Some((name.clone(), shape(slots)?)));
    shapes.collect()
}

/// The configuration, and how its number of heads is known.
fn config(
    path: &Path,
    contents: &Contents,
    layout: Layout,
    hints: &Hints,
    shapes: &Shapes,
) -> Result<(RunConfig, String)> {
    let arch = contents
        .source
        .note("arch")
        .filter(|_| layout == Layout::MocoV3);
    let of_arch = arch.and_then(infer::heads_of_arch);
    let told = contents.config.as_ref().and_then(infer::heads);
    let told = told.or(contents.hints.heads).or(of_arch);
    if let (Some(told), Some(given)) = (told, hints.heads)
        && told != given
    {
        return Err(bad_input!(
            "{given} heads are asked for, but it was made with {told}, as {} says",
            told_by(contents, arch)
        ));
    }
    let heads_by = match (told, hints.heads) {
        (Some(_), _) => told_by(contents, arch),
        (None, Some(_)) => "--heads".to_owned(),
        (None, None) => format!("the {} models of this width", layout.name()),
    };
    if let Some(config) = &contents.config {
        return Ok((known(config, hints, contents.told_by)?, heads_by));
    }
    let all = Hints {
        heads: told.or(hints.heads),
        image_size: hints.image_size.or(contents.hints.image_size),
        mean: hints.mean.or(contents.hints.mean),
        std: hints.std.or(contents.hints.std),
    };
    let model = infer::model(shapes, layout, &all)?;
    let mut augment = json!({});
    for (key, value) in [("mean", all.mean), ("std", all.std)] {
        if let Some(value) = value {
            augment[key] = json!(value);
        }
    }
    let about = json!({
        "title": format!("Weights of {}", path.display()),
        "source": format!("xla-moco convert, {} layout", layout.name()),
    });
    let config = infer::config(&model, &json!({}), &augment, &about)?;
    Ok((config, heads_by))
}

/// A configuration that is known, where the hints do not contradict it.
fn known(config: &RunConfig, hints: &Hints, told_by: &str) -> Result<RunConfig> {
    let mut config = config.clone();
    let augment = &config.augment;
    for (what, told, given) in [
        ("mean", augment.mean, hints.mean),
        ("std", augment.std, hints.std),
    ] {
        if given.is_some_and(|given| given != told) {
            return Err(bad_input!(
                "--{what} {given:?} is not what it was made with: {told:?}, as {told_by} says"
            ));
        }
    }
    let told = config.model.image_size;
    match hints.image_size {
        Some(given) if given != told && config.model.vit().is_some() => Err(bad_input!(
            "pictures of {given} px are asked for, but it was made for {told} px, as {told_by} \
             says: positions are not interpolated here"
        )),
        given => {
            config.model.image_size = given.unwrap_or(told);
            Ok(config)
        }
    }
}

fn told_by(contents: &Contents, arch: Option<&str>) -> String {
    match arch {
        Some(arch) if contents.config.is_none() => format!("arch \"{arch}\""),
        _ => contents.told_by.to_owned(),
    }
}

/// The configuration with the heads that the file has, where it is not a run's.
fn with_heads(config: RunConfig, of_run: &Option<RunConfig>, beside: &Shapes) -> Result<RunConfig> {
    if of_run.is_some() || beside.is_empty() {
        return Ok(config);
    }
    let mut value = config.to_value();
    value["method"] = infer::method(&config, beside);
    RunConfig::from_value(value).context("the heads that these weights have")
}

/// The backbone's tensors are the model's, all of them and no others.
fn check(specs: &[Spec], shapes: &Shapes, layout: Layout) -> Result<()> {
    let mut wrong = Vec::new();
    for spec in specs {
        match shapes.get(&spec.name) {
            None => wrong.push(format!("{} is missing", spec.name)),
            Some(found) if *found != spec.dims => {
                wrong.push(format!("{} is {found:?}, not {:?}", spec.name, spec.dims));
            }
            Some(_) => {}
        }
    }
    let matched = specs.len() - wrong.len();
    let known = |name: &&String| specs.iter().any(|spec| spec.name == **name);
    let over = shapes.keys().filter(|name| !known(name));
    wrong.extend(over.map(|name| format!("{name} is left over")));
    if wrong.is_empty() {
        return Ok(());
    }
    let (count, layout) = (wrong.len(), layout.name());
    wrong.truncate(8);
    Err(bad_input!(
        "{matched} of {} tensors of the model are matched in the {layout} layout; {count} are \
         wrong: {}{}. Nothing is written: features of such weights would not be the model's",
        specs.len(),
        wrong.join("; "),
        if count > wrong.len() { "; .." } else { "" }
    ))
}

/// One tensor out of its parts.
fn tensor(
    source: &mut Source,
    name: &str,
    dims: &[usize],
    parts: &[Option<usize>],
) -> Result<HostTensor> {
    let mut data = Vec::new();
    for part in parts {
        let index = part.ok_or_else(|| bad_input!("a part of its tensor {name} is missing"))?;
        let (rows, found) = (
            dims.first().map(|d| d / parts.len()),
            &source.entries[index].shape,
        );
        if found.first().copied() != rows || found.get(1..) != dims.get(1..) {
            return Err(bad_input!(
                "its tensor {} is {found:?}; {} of them make {name} {dims:?}",
                source.entries[index].name,
                parts.len()
            ));
        }
        let bytes = source.read_f32(index)?;
        match data.is_empty() {
            true => data = bytes,
            false => data.extend(bytes),
        }
    }
    let expected = 4 * dims.iter().product::<usize>();
    if data.len() != expected {
        return Err(bad_input!(
            "its tensor {name} has {} bytes as f32; {dims:?} needs {expected}",
            data.len()
        ));
    }
    Ok(HostTensor {
        name: name.to_owned(),
        dtype: Dtype::F32,
        shape: dims.to_vec(),
        data,
    })
}

/// Says that positions are the fixed ones, where they are.
fn with_position(config: RunConfig, backbone: &[HostTensor]) -> Result<RunConfig> {
    let Some(found) = backbone.iter().find(|tensor| tensor.name == "pos_embed") else {
        return Ok(config);
    };
    let mut value = config.to_value();
    value["model"]["position"] = Json::from("sin_cos");
    // Other widths cannot have such positions.
    let Ok(fixed) = RunConfig::from_value(value) else {
        return Ok(config);
    };
    let specs = models::specs(&fixed.model);
    let spec = specs.iter().find(|spec| spec.name == "pos_embed");
    let table = materialise(spec.context("fixed positions")?, 0);
    let (floats, _) = found.data.as_chunks::<4>();
    let near =
        |(bytes, y): (&[u8; 4], &f32)| (f32::from_le_bytes(*bytes) - y).abs() <= SAME_POSITION;
    match floats.iter().zip(&table).all(near) {
        true => Ok(fixed),
        false => Ok(config),
    }
}

/// Heads, momentum encoder and predictor: those of the method, in part or all.
fn read_beside(source: &mut Source, config: &RunConfig, beside: &Parts) -> Result<Vec<HostTensor>> {
    let shapes = shapes(source, beside);
    let specs = methods::specs(config);
    let mut found = Vec::new();
    for (name, parts) in beside {
        let spec = specs.iter().find(|spec| spec.name == *name);
        let spec = spec.ok_or_else(|| bad_input!("its tensor {name} is left over"))?;
        if shapes.get(name) != Some(&spec.dims) {
            return Err(bad_input!(
                "its tensor {name} is {:?}, not {:?}",
                shapes.get(name),
                spec.dims
            ));
        }
        found.push(tensor(source, name, &spec.dims, parts)?);
    }
    Ok(found)
}

impl Weights {
    /// Attention heads; none for a ResNet.
    pub fn heads(&self) -> Option<usize> {
        infer::heads(&self.config)
    }

    /// The tensor of a backbone, by its name.
    pub fn get(&self, name: &str) -> Result<&HostTensor> {
        let found = self.backbone.iter().find(|tensor| tensor.name == name);
        found.with_context(|| format!("the backbone has no tensor {name}"))
    }
}
